import json
import sys

import numpy as np
import pytest

from edgetl.artifacts import TextPreprocessing
from edgetl.data.text import Tokenize
from edgetl.errors import DataError

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "play", "some", "music", "größe", "now")


@pytest.fixture(scope="module")
def tokenizer() -> str:
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import models, pre_tokenizers, processors

    found = tokenizers.Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    found.enable_padding(length=99)  # as many files say; edgetl fills up by itself
    return str(found.to_str())


def test_fixed_length_fills_up_and_cuts(tokenizer: str) -> None:
    decode = Tokenize(TextPreprocessing("words", 6, pad_id=7, token_type_ids=True), tokenizer)
    short, long = decode(b"play music"), decode(b"play some music now play some")
    assert {name: ids.tolist() for name, ids in short.items()} == {
        "input_ids": [2, 4, 6, 3, 7, 7],
        "attention_mask": [1, 1, 1, 1, 0, 0],
        "token_type_ids": [0] * 6,
    }
    assert long["input_ids"].tolist() == [2, 4, 5, 6, 8, 3]
    assert all(ids.dtype == np.int64 for ids in long.values())


def test_dynamic_length_is_the_texts_own(tokenizer: str) -> None:
    decode = Tokenize(TextPreprocessing("words", 6, padding="dynamic"), tokenizer)
    assert {name: ids.tolist() for name, ids in decode("größe".encode()).items()} == {
        "input_ids": [2, 7, 3],
        "attention_mask": [1, 1, 1],
    }
    assert decode("\ufeffplay".encode())["input_ids"].tolist() == [2, 4, 3]


def test_what_is_no_text_is_one_sentence(tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TextPreprocessing("words", 6)
    decode = Tokenize(text, tokenizer)
    with pytest.raises(DataError, match=r"is not UTF-8 text \(byte 1\)"):
        decode("Größe".encode("latin-1")[1:] + "ß".encode("latin-1"))
    for nothing in (b"", b" \n\t"):
        with pytest.raises(DataError, match="holds no text"):
            decode(nothing)
    with pytest.raises(DataError, match="cannot read the tokenizer of 'words'"):
        Tokenize(text, json.dumps({"model": {"type": "Unheard"}}))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"pip install 'edgetl\[text\]'"):
        Tokenize(text, tokenizer)
