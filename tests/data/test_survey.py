import struct
from pathlib import Path

import numpy as np
import pytest
from recordings import RATE, tone, wav

from edgetl.artifacts import AUDIO, AudioPreprocessing, TextPreprocessing
from edgetl.data.dataset import Sample, Samples
from edgetl.data.decode import Decoder, open_decoder
from edgetl.data.sample import Reader
from edgetl.data.survey import Windows, survey, windows_of
from edgetl.errors import EdgetlError
from edgetl.events import Event, Note

SPEC = AudioPreprocessing(sample_rate=RATE, seconds=1.0)


@pytest.fixture
def decode() -> Decoder:
    return open_decoder("audio", (), SPEC)


def recordings(folder: Path, **contents: bytes) -> Samples:
    for name, content in contents.items():
        (folder / f"{name}.wav").write_bytes(content)
    files = [folder / f"{name}.wav" for name in contents]
    return Samples(lambda i: Sample(files[i].name, i, files[i]), range(len(files)))


def look(samples: Samples, decode: Decoder, windows: Windows | None = None, **options: bool) -> tuple[list, list, list]:
    events: list[Event] = []
    found = survey(samples, decode, windows, threads=2, on_event=events.append, **options)
    return (
        [(sample.name, sample.span) for sample in found.samples],
        found.origins.tolist(),
        [event.text for event in events if isinstance(event, Note)],
    )


@pytest.mark.parametrize(
    ("count", "length", "hop", "expected"),
    [
        (7, 10, 10, [(0, 7)]),
        (10, 10, 5, [(0, 10)]),
        (30, 10, 10, [(0, 10), (10, 20), (20, 30)]),
        (25, 10, 10, [(0, 10), (10, 20), (15, 25)]),  # the last one ends with the recording
        (25, 10, 5, [(0, 10), (5, 15), (10, 20), (15, 25)]),
        (107, 10, 50, [(0, 10), (50, 60), (97, 107)]),
        (90, 10, 50, [(0, 10), (50, 60)]),  # not before it is due
        (1010, 1000, 1000, [(0, 1010)]),  # nothing that is worth a window
        (2010, 1000, 1000, [(0, 1000), (1000, 2000)]),
    ],
)
def test_windows_lie_side_by_side_to_the_end(
    count: int, length: int, hop: int, expected: list[tuple[int, int]]
) -> None:
    assert Windows(length, hop).spans(count) == expected


def test_what_windows_may_be() -> None:
    assert windows_of(SPEC, None, None) is None
    assert windows_of(SPEC, None, 0.5) == Windows(RATE, RATE // 2)
    assert windows_of(SPEC, 0.25, None) == Windows(RATE // 4, RATE // 4)
    for audio, window, hop, message in (
        (None, None, 1.0, "are for recordings"),
        (SPEC, 2.0, None, "hears 1 s at once: give a --window of at most 1"),
        (SPEC, None, 1e-9, "at least"),
        (SPEC, None, -1.0, "hop must lie between"),
        (SPEC, float("nan"), None, "window must lie between"),
        (SPEC, None, float("inf"), "hop must lie between"),
    ):
        with pytest.raises(EdgetlError, match=message):
            windows_of(audio, window, hop)


def test_what_is_not_heard_is_told(decode: Decoder, tmp_path: Path) -> None:
    samples = recordings(tmp_path, a=wav(tone(RATE // 2)), b=wav(tone(2 * RATE)), c=wav(tone(3 * RATE)))
    (names, origins, notes) = look(samples, decode)
    assert names == [("a.wav", None), ("b.wav", None), ("c.wav", None)]
    assert origins == [0, 1, 2]
    assert notes == [
        "2 of 3 recordings last longer than the 1 s that the network hears, the longest 3.00 s (c.wav): only the "
        "middle was used, and 55% of all sound was not; --hop 1 uses all of it, in windows"
    ]
    one = look(samples[1:2], decode)[2]
    assert one == [
        "b.wav lasts 2.00 s, and the network hears 1 s: only the middle was used; --hop 1 uses all of it, in windows"
    ]
    assert look(samples[:1], decode)[2] == []


def test_silence_around_recordings_is_told_who_trains(decode: Decoder, tmp_path: Path) -> None:
    samples = recordings(tmp_path, a=wav(tone(RATE // 5)), b=wav(tone(2 * RATE // 5)))
    notes: list[Event] = []
    survey(samples, decode, threads=1, on_event=notes.append, trains=True)
    assert notes == [
        Note(
            "no recording lasts longer than 0.40 s, where the network hears 1 s, so it learns from silence around "
            "them: for longer recordings, prepare with --audio-arg seconds=0.4"
        )
    ]
    notes.clear()
    survey(samples, decode, threads=1, on_event=notes.append)
    longer = recordings(tmp_path, c=wav(tone(RATE // 5)), d=wav(tone(4 * RATE // 5)))
    survey(longer, decode, threads=1, on_event=notes.append, trains=True)
    assert notes == []


def test_wrong_sizes_are_told_once(decode: Decoder, tmp_path: Path) -> None:
    content = wav(tone(800))
    never = content[:40] + bytes(4) + content[44:]
    counted = content[:40] + struct.pack("<I", 1600 + 44) + content[44:]
    samples = recordings(tmp_path, a=content, b=never, c=counted, broken=b"RIFF")
    assert look(samples, decode)[2] == [
        "2 of 3 recordings do not have the length that their headers declare (the first, b.wav, holds 800 samples "
        "where its header declares no number): they were read to the end of the file"
    ]
    assert look(samples[2:3], decode)[2] == [
        "c.wav holds 800 samples where its header declares 822: it was read to the end of the file"
    ]


def test_windows_are_samples_and_silent_ones_are_left_out(decode: Decoder, tmp_path: Path) -> None:
    hum, silence = tone(RATE), np.zeros(RATE)
    mixed = np.concatenate([hum, silence, hum, hum])
    contents = {"mixed": wav(mixed, 2, RATE), "silent": wav(np.tile(silence, 2)), "broken": b"RIFF", "short": wav(hum)}
    samples = recordings(tmp_path, **contents)
    names, origins, notes = look(samples, decode, Windows(RATE, RATE))
    assert origins == [0, 0, 0, 1, 1, 2, 3]
    assert names == [
        ("mixed.wav, 0.00 to 1.00 s", (0, RATE)),
        ("mixed.wav, 2.00 to 3.00 s", (2 * RATE, 3 * RATE)),
        ("mixed.wav, 3.00 to 4.00 s", (3 * RATE, 4 * RATE)),
        ("silent.wav, 0.00 to 1.00 s", (0, RATE)),
        ("silent.wav, 1.00 to 2.00 s", (RATE, 2 * RATE)),
        ("broken.wav", None),
        ("short.wav, 0.00 to 1.00 s", (0, RATE)),
    ]
    assert notes == [
        "3 recordings gave 6 windows of at most 1 s, one every 1 s; 1 silent window was left out",
    ]
    assert look(samples, decode, Windows(RATE, RATE), keep_silent=True)[1] == [0, 0, 0, 0, 1, 1, 2, 3]


def test_a_window_is_decoded_and_known_by_itself(decode: Decoder, tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(-0.9, 0.9, 3 * RATE)
    samples = recordings(tmp_path, a=wav(values), b=wav(values))
    found = survey(samples, decode, Windows(RATE, RATE // 2), threads=1, on_event=lambda event: None).samples
    read = Reader()
    digests = []
    for sample in found:
        content, digest = read(sample)
        assert sample.span is not None
        np.testing.assert_allclose(decode(content, sample.span)[AUDIO], values[slice(*sample.span)], atol=1e-4)
        digests.append(digest)
    # the same content at the same time is the same sample
    assert digests[:5] == digests[5:]
    assert len(set(digests)) == 5
    assert read(samples[0])[1] not in digests


@pytest.mark.parametrize("count", [RATE // 2, RATE, RATE + 1, 3 * RATE + 1])
@pytest.mark.parametrize("rate", [RATE, 44100])
def test_of_a_whole_recording_the_middle_is_decoded(decode: Decoder, count: int, rate: int) -> None:
    content = wav(np.random.default_rng(0).uniform(-0.9, 0.9, count * rate // RATE), 2, rate)
    whole, heard = decode.whole(content)[AUDIO], decode(content)[AUDIO]
    assert len(heard) == min(len(whole), RATE)
    start = (len(whole) - len(heard)) // 2
    np.testing.assert_array_equal(heard, whole[start : start + len(heard)])


def test_texts_that_are_cut_are_told() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import models, pre_tokenizers, processors

    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "play")
    library = tokenizers.Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    decode = open_decoder("text", (), None, TextPreprocessing("words", 6), library.to_str())
    texts = ["play play", "play " * 4, "play " * 13, "play " * 7, "", "p"]
    samples = Samples(lambda i: Sample(f"line {i}", 0, texts[i]), range(len(texts)))
    assert look(samples, decode)[2] == [
        "2 of 6 texts have more than the 6 tokens that the network reads, the longest 15 (line 2): the rest was left "
        "out; a larger --max-length of 'edgetl prepare' keeps more of it"
    ]
    assert look(samples[3:4], decode)[2] == [
        "'line 3' has 9 tokens, and the network reads 6: the rest was left out; a larger --max-length of 'edgetl "
        "prepare' keeps more of it"
    ]
    assert len(decode(texts[2].encode())["input_ids"]) == 6
