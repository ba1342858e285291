"""How many samples are computed at once."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.artifacts import GraphMemory, Manifest, load_artifacts
from edgetl.engines.base import FEWEST_AT_ONCE, MICRO_BATCH_MB, choose_micro_batch, micro_batches, step_threads


@pytest.fixture(scope="module")
def manifest(digits_artifacts: Path) -> Manifest:
    return load_artifacts(digits_artifacts).manifest


def taking(manifest: Manifest, per_sample_mb: float, fixed_mb: float = 10.0) -> Manifest:
    return replace(manifest, step_memory=GraphMemory(fixed_mb, per_sample_mb))


def test_small_steps_stay_whole(manifest: Manifest) -> None:
    assert choose_micro_batch(manifest, 32) is None
    assert choose_micro_batch(replace(manifest, step_memory=None), 32) is None


@pytest.mark.parametrize(("per_sample_mb", "chosen"), [(3.0, 32), (14.0, 8), (30.0, 4), (100.0, 4), (1000.0, 4)])
def test_large_steps_are_cut_but_not_into_single_samples(manifest: Manifest, per_sample_mb: float, chosen: int) -> None:
    assert choose_micro_batch(taking(manifest, per_sample_mb), 64) == chosen
    assert chosen * per_sample_mb <= MICRO_BATCH_MB or chosen == FEWEST_AT_ONCE


@pytest.mark.parametrize(("available_mb", "chosen"), [(10_000, 4), (500, 2), (250, 1), (50, 1)])
def test_a_lack_of_memory_leads_further(manifest: Manifest, available_mb: float, chosen: int) -> None:
    assert choose_micro_batch(taking(manifest, 100.0), 16, available_mb) == chosen


@given(st.integers(1, 500), st.one_of(st.none(), st.integers(1, 100)))
def test_parts_are_all_samples_in_order_of_like_size(count: int, largest: int | None) -> None:
    parts = micro_batches(count, largest)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(count))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1
    assert largest is None or max(lengths) <= largest
    assert len(parts) == (1 if largest is None else -(-count // largest))


@pytest.mark.parametrize(("macs", "at_once", "threads"), [(12_800, 16, 1), (12_800, 1024, 4), (64_000_000, 1, 4)])
def test_small_steps_run_on_one_thread(manifest: Manifest, macs: int, at_once: int, threads: int) -> None:
    manifest = replace(manifest, trainable_macs=macs)
    assert step_threads(manifest, at_once, 4) == threads
    assert step_threads(manifest, at_once, 1) == 1
