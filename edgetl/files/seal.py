"""A file's own SHA-256, inside the file, so that no damage goes unnoticed: of JSON, of archives of arrays, of models.

Whoever can write the file can write its hash, too: a seal tells of accidents, not of who made the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgetl.files.npz import write_npz

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIELD = "content_sha256"
_HEX = 64


class SealError(ValueError):
    """The content is not what was sealed; the message says so in a clause."""


def seal_json(data: dict[str, Any]) -> dict[str, Any]:
    """Return JSON data with the hash of all other fields in the field `content_sha256`, which comes last."""
    rest = {name: value for name, value in data.items() if name != FIELD}
    return {**rest, FIELD: _json_hash(rest)}


def unseal_json(data: Any) -> dict[str, Any]:
    """Return JSON data without the hash that `seal_json` added, having compared it.

    Raises:
        SealError: it differs, or is not there.
    """
    if not isinstance(data, dict):
        raise SealError("it is not an object")
    rest = {name: value for name, value in data.items() if name != FIELD}
    if data.get(FIELD) != _json_hash(rest):
        raise SealError(f"its content is not that of its {FIELD}")
    return rest


def _json_hash(data: dict[str, Any]) -> str:
    # as text of which there is one for the same data, whatever the file's spaces and order
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def write_sealed_npz(file: Path, arrays: Iterable[tuple[str, NDArray[Any]]]) -> None:
    """Write an npz file whose comment, its last bytes, is the hash of all before."""
    with open(file, "w+b") as stream:
        write_npz(stream, arrays, comment=b"0" * _HEX)
        end = stream.seek(-_HEX, os.SEEK_END)
        digest = _stream_hash(stream, end)
        stream.seek(end)
        stream.write(digest)


# An entry of metadata_props, field 14 of an ONNX ModelProto: its key, field 1, is "sha256" and its value, field 2, 64
# characters. Messages of Protocol Buffers may be put one behind the other; a flatbuffer ends where it says.
_MODEL_TAIL = b"\x72\x4a\x0a\x06sha256\x12\x40"


def seal_model(content: bytes) -> bytes:
    """Return the content of an ONNX or ORT file with its hash behind it; in ONNX it is the metadata `sha256`."""
    content += _MODEL_TAIL
    return content + hashlib.sha256(content).hexdigest().encode("ascii")


def is_sealed_model(file: Path) -> bool:
    """Return whether a file ends as one that `seal_model` made; its hash is not compared.

    Raises:
        OSError: the file cannot be read.
    """
    length = len(_MODEL_TAIL) + _HEX
    with open(file, "rb") as stream:
        if stream.seek(0, os.SEEK_END) < length:
            return False
        stream.seek(-length, os.SEEK_END)
        return stream.read(len(_MODEL_TAIL)) == _MODEL_TAIL


def check_file(file: Path) -> None:
    """Compare the hash at the end of a file that `write_sealed_npz` or `seal_model` made.

    Raises:
        SealError: it differs, or is not there.
        OSError: the file cannot be read.
    """
    with open(file, "rb") as stream:
        end = stream.seek(0, os.SEEK_END) - _HEX
        if end < 0 or _stream_hash(stream, end) != stream.read(_HEX):
            raise SealError("its content is not that of the SHA-256 at its end")


def sealed_hash(file: Path) -> bytes:
    """Return the hash at the end of a file that `write_sealed_npz` or `seal_model` made, unchecked: 64 hex digits.

    Raises:
        OSError: the file cannot be read.
    """
    with open(file, "rb") as stream:
        stream.seek(-min(_HEX, stream.seek(0, os.SEEK_END)), os.SEEK_END)
        return stream.read(_HEX)


def _stream_hash(stream: IO[bytes], length: int) -> bytes:
    """Hash a stream's first bytes, in pieces of 1 MiB; it is left behind them."""
    digest, left = hashlib.sha256(), length
    stream.seek(0)
    while left and (piece := stream.read(min(left, 1 << 20))):
        digest.update(piece)
        left -= len(piece)
    return digest.hexdigest().encode("ascii")
