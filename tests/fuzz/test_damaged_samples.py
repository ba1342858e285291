"""Pictures, recordings and tokenizers whose bytes were damaged: what a network takes, or one sentence."""

import io
import json
import random
import struct

import numpy as np
import pytest
from damage import altered, damaged, explore, withstand
from hypothesis import strategies as st
from PIL import Image, features
from recordings import tone, wav

from edgetl.artifacts import AUDIO, IMAGE, TextPreprocessing
from edgetl.data.audio import read_wav
from edgetl.data.augment import Views
from edgetl.data.images import read_rgb
from edgetl.data.metadata import without_metadata
from edgetl.data.text import Tokenize
from edgetl.errors import DataError

RATE = 16000

# Pillow warns of what it can live with
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")


def picture(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    image, options = Image.fromarray(pixels), {}
    if kind in ("PNG", "JPEG"):
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif}
    if kind == "GIF":
        options = {"save_all": True, "append_images": [image.rotate(90)]}
    if kind == "TIFF":
        options = {"compression": "tiff_lzw"} if features.check("libtiff") else {}
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def check_picture(data: bytes) -> None:
    pixels = read_rgb(data)
    assert pixels.dtype == np.uint8
    height, width, channels = pixels.shape
    assert channels == 3
    try:
        opened = Image.open(io.BytesIO(data))
    except Exception:  # Pillow stumbled over its metadata
        opened = Image.open(io.BytesIO(without_metadata(data)))
    with opened as image:
        assert sorted((height, width)) == sorted(image.size), "another size than the header declares"
    view = Views("strong", 1, 0).make({IMAGE: pixels}, bytes(16))[IMAGE]
    assert view.dtype == np.uint8
    assert view.shape[2] == 3


@pytest.mark.parametrize("times", [50, pytest.param(700, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "ICO", "TGA", "JPEG2000"])
def test_pictures(kind: str, times: int) -> None:
    if kind in ("WEBP", "JPEG2000") and not features.check({"WEBP": "webp", "JPEG2000": "jpg_2000"}[kind]):
        pytest.skip("this Pillow does not read them")
    data = picture(kind)
    # every part of a PNG file has a checksum
    both = kind != "PNG"
    withstand(lambda rng: check_picture(damaged(data, rng)), times=times, seed=1, refusal=DataError, both=both)


@pytest.mark.parametrize("times", [150, pytest.param(2000, marks=pytest.mark.long)])
def test_a_reduced_jpeg(times: int) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.tile(np.arange(96, dtype=np.uint8), (80, 1))).save(stream, "JPEG")
    data = stream.getvalue()

    def case(rng: random.Random) -> None:
        pixels = read_rgb(damaged(data, rng), at_least=rng.choice((1, 8, 30)))
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3

    withstand(case, times=times, seed=2, refusal=DataError)


def floats(kind: str) -> bytes:
    values = tone(200).astype(kind)
    form = struct.pack("<HHIIHH", 3, 1, 22050, 22050 * values.itemsize, values.itemsize, 8 * values.itemsize)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", values.nbytes) + values.tobytes()
    return b"RIFF" + struct.pack("<I", len(body)) + body


RECORDINGS = {
    "8": wav(tone(300), 1, RATE),
    "16": wav(np.stack([tone(200), tone(200, 880)], axis=1), 2, 44100),
    "24": wav(tone(200), 3, 8000),
    "32": wav(tone(200), 4, 48000),
    "float32": floats("<f4"),
    "float64": floats("<f8"),
}


def check_recording(data: bytes) -> None:
    values = read_wav(data, RATE)
    assert values.dtype == np.float32
    assert values.ndim == 1
    assert len(values) > 0
    assert np.isfinite(values).all()
    view = Views("light", 1, 0).make({AUDIO: values}, bytes(16))[AUDIO]
    assert view.shape == values.shape
    assert view.dtype == np.float32


@pytest.mark.parametrize("times", [80, pytest.param(500, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", RECORDINGS)
def test_recordings(kind: str, times: int) -> None:
    data = RECORDINGS[kind]
    withstand(lambda rng: check_recording(damaged(data, rng)), times=times, seed=3, refusal=DataError)


@pytest.mark.parametrize("times", [80, pytest.param(800, marks=pytest.mark.long)])
def test_recordings_of_any_header(times: int) -> None:
    number = st.integers(0, 0xFFFF) | st.sampled_from([0, 1, 2, 3, 8, 16, 24, 32, 64, 0xFFFE, 0xFFFF])
    rate = st.integers(0, 2**32 - 1) | st.sampled_from([99, 100, 7919, 44100, 999_983, 1_000_000])
    form = st.tuples(number, number, rate, rate, number, number)
    plain = st.builds(
        lambda kind, channels, rate, width: (kind, channels, rate, 0, channels * width, 8 * width),
        st.sampled_from([1, 3]), st.integers(1, 4), rate, st.sampled_from([1, 2, 3, 4, 8]),
    )  # fmt: skip

    def case(drawn: tuple[tuple[int, ...], bytes, int]) -> None:
        fields, content, declared = drawn
        content *= 20
        head = b"WAVEfmt " + struct.pack("<I", 16) + struct.pack("<HHIIHH", *fields)
        check_recording(b"RIFF\0\0\0\0" + head + b"data" + struct.pack("<I", declared or len(content)) + content)

    declared = st.sampled_from([0, 0, 0, 1, 40, 0x7FFFFFFF, 0xFFFFFFFF])
    explore(st.tuples(plain | form, st.binary(max_size=400), declared), case, times=times, refusal=DataError)


@pytest.fixture(scope="module")
def words() -> str:
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import models, normalizers, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "play", "##ing", "music"))}
    found = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    found.normalizer = normalizers.BertNormalizer()
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    found.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "$A $B", [("[CLS]", 2), ("[SEP]", 3)])
    found.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    return str(found.to_str())


@pytest.fixture(scope="module")
def pairs() -> str:
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import models, pre_tokenizers, processors

    alphabet = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    found = tokenizers.Tokenizer(models.BPE({**alphabet, "pl": 256, "ay": 257, "play": 258}, [("p", "l"), ("a", "y")]))
    found.pre_tokenizer = pre_tokenizers.ByteLevel()
    found.post_processor = processors.RobertaProcessing(("a", 65), ("b", 66))
    return str(found.to_str())


def check_tokenizer(tokenizer: str, text: TextPreprocessing, content: bytes) -> None:
    found = Tokenize(text, tokenizer)(content)
    assert list(found) == [spec.name for spec in text.inputs]
    for ids in found.values():
        assert ids.dtype == np.int64
        assert ids.ndim == 1
        assert len(ids) == text.max_length if text.padding == "fixed" else 0 < len(ids) <= text.max_length
        assert (ids >= 0).all()


TEXTS = ("play music playing", "x", "größe \u0000 \U0001f3b5" * 40, " ".join(["play"] * 300))


@pytest.mark.parametrize("times", [150, pytest.param(1500, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["words", "pairs"])
def test_tokenizers_of_damaged_bytes(kind: str, times: int, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(kind).encode()

    def case(rng: random.Random) -> None:
        tokenizer = damaged(data, rng, most=1).decode("utf-8", "replace")
        text = TextPreprocessing("t", rng.choice((1, 2, 16)), padding=rng.choice(("fixed", "dynamic")))
        check_tokenizer(tokenizer, text, rng.choice(TEXTS).encode())

    withstand(case, times=times, seed=4, refusal=DataError)


@pytest.mark.parametrize("times", [150, pytest.param(2500, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["words", "pairs"])
def test_tokenizers_of_altered_structure(kind: str, times: int, request: pytest.FixtureRequest) -> None:
    record = json.loads(request.getfixturevalue(kind))

    def case(rng: random.Random) -> None:
        changed = record
        for _ in range(rng.randint(1, 3)):
            changed = altered(changed, rng)
        text = TextPreprocessing("t", rng.choice((1, 2, 16)), token_type_ids=rng.random() < 0.5)
        check_tokenizer(json.dumps(changed), text, rng.choice(TEXTS).encode())

    withstand(case, times=times, seed=5, refusal=DataError)


@pytest.mark.parametrize("times", [50, pytest.param(500, marks=pytest.mark.long)])
def test_any_bytes_as_a_text(times: int, words: str) -> None:
    text = TextPreprocessing("t", 16)
    decode = Tokenize(text, words)

    def case(content: bytes) -> None:
        assert len(decode(content)["input_ids"]) == 16

    explore(st.binary(max_size=200) | st.text(max_size=99).map(str.encode), case, times=times, refusal=DataError)
