"""A picture file without the metadata that a decoder may stumble over; what holds the pixels stays."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_WEBP_PIXELS = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
_WEBP_ICC, _WEBP_EXIF, _WEBP_XMP = 0x20, 0x08, 0x04  # flags in VP8X
_SCAN, _END, _ADOBE, _EXIF, _COMMENT = 0xDA, 0xD9, 0xEE, 0xE1, 0xFE
_ADOBE_BYTES = 16  # which say how the colours are coded


def without_metadata(data: bytes) -> bytes:
    """Return a PNG, JPEG or WebP file without text, profiles, density and whatever else is not pixels.

    EXIF data stay where they are whole, because they say how the picture is turned. Other files come back as they are,
    and so do those whose structure cannot be followed.
    """
    try:
        if data.startswith(_PNG):
            return _PNG + b"".join(_png_chunks(data))
        if data.startswith(b"\xff\xd8"):
            return b"".join(_jpeg_segments(data))
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            body = b"".join(_webp_chunks(data))
            return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    except (struct.error, IndexError):
        pass
    return data


def _png_chunks(data: bytes) -> Iterator[bytes]:
    position = len(_PNG)
    while position + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, position)
        chunk = data[position : position + 12 + size]
        kind = chunk[4:8]
        is_whole = len(chunk) == 12 + size and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if kind[:1].isupper() or kind == b"tRNS" or (kind == b"eXIf" and is_whole):  # capitals: needed to show it
            yield chunk
        position += 12 + size


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    yield data[:2]
    position = 2
    while data[position] == 0xFF:
        marker = data[position + 1]
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD8:  # fill bytes, and markers without a length
            position += 1 if marker == 0xFF else 2
            continue
        if marker in (_SCAN, _END):
            break
        (size,) = struct.unpack_from(">H", data, position + 2)
        segment = data[position : position + 2 + size]
        is_application = 0xE0 <= marker <= 0xEF or marker == _COMMENT
        is_needed = (marker == _ADOBE and len(segment) >= _ADOBE_BYTES) or (
            marker == _EXIF and segment[4:10] == b"Exif\0\0"
        )
        if is_needed or not is_application:
            yield segment
        position += 2 + size
    yield data[position:]


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    chunks, position = [], 12
    while position + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, position)
        chunk = data[position : position + 8 + size + size % 2]
        if kind in _WEBP_PIXELS or (kind == b"EXIF" and len(chunk) >= 8 + size):
            chunks.append(chunk)
        position += 8 + size + size % 2
    has_exif = any(chunk.startswith(b"EXIF") for chunk in chunks)
    gone = _WEBP_ICC | _WEBP_XMP | (0 if has_exif else _WEBP_EXIF)
    for chunk in chunks:
        if chunk.startswith(b"VP8X") and len(chunk) > 8:
            chunk = chunk[:8] + bytes([chunk[8] & ~gone]) + chunk[9:]
        yield chunk
