"""A text to token ids, or one sentence that says why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.artifacts import TextPreprocessing
from edgetl.errors import DataError, first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Tokenize:
    """The UTF-8 bytes of a text to a network's inputs for it, int64 `[length]` each; callable from several threads.

    Raises:
        DataError: the library `tokenizers` is not installed, or cannot read the tokenizer.
    """

    def __init__(self, text: TextPreprocessing, tokenizer: str) -> None:
        """Open a tokenizer, given as the content of its `tokenizer.json`."""
        try:
            import tokenizers
        except ImportError as error:
            raise DataError(f"texts need the library tokenizers ({error}): pip install 'edgetl[text]'") from None
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(tokenizer)
            self._tokenizer.no_padding()  # texts are filled up here, each on its own
            self._tokenizer.enable_truncation(text.max_length)
        except BaseException as error:
            raise DataError(
                f"the library tokenizers {tokenizers.__version__} cannot read the tokenizer of {text.tokenizer!r} "
                f"({reason(error)}): install the version that it was written with"
            ) from None
        self._text = text

    def __call__(self, content: bytes) -> dict[str, NDArray[Any]]:
        """Return `input_ids`, `attention_mask` (1 for tokens, 0 for filling) and perhaps `token_type_ids`.

        Raises:
            DataError: it is not UTF-8, holds nothing, or the tokenizer is damaged; the message does not name the text.
        """
        found = self._encoded(content)
        if not 0 < len(found.ids) <= self._text.max_length:
            raise DataError(f"becomes {len(found.ids)} tokens, where 1 to {self._text.max_length} were expected")
        columns = {"input_ids": (found.ids, self._text.pad_id), "attention_mask": ([1] * len(found.ids), 0)}
        if self._text.token_type_ids:
            columns["token_type_ids"] = (found.type_ids, 0)
        return {name: self._filled(*column) for name, column in columns.items()}

    def count(self, content: bytes) -> int:
        """Return how many tokens a text becomes, with those that are cut off; an upper bound where it surely fits.

        Raises:
            DataError: as when it is called.
        """
        most: int = len(content) + self._tokenizer.num_special_tokens_to_add(False)  # a token has a byte at least
        if most <= self._text.max_length:
            return most
        found = self._encoded(content)
        count: int = len(found.ids)
        for rest in found.overflowing:
            count += len(rest.ids) - sum(rest.special_tokens_mask)
        return count

    def _encoded(self, content: bytes) -> Any:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"is not UTF-8 text (byte {error.start})") from None
        if not text.strip():
            raise DataError("holds no text")
        try:
            return self._tokenizer.encode(text)
        except BaseException as error:
            raise DataError(f"cannot be cut into tokens ({reason(error)})") from None

    def _filled(self, values: list[int], filling: int) -> NDArray[Any]:
        if self._text.padding == "fixed":
            values = [*values, *[filling] * (self._text.max_length - len(values))]
        return np.array(values, dtype=np.int64)


def reason(error: BaseException) -> str:
    """Return the first line of an error of the library: a bare exception or, of its Rust code, a panic.

    Raises:
        BaseException: it is none of the library's.
    """
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return first_line(error, 200)
