import shutil
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest

from edgetl.errors import RunError
from edgetl.events import EpochEnd
from edgetl.optimizers.registry import Optimizer
from edgetl.runs.run import BEST, LAST, RESULTS, Checkpoint, EpochResult, Run, RunArgs


def test_args_survive_any_text(tmp_path: Path) -> None:
    args = RunArgs(
        edgetl_version="1",
        artifacts='a: "b"\n# c',
        artifacts_sha256="0",
        data="/data/ü 🙂",
        val=None,
        val_fraction=0.2,
        labels=("yes", "null", "a: b"),
        epochs=3,
        batch_size=4,
        lr=1e-3,
        seed=0,
        engine="x",
        optimizer=Optimizer("sgd", clip_norm=0.5),
        micro_batch=3,
        provider="CPUExecutionProvider",
        provider_options={"a: b": "#"},
    )
    run = Run(tmp_path)
    run.write_args(args)
    assert run.read_args() == args


def test_a_checkpoint_survives_exactly(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    history = (EpochEnd(1, 5, 0.1 + 0.2, 1.5, None), EpochEnd(2, 5, 1 / 3, 0.5, 0.25, {"r2": 1.0, "mae": None}, "mae"))
    checkpoint = Checkpoint(2, {"layer.weight": values, "b/c": values[0]}, b"\x00state\xff", history)
    Run(tmp_path).write_checkpoint(LAST, checkpoint)
    found = Run(tmp_path).read_checkpoint(LAST)
    assert found is not None
    assert (found.epoch, found.engine_state, found.history) == (2, b"\x00state\xff", history)
    for name, value in checkpoint.parameters.items():
        np.testing.assert_array_equal(found.parameters[name], value)


def test_results_survive_to_six_digits_and_with_columns_to_come(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.read_results() == ()
    run.write_results((EpochEnd(1, 2, 0.125, 1.5, None), EpochEnd(2, 2, 1 / 3, 0.5, 0.25, {"r2": 1.0, "mae": None})))
    assert run.read_results() == (
        EpochResult(1, 0.125, None, {"r2": None, "mae": None}, 1.5),
        EpochResult(2, pytest.approx(1 / 3, rel=1e-5), 0.25, {"r2": 1.0, "mae": None}, 0.5),  # type: ignore[arg-type]
    )
    (tmp_path / RESULTS).write_text("lr,epoch,val_accuracy\n0.1,0,0.5\n")
    assert run.read_results() == (EpochResult(0, None, None, {"accuracy": 0.5}, None),)
    (tmp_path / RESULTS).write_text("lr\n0.1\n")
    with pytest.raises(RunError, match="damaged"):
        run.read_results()


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert Run(tmp_path).read_checkpoint(BEST) is None


def test_a_damaged_checkpoint_is_refused_or_unchanged(digits_run: Path, tmp_path: Path) -> None:
    original = Run(digits_run).read_checkpoint(LAST)
    assert original is not None
    data = (digits_run / LAST).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(150):
        damaged = bytearray(data)
        damaged[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        run = Run(tmp_path / str(trial))
        (run.path / "weights").mkdir(parents=True)
        (run.path / LAST).write_bytes(damaged)
        try:
            found = run.read_checkpoint(LAST)
        except RunError:
            refused += 1
            continue
        # bits that mean nothing, such as a time stamp in the archive
        assert found is not None
        assert found.engine_state == original.engine_state
        assert found.parameters.keys() == original.parameters.keys()
        assert all((found.parameters[k] == v).all() for k, v in original.parameters.items())
    assert refused > 100


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_cut_checkpoint_is_refused(digits_run: Path, tmp_path: Path, cut: int) -> None:
    shutil.copytree(digits_run, tmp_path / "run")
    (tmp_path / "run" / LAST).write_bytes((digits_run / LAST).read_bytes()[:cut])
    with pytest.raises(RunError, match="damaged"):
        Run(tmp_path / "run").read_checkpoint(LAST)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    np.savez(tmp_path / LAST, meta=np.array([{"epoch": 1}], dtype=object))
    with pytest.raises(RunError, match="damaged"):
        Run(tmp_path).read_checkpoint(LAST)


def test_no_default_stands_in_for_what_every_run_writes(tmp_path: Path) -> None:
    """A file that lacks such a line is damaged, whatever the settings' defaults are today."""
    required = {
        *("edgetl_version", "artifacts", "artifacts_sha256", "data", "val", "val_fraction", "labels", "epochs"),
        *("batch_size", "lr", "seed", "engine"),
    }
    without = {field.name for field in fields(RunArgs) if field.default is MISSING and field.default_factory is MISSING}
    assert without == required
