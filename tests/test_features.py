import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import write_pictures
from PIL import Image

from edgetl import runtime
from edgetl.artifacts import BACKBONE, PREPROCESS, TensorSpec, load_artifacts
from edgetl.data import open_folder, read_rgb
from edgetl.data.augment import Views
from edgetl.errors import EngineError, RunError
from edgetl.events import Event, FeatureProgress, Note
from edgetl.features import FeatureCache, default_cache_directory, extract_features, extract_views

SPECS = (TensorSpec("a", (2, 3)), TensorSpec("b", ()))
RECORD = 4 * 7


def record(seed: int) -> bytes:
    return np.random.default_rng(seed).standard_normal(7).astype("<f4").tobytes()


def digest(seed: int) -> bytes:
    return seed.to_bytes(16, "big")


def fill(directory: Path, seeds: range) -> None:
    with FeatureCache(directory, SPECS) as cache:
        for seed in seeds:
            cache.append(digest(seed), record(seed))


def contents(directory: Path) -> dict[int, bytes]:
    with FeatureCache(directory, SPECS) as cache:
        a, b = cache.tensors()
        found = {}
        for seed in range(20):
            if (row := cache.row(digest(seed))) is not None:
                found[seed] = a[row].tobytes() + b[row].tobytes()
        return found


def test_what_is_appended_is_found_again(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    fill(tmp_path, range(3, 5))
    assert contents(tmp_path) == {seed: record(seed) for seed in range(5)}


@pytest.mark.parametrize("name", ["features.bin", "index.bin"])
def test_a_cut_file_costs_only_its_last_records(tmp_path: Path, name: str) -> None:
    fill(tmp_path, range(4))
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:-5])
    assert contents(tmp_path) == {seed: record(seed) for seed in range(3)}
    fill(tmp_path, range(10, 12))
    assert contents(tmp_path) == {seed: record(seed) for seed in (0, 1, 2, 10, 11)}


def test_any_flipped_bit_costs_its_record_and_no_other(tmp_path: Path) -> None:
    fill(tmp_path / "good", range(4))
    rng = np.random.default_rng(0)
    for trial in range(60):
        directory = Path(shutil.copytree(tmp_path / "good", tmp_path / f"{trial}"))
        file = directory / ("features.bin" if trial % 2 else "index.bin")
        data = bytearray(file.read_bytes())
        position = int(rng.integers(len(data)))
        data[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(data)
        damaged = position // (RECORD if trial % 2 else 24)
        assert contents(directory) == {seed: record(seed) for seed in range(4) if seed != damaged}


def test_many_are_found_whatever_their_bytes(tmp_path: Path) -> None:
    """More than are kept aside before they are sorted in; digests that end in zeros among them."""
    rng = np.random.default_rng(0)
    digests = [bytes(row) for row in rng.integers(0, 256, (5000, 16), dtype=np.uint8)]
    digests += [bytes(row[:-3]) + bytes(3) for row in rng.integers(0, 256, (5000, 16), dtype=np.uint8)]
    digests.append(bytes(16))
    for again in (False, True):
        with FeatureCache(tmp_path, SPECS) as cache:
            for row, each in enumerate(digests):
                assert cache.row(each) == (row if again else None)
                if not again:
                    assert cache.append(each, record(0)) == row
            assert cache.row(b"\xff" * 16) is None


def test_a_second_user_waits_and_is_told(tmp_path: Path) -> None:
    told: list[Event] = []
    entered = threading.Event()

    def second() -> None:
        with FeatureCache(tmp_path, SPECS, told.append):
            entered.set()

    with FeatureCache(tmp_path, SPECS):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.3)
    thread.join(10)
    assert entered.is_set()
    assert isinstance(told[0], Note)
    assert "in use" in told[0].text


def test_features_are_what_the_graphs_give(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    artifacts = load_artifacts(digits_artifacts)
    samples = open_folder(digits / "train").samples[::10]
    found = extract_features(artifacts, samples, cache=tmp_path)
    preprocess = runtime.open_session(artifacts.file(PREPROCESS))
    backbone = runtime.open_session(artifacts.file(BACKBONE))
    name = artifacts.manifest.inputs[0].name
    for i, sample in enumerate(samples):
        (tensor,) = preprocess.run(None, {"image": read_rgb(sample.path.read_bytes())})
        (expected,) = backbone.run(None, {name: tensor})
        np.testing.assert_array_equal(found.batch(np.array([i]))[0], expected)


def test_photographs_are_decoded_at_a_part_of_their_size(digits_artifacts: Path, tmp_path: Path) -> None:
    artifacts = load_artifacts(digits_artifacts)
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((800, 600), Image.Resampling.BICUBIC).save(tmp_path / "data" / name / "0.jpg", quality=95)
    samples = open_folder(tmp_path / "data").samples
    found = {}
    for decode in ("full", "scaled"):
        computed = extract_features(artifacts, samples, cache=tmp_path / "cache", decode=decode)
        assert computed.computed == 2  # each has a cache of its own
        found[decode] = computed.batch(np.arange(2))[0]
        again = extract_features(artifacts, samples, cache=tmp_path / "cache", decode=decode)
        assert again.computed == 0
    difference = np.linalg.norm(found["scaled"] - found["full"]) / np.linalg.norm(found["full"])
    assert 0 < difference < 0.05


def test_a_picture_that_memory_does_not_suffice_for_is_left_out(digits_artifacts: Path, tmp_path: Path) -> None:
    artifacts = load_artifacts(digits_artifacts)
    pictures = write_pictures(tmp_path / "data", {"a": 2, "b": 2})
    Image.new("RGB", (1500, 1000)).save(pictures / "b" / "large.png")
    samples = open_folder(pictures).samples
    found = extract_features(artifacts, samples, cache=tmp_path / "cache", decoding_mb=5)
    (rejected,) = found.rejected
    assert rejected.name.endswith("large.png")
    assert "takes 32 MB to decode, where 5 MB are left for it" in rejected.reason
    assert len(found.samples) == 4
    Image.new("RGB", (1500, 1000)).save(pictures / "b" / "scaled.jpg")
    more = extract_features(artifacts, open_folder(pictures).samples, cache=tmp_path / "cache", decoding_mb=5)
    assert len(more.samples) == 5
    Image.new("RGB", (1000, 1000)).save(pictures / "b" / "plain.bmp")  # 21 MB, and a file of 3
    more = extract_features(artifacts, open_folder(pictures).samples, cache=tmp_path / "cache", decoding_mb=22)
    assert "takes 24 MB to decode, where 22 MB" in next(each.reason for each in more.rejected if "bmp" in each.name)


def test_only_new_pictures_are_computed(digits_artifacts: Path, tmp_path: Path) -> None:
    artifacts = load_artifacts(digits_artifacts)
    pictures = write_pictures(tmp_path / "data", {"a": 3, "b": 3})
    first = extract_features(artifacts, open_folder(pictures).samples, cache=tmp_path / "cache")
    assert (first.computed, first.reused) == (6, 0)
    again = extract_features(artifacts, open_folder(pictures).samples, cache=tmp_path / "cache")
    assert (again.computed, again.reused) == (0, 6)

    more = write_pictures(tmp_path / "more", {"a": 2}, seed=9)
    for file in (more / "a").iterdir():
        file.rename(pictures / "a" / f"new-{file.name}")
    (pictures / "b" / "000.png").rename(pictures / "b" / "renamed.png")
    shutil.copy(pictures / "b" / "001.png", pictures / "b" / "copy.png")
    progress: list[Event] = []
    grown = extract_features(
        artifacts, open_folder(pictures).samples, cache=tmp_path / "cache", on_event=progress.append
    )
    assert (grown.computed, grown.reused) == (2, 7)
    assert progress[-1] == FeatureProgress(9, 9, 7)
    (pictures / "b" / "not.png").write_bytes(b"a picture")
    extract_features(artifacts, open_folder(pictures).samples, cache=tmp_path / "cache", on_event=progress.append)
    assert progress[-1] == FeatureProgress(10, 10, 9)


def test_the_network_is_opened_for_what_is_new_alone(
    digits: Path, digits_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts, samples = load_artifacts(digits_artifacts), open_folder(digits).samples
    extract_features(artifacts, samples[:20], cache=tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise EngineError("opened")

    monkeypatch.setattr("edgetl.features.open_placed", refuse)
    assert extract_features(artifacts, samples[:20], cache=tmp_path).reused == 20
    with pytest.raises(EngineError, match="opened"):
        extract_features(artifacts, samples[:21], cache=tmp_path)


def test_threads_do_not_change_a_bit(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    artifacts = load_artifacts(digits_artifacts)
    samples = open_folder(digits / "train").samples
    for threads in (1, 3):
        extract_features(artifacts, samples, cache=tmp_path / str(threads), threads=threads)
    one, three = (next((tmp_path / n).glob("*/features.bin")).read_bytes() for n in ("1", "3"))
    assert one == three


def test_bad_files_are_left_out_and_named(digits_artifacts: Path, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "data", {"a": 2, "b": 2})
    good = (pictures / "a" / "000.png").read_bytes()
    (pictures / "a" / "short.png").write_bytes(good[: len(good) // 2])
    (pictures / "b" / "notes.txt").write_text("no picture")
    found = extract_features(load_artifacts(digits_artifacts), open_folder(pictures).samples, cache=tmp_path / "cache")
    assert len(found.samples) == 4
    assert [Path(item.name).name for item in found.rejected] == ["short.png", "notes.txt"]


def test_an_interrupted_extraction_keeps_what_it_had(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    artifacts = load_artifacts(digits_artifacts)
    samples = open_folder(digits / "train").samples

    def stop(event: Event) -> None:
        if isinstance(event, FeatureProgress) and event.done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_features(artifacts, samples, cache=tmp_path, on_event=stop)
    found = extract_features(artifacts, samples, cache=tmp_path)
    assert found.reused == 30
    assert found.computed == len(samples) - 30


def test_views_are_kept_and_drawn(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    artifacts = load_artifacts(digits_artifacts)
    samples = open_folder(digits / "train").samples[:12]
    plain = extract_features(artifacts, samples, cache=tmp_path / "cache")
    some, views = np.arange(8), Views("light", 3, seed=0)
    found = extract_views(plain, some, views)
    assert found.computed == 12 + 24
    again = extract_views(extract_features(artifacts, samples, cache=tmp_path / "cache"), some, views)
    assert (again.computed, again.reused) == (0, 36)
    everything = np.arange(12)
    # without a generator nothing is drawn, and what has no views stands for itself
    np.testing.assert_array_equal(found.batch(everything)[0], plain.batch(everything)[0])
    np.testing.assert_array_equal(
        found.batch(np.arange(8, 12), np.random.default_rng(0))[0], plain.batch(np.arange(8, 12))[0]
    )
    one, same, other = (found.batch(some, np.random.default_rng(seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    # each sample and each of its views is drawn about equally often
    drawn = {found.batch(some[:1], np.random.default_rng(seed))[0].tobytes() for seed in range(40)}
    assert len(drawn) == 4


def test_features_of_half_precision(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    artifacts = load_artifacts(digits_artifacts)
    samples = open_folder(digits / "train").samples[:12]
    whole = extract_features(artifacts, samples, cache=tmp_path / "cache")
    half = extract_features(artifacts, samples, cache=tmp_path / "cache", precision="float16")
    assert half.computed == 12
    assert half.tensors[0].dtype == np.float16
    (a,), (b,) = whole.batch(np.arange(12)), half.batch(np.arange(12))
    assert b.dtype == np.float32
    np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-3 * np.abs(a).max())


# what others do to a cache while it is in use


def test_a_damaged_record_is_told_once_and_its_place_is_used_again(tmp_path: Path) -> None:
    fill(tmp_path, range(4))
    features = tmp_path / "features.bin"
    data = bytearray(features.read_bytes())
    data[RECORD + 3] ^= 4  # the second
    data[-1] ^= 1  # and the last
    features.write_bytes(data)
    told: list[Event] = []
    with FeatureCache(tmp_path, SPECS, told.append) as cache:
        assert [cache.row(digest(seed)) is None for seed in range(4)] == [False, True, False, True]
        cache.append(digest(1), record(1))
    assert [note.text for note in told if isinstance(note, Note)] == [
        f"2 damaged records in {tmp_path} are computed again"
    ]
    told.clear()
    for number in range(2):  # the last was of a sample that is not there any more
        with FeatureCache(tmp_path, SPECS, told.append) as cache:
            assert cache.row(digest(3)) is None
        assert told == [], number
    assert features.stat().st_size == 4 * RECORD
    fill(tmp_path, range(5, 7))
    assert features.stat().st_size == 5 * RECORD
    assert contents(tmp_path) == {seed: record(seed) for seed in (0, 1, 2, 5, 6)}


def test_a_cache_that_is_deleted_is_read_to_the_end(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    artifacts, samples = load_artifacts(digits_artifacts), open_folder(digits / "train").samples[:12]
    expected = extract_features(artifacts, samples, cache=tmp_path / "other").batch(np.arange(12))[0]
    found = extract_features(artifacts, samples, cache=tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    np.testing.assert_array_equal(found.batch(np.arange(12))[0], expected)

    def delete(event: Event) -> None:
        if isinstance(event, FeatureProgress) and event.done == 5:
            shutil.rmtree(tmp_path / "cache")

    found = extract_features(artifacts, samples, cache=tmp_path / "cache", on_event=delete)
    np.testing.assert_array_equal(found.batch(np.arange(12))[0], expected)


def test_views_of_samples_whose_cache_was_deleted_in_between(
    digits: Path, digits_artifacts: Path, tmp_path: Path
) -> None:
    artifacts, samples = load_artifacts(digits_artifacts), open_folder(digits / "train").samples[:6]
    views, some = Views("light", 2, seed=0), np.arange(3)
    whole = extract_views(extract_features(artifacts, samples, cache=tmp_path / "a"), some, views)
    plain = extract_features(artifacts, samples, cache=tmp_path / "b")
    shutil.rmtree(tmp_path / "b")
    again = extract_views(plain, some, views)
    for seed in range(5):
        for one, other in zip(
            whole.batch(np.arange(6), np.random.default_rng(seed)),
            again.batch(np.arange(6), np.random.default_rng(seed)),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("how", ["cut", "emptied", "zeroed", "another record in its place", "cut and filled again"])
def test_a_cache_that_is_cut_or_changed_ends_in_a_sentence(
    digits: Path, digits_artifacts: Path, tmp_path: Path, how: str
) -> None:
    artifacts, samples = load_artifacts(digits_artifacts), open_folder(digits / "train").samples[:12]
    found = extract_features(artifacts, samples, cache=tmp_path)
    expected = found.batch(np.arange(12))[0]
    (file,) = tmp_path.glob("*/features.bin")
    content = file.read_bytes()
    size = len(content) // 12
    if how == "cut":
        os.truncate(file, 6 * size + 7)
    elif how == "emptied":
        os.truncate(file, 0)
    elif how == "zeroed":
        file.write_bytes(bytes(len(content)))
    elif how == "another record in its place":
        with file.open("r+b") as stream:
            stream.seek(7 * size)
            stream.write(content[:size])
    else:  # by another run over the same cache, with other samples
        os.truncate(file, 6 * size)
        others = open_folder(digits / "train").samples[20:40]
        extract_features(artifacts, others, cache=tmp_path)
    with pytest.raises(RunError, match=rf"^the feature cache {file.parent} has been (cut|changed)[^\n]*--resume"):
        found.batch(np.arange(12))
    again = extract_features(artifacts, samples, cache=tmp_path)
    np.testing.assert_array_equal(again.batch(np.arange(12))[0], expected)


def test_what_another_run_adds_disturbs_nobody(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    artifacts, samples = load_artifacts(digits_artifacts), open_folder(digits / "train").samples
    found = extract_features(artifacts, samples[:12], cache=tmp_path)
    expected = found.batch(np.arange(12))[0]
    extract_features(artifacts, samples[12:30], cache=tmp_path)
    np.testing.assert_array_equal(found.batch(np.arange(12))[0], expected)


def test_without_a_home_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("EDGETL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(RunError, match=r"no home directory .*EDGETL_CACHE"):
        default_cache_directory()
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path))
    assert default_cache_directory() == tmp_path


def test_a_place_that_takes_no_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunError, match=r"no features can be kept in .*file/cache \(.+\): .*EDGETL_CACHE"),
        FeatureCache(tmp_path / "file" / "cache", SPECS),
    ):
        pass
