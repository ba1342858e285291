"""Numbers as options: what `finetune` takes comes back from args.yaml as it was; all else is refused at once."""

import inspect
import math
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgetl import deploy, finetune
from edgetl.cli.finetune import finetune as command
from edgetl.cli.main import main
from edgetl.declaration import check, declarations
from edgetl.errors import EdgetlError
from edgetl.optimizers.registry import Optimizer
from edgetl.runs.run import Run, RunArgs
from edgetl.training.settings import FinetuneSettings

RANGES = {field.name: known.range for field, known in declarations(FinetuneSettings) if known.range is not None}
DEFAULTS = {name: p.default for name, p in inspect.signature(finetune).parameters.items() if name in RANGES}
OF_OPTIMIZER = {"momentum", "weight_decay", "clip_norm"}
KEPT = [name for name in RANGES if name in OF_OPTIMIZER | {field.name for field in fields(RunArgs)}]


def settings_with(name: str, value: Any) -> FinetuneSettings:
    optimizer = "sgd" if name == "momentum" else "adamw"
    return FinetuneSettings("artifacts", "data", out="run", optimizer=optimizer, **{name: value})


def optimizer_with(name: str, value: Any) -> Optimizer:
    if name == "momentum":
        return Optimizer("sgd", {name: value})
    return Optimizer(**({name: value} if name in OF_OPTIMIZER else {}))


def args_with(name: str, value: Any) -> RunArgs:
    given = {"augment": "light", "views": 1, **({} if name in OF_OPTIMIZER else {name: value})}
    return RunArgs(
        edgetl_version="1",
        artifacts="a",
        artifacts_sha256="0",
        data="d",
        val=None,
        labels=("x", "y"),
        engine="portable",
        optimizer=optimizer_with(name, value),
        **{"val_fraction": 0.2, "epochs": 3, "batch_size": 4, "lr": 1e-3, "seed": 0, **given},
    )


def test_every_number_of_finetune_has_a_range() -> None:
    numbers = (click.IntRange, click.FloatRange, type(click.INT), type(click.FLOAT))
    options = {p.name for p in command.params if isinstance(p.type, numbers)} | {"lr", "micro_batch"}
    assert options == set(RANGES)
    for name, default in DEFAULTS.items():
        assert default is None or isinstance(default, str) or default in RANGES[name]


@pytest.mark.parametrize("name", KEPT)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.one_of(st.integers(), st.integers(0, 2**70), st.floats(), st.floats(0, 1), st.booleans()))
@example(1764270000123456789)
@example(2**64 - 1)
@example(2**64)
@example(10**400)
@example(1e-300)
@example(5e-324)
@example(1.5)
@example(1 - 2**-53)
@example(np.int64(7))
@example(np.float32(0.1))
def test_what_is_taken_comes_back(tmp_path: Path, name: str, value: Any) -> None:
    try:
        check(settings_with(name, value))
    except EdgetlError:
        return
    args = args_with(name, value)
    Run(tmp_path).write_args(args)
    read = Run(tmp_path).read_args()
    if name == "momentum":
        found = read.optimizer.hyperparameters[name]
    else:
        found = getattr(read.optimizer if name in OF_OPTIMIZER else read, name)
    assert found == (value if RANGES[name].whole else float(value))


@pytest.mark.parametrize("name", RANGES)
def test_the_ends_of_each_range_are_taken_and_what_is_beyond_is_not(name: str) -> None:
    among = RANGES[name]
    after = (lambda x, way: x + way) if among.whole else (lambda x, way: math.nextafter(x, way * math.inf))
    for value in (among.low, after(among.high, -1) if among.below else among.high):
        check(settings_with(name, value))
    beyond = [after(among.low, -1), among.high if among.below else after(among.high, 1)]
    for value in (*beyond, math.nan, math.inf, -math.inf, True, *((1.5,) if among.whole else ())):
        with pytest.raises(EdgetlError, match=rf"^{name} must lie between [^\n]+, not be"):
            check(settings_with(name, value))


@pytest.mark.parametrize(
    "option", ["epochs", "batch-size", "lr", "seed", "micro-batch", "patience", "views", "threads", "memory", "warmup"]
)
@pytest.mark.parametrize("text", ["-1", "nan", "1e400", "9" * 5000, "", "x", "²", str(2**200)])
def test_the_command_line_refuses_in_one_sentence(
    option: str, text: str, digits: Path, digits_artifacts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = CliRunner().invoke(
        main, ["finetune", str(digits_artifacts), str(digits / "train"), "--out", str(out), f"--{option}={text}"]
    )
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit)
    assert "Error: " in result.stderr
    assert not out.exists()


@pytest.mark.skipif(sys.maxsize < 2**62, reason="needs numbers of 64 bits")
def test_a_run_with_the_largest_numbers_is_deployed(digits: Path, digits_artifacts: Path, tmp_path: Path) -> None:
    largest = {"batch_size": RANGES["batch_size"].high, "patience": RANGES["patience"].high}
    for number, options in enumerate(
        ({"seed": 1764270000123456789}, {"seed": 2**64 - 1}, largest, {"lr": RANGES["lr"].low}, {"micro_batch": 2**53})
    ):
        run = finetune(
            digits_artifacts,
            digits / "train",
            out=tmp_path / f"{number}",
            **{"epochs": 1, **options},  # type: ignore[arg-type]
        ).run
        assert deploy(run, out=tmp_path / "m.onnx").verified_samples == 16
