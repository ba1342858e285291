"""The training loop: windows of recordings stay together wherever samples are left out."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgetl.events import ignore
from edgetl.runtime.providers import Provider
from edgetl.training import loop
from edgetl.training.loop import Job, find_learning_rate, initial_head


@dataclass
class _Features:
    values: np.ndarray

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray]:
        return (self.values[rows],)


def job_of(recordings: np.ndarray, init: str = "ridge") -> Job:
    rows = np.arange(len(recordings))
    args: Any = SimpleNamespace(seed=3, init=init, batch_size=8, micro_batch=None, epochs=1, label_smoothing=0.0)
    args.class_weights, args.target_mean, args.target_std = None, (), ()
    head = SimpleNamespace(weight="weight", bias="bias")
    prepared: Any = SimpleNamespace(manifest=SimpleNamespace(task="classification", outputs=2, head=head))
    features: Any = _Features(rows.astype(np.float32)[:, None])
    return Job(prepared, args, features, recordings % 2, rows, rows[:0], recordings, 1, Provider(), ignore)


def test_rates_are_tried_on_recordings_that_the_head_has_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[Job] = []
    monkeypatch.setattr(loop, "initial_head", lambda part: parts.append(part) or {})
    monkeypatch.setattr(loop, "find_rate", lambda trial: 0.5)
    recordings = np.repeat(np.arange(20), 7)
    assert find_learning_rate(job_of(recordings)) == 0.5
    [part] = parts
    trained, judging = (set(recordings[rows].tolist()) for rows in (part.train_rows, part.val_rows))
    assert trained | judging == set(range(20))
    assert not trained & judging
    assert len(judging) == 4
    assert len(part.train_rows) + len(part.val_rows) == len(recordings)


@pytest.mark.parametrize("init", ["ridge", "prototype"])
def test_a_closed_form_sees_a_window_of_each_recording_first(init: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def closed_form(batches: Any, *args: Any) -> Any:
        seen.extend((np.concatenate([x for x, _ in batches()])[:, 0].astype(int), args[-1]))
        return SimpleNamespace(weight=np.zeros(1), bias=np.zeros(1))

    monkeypatch.setattr(loop, "head_inputs", lambda *_: lambda arrays: arrays[0])
    monkeypatch.setattr(loop, init, closed_form)
    recordings = np.random.default_rng(1).permutation(np.repeat(np.arange(30), [1, 5, 9] * 10))
    initial_head(job_of(recordings, init))
    rows, numbers = seen
    np.testing.assert_array_equal(numbers, recordings[rows])
    assert sorted(rows.tolist()) == list(range(len(recordings)))
    assert len(set(numbers[:30].tolist())) == 30
    assert len(set(numbers[30:50].tolist())) == 20
