"""Whenever the process dies, what was finished stays, and the same command with --resume ends with the same bits.

`pytest tests/reliability` kills each engine's run a few times; `-m ""` a hundred times.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import engines

from edgetl.runs.run import BEST, LAST, Run
from edgetl.training.features import _ENTRY

EPOCHS = 4
SEED = 20261127


@dataclass(frozen=True)
class Job:
    """A fine-tuning that is run as a user runs it."""

    artifacts: Path
    data: Path
    engine: str

    def command(self, directory: Path, *options: str) -> list[str]:
        return [
            *(sys.executable, "-m", "edgetl", "finetune", str(self.artifacts), str(self.data)),
            *("--out", str(directory / "run"), "--cache", str(directory / "cache")),
            *("--epochs", str(EPOCHS), "--lr", "0.01", "--engine", self.engine, "--threads", "1", *options),
        ]

    def finish(self, directory: Path, *options: str) -> float:
        """Run it to its end; return the seconds."""
        started = time.monotonic()
        done = subprocess.run(self.command(directory, *options), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return time.monotonic() - started

    def kill(self, directory: Path, after: float, *options: str) -> bool:
        """Kill it after so many seconds; return whether it had not ended by then."""
        process = subprocess.Popen(
            self.command(directory, *options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return True
        return False


def acknowledged(directory: Path) -> int:
    """How many samples the cache's index names."""
    return sum(file.stat().st_size // _ENTRY.size for file in (directory / "cache").glob("*/index.bin"))


def parameters(directory: Path) -> Iterator[tuple[str, bytes]]:
    for name in (LAST, BEST):
        checkpoint = Run(directory / "run").read_checkpoint(name)
        assert checkpoint is not None
        yield f"{name} epoch", str(checkpoint.epoch).encode()
        for key, value in sorted(checkpoint.parameters.items()):
            yield f"{name} {key}", value.tobytes()
    for key, value in sorted(Run(directory / "run").deployed_parameters().items()):
        yield f"to deploy {key}", value.tobytes()


@pytest.mark.parametrize("times", [3, pytest.param(100, marks=pytest.mark.long)])
@pytest.mark.parametrize("engine", engines())
def test_a_killed_run_ends_with_the_same_bits(
    digits: Path, digits_artifacts: Path, tmp_path: Path, engine: str, times: int
) -> None:
    job = Job(digits_artifacts, digits / "train", engine)
    job.finish(tmp_path / "whole")
    seconds = job.finish(tmp_path / "again")  # with all files read once, as they are from here on
    expected = dict(parameters(tmp_path / "whole"))
    rng = random.Random(SEED)
    killed = 0
    for number in range(times):
        directory = tmp_path / f"killed-{number}"
        # some runs are killed again while they are resumed
        for turn in range(rng.choice((1, 1, 2, 3))):
            after = rng.uniform(0.1, 1.0) * seconds
            if job.kill(directory, after, *(["--resume"] if turn else [])):
                killed += 1
            elif not turn:
                seconds = after  # the machine was slower when it was measured
        known = acknowledged(directory)
        job.finish(directory, "--resume")
        metrics = Run(directory / "run").read_metrics()
        assert metrics is not None
        total = metrics["train_samples"] + metrics["val_samples"]
        assert metrics["features_computed"] <= total - known, "a sample that was acknowledged was computed again"
        assert dict(parameters(directory)) == expected, f"run {number} of seed {SEED}"
        assert not list((directory / "run").rglob("*.partial")), "what was being written is swept up"
    assert killed > times / 2


@pytest.mark.parametrize("times", [3, pytest.param(60, marks=pytest.mark.long)])
def test_a_killed_deploy_leaves_the_old_model_or_the_new(
    digits_run: Path, digits_artifacts: Path, tmp_path: Path, times: int
) -> None:
    model = tmp_path / "model.onnx"
    command = [*(sys.executable, "-m", "edgetl", "deploy", str(digits_run), "--out", str(model)), "--threads", "1"]
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.monotonic() - started
    new, old = model.read_bytes(), b"the old model"
    rng = random.Random(SEED)
    seen = set()
    # the first is too early for anything to be there
    for share in (0.1, *(rng.uniform(0.2, 1.1) for _ in range(times - 1))):
        model.write_bytes(old)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(share * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        content = model.read_bytes()
        assert content in (old, new)
        seen.add(content)
    assert old in seen
    subprocess.run(command, check=True, capture_output=True)
    assert model.read_bytes() == new
