"""Numbers of extreme size in tables, as inputs and as what is to be told: trained on, or named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgetl import finetune, prepare
from edgetl.errors import EdgetlError

NET = """
from torch import nn
def build(outputs=2):
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, outputs))
"""


def written(path: Path, columns: np.ndarray, labels: Any, name: str) -> Path:
    rows = ["a,b,c,d," + name]
    rows += [
        ",".join(f"{value:.9g}" for value in row) + f",{label}" for row, label in zip(columns, labels, strict=True)
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("numbers")
    (root / "net.py").write_text(NET)
    options: dict[str, Any] = {"modality": "array", "input_shape": [4]}
    prepare(f"{root / 'net.py'}:build", out=root / "classes", labels=["n", "p"], **options)
    prepare(f"{root / 'net.py'}:build", out=root / "numbers", labels=["price"], task="regression", **options)
    return {"classes": root / "classes", "numbers": root / "numbers"}


def columns() -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    return rng.standard_normal((40, 4)) + 1.5 * labels[:, None], ["np"[label] for label in labels]


@pytest.mark.parametrize("rows", [slice(None), slice(7, 8)])
def test_a_column_that_no_rate_suits_is_named(rows: slice, artifacts: dict[str, Path], tmp_path: Path) -> None:
    x, labels = columns()
    x[rows, 2] = 1e30
    table = written(tmp_path / "table.csv", x, labels, "label")
    with pytest.raises(EdgetlError, match=r"too large .* for .*table.csv line \d+ in column c:") as e:
        finetune(artifacts["classes"], table, out=tmp_path / "run", epochs=1, val_fraction=0.0)
    assert "--lr" not in str(e.value)


@pytest.mark.parametrize("factor", [1e12, 1e30, 1e-30])
def test_numbers_of_any_unit_are_learned(factor: float, artifacts: dict[str, Path], tmp_path: Path) -> None:
    x, _ = columns()
    table = written(tmp_path / "table.csv", x, (x[:, 0] - x[:, 1]) * factor, "price")
    result = finetune(artifacts["numbers"], table, out=tmp_path / "run", epochs=1)
    assert result.val_metric is not None
    assert result.val_metric > 0.5


def test_numbers_that_no_network_gives_are_named(artifacts: dict[str, Path], tmp_path: Path) -> None:
    x, _ = columns()
    prices = np.ones(40)
    prices[5] = 1e300
    table = written(tmp_path / "table.csv", x, prices, "price")
    with pytest.raises(EdgetlError, match=r"table.csv line 7: price is 1e\+300, too large for numbers of 32 bits"):
        finetune(artifacts["numbers"], table, out=tmp_path / "run", epochs=1)


def test_a_column_in_other_units_does_not_drown_the_rest(artifacts: dict[str, Path], tmp_path: Path) -> None:
    """A linear head on the columns themselves would learn from any; behind a layer, the note names the column."""
    x, labels = columns()
    notes: list[str] = []
    x[:, 1] *= 1e6
    table = written(tmp_path / "table.csv", x, labels, "label")
    finetune(
        artifacts["classes"],
        table,
        out=tmp_path / "run",
        epochs=1,
        on_event=lambda event: notes.append(getattr(event, "text", "")),
    )
    assert any("the column 'b' is up to" in note for note in notes)
