"""Under a hard limit a run stays below it, or stops with a message that names it and what to try."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from memory_limit import control_group
from processes import EDGETL

from edgetl import finetune
from edgetl.engines.ort_training import OrtTrainingEngine
from edgetl.engines.portable import PortableEngine
from edgetl.errors import DeviceError, OutOfMemoryError
from edgetl.runtime import sessions

BAD_ALLOCATION = "[ONNXRuntimeError] : 6 : BFCArena::AllocateRawInternal Failed to allocate memory for buffer of size 9"


@pytest.fixture
def train(digits: Path, digits_artifacts: Path, tmp_path: Path) -> Callable[..., Any]:
    def call(**options: Any) -> Any:
        return finetune(digits_artifacts, digits / "train", out=tmp_path / "run", epochs=1, lr=1e-2, **options)

    return call


@pytest.mark.parametrize(
    ("raised", "batch", "way"),
    [
        (BAD_ALLOCATION, 32, "32 samples were computed at once: start anew with --force --micro-batch 16"),
        ("std::bad_alloc", 5, "5 samples were computed at once: start anew with --force --micro-batch 2"),
        ("bad allocation", 1, "let a smaller share of the network train"),
    ],
)
def test_memory_that_runs_out_in_a_step(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, raised: str, batch: int, way: str
) -> None:
    def step(*_: Any) -> float:
        raise sessions.failed("the training step", RuntimeError(raised))

    for engine in (OrtTrainingEngine, PortableEngine):
        monkeypatch.setattr(engine, "train_step", step)
    monkeypatch.setattr("edgetl.runtime.process.memory_limit_mb", lambda: 300.0)
    with pytest.raises(OutOfMemoryError, match="not enough memory for the training step within 300 MB; " + way):
        train(batch_size=batch, init="zero")


def test_python_s_own_lack_of_memory(train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: Any) -> float:
        raise MemoryError

    for engine in (OrtTrainingEngine, PortableEngine):
        monkeypatch.setattr(engine, "train_step", step)
    with pytest.raises(OutOfMemoryError, match=r"not enough memory.*--micro-batch 16"):
        train(init="zero")


def test_another_error_of_the_runtime_is_no_lack_of_memory() -> None:
    found = sessions.failed("the step", RuntimeError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT\nmore"))
    assert not isinstance(found, OutOfMemoryError)
    assert str(found) == "onnxruntime cannot run the step ([ONNXRuntimeError] : 2 : INVALID_ARGUMENT)"


def test_a_control_group_s_limit_is_planned_for(train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, fits in ((50.0, False), (100.0, False), (1000.0, True)):
        monkeypatch.setattr("edgetl.runtime.process.memory_limit_mb", lambda limit=limit: limit)
        if fits:
            train(force=True)
        else:
            with pytest.raises(DeviceError, match=f"this control group allows {limit:.0f}.*--memory"):
                train()
    # who knows better may say so
    monkeypatch.setattr("edgetl.runtime.process.memory_limit_mb", lambda: 50.0)
    train(force=True, memory_mb=1000)


@pytest.mark.parametrize("limit_mb", [90, 400])
def test_in_a_real_control_group(digits: Path, digits_artifacts: Path, tmp_path: Path, limit_mb: int) -> None:
    command: list[object] = [*EDGETL, "finetune", digits_artifacts, digits / "train", "--epochs", "1"]
    command += ["--out", tmp_path / "run", "--threads", "1"]
    try:
        with control_group(limit_mb) as group:
            enter = 'echo $$ > "$0"/cgroup.procs && exec "$@"'
            done = subprocess.run(["sh", "-c", enter, group, *command], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    if limit_mb == 400:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 1, (done.returncode, done.stderr)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    allowed = re.search(r"this control group allows (\d+)", line)
    assert allowed is not None, line
    assert 0 < int(allowed[1]) <= limit_mb
