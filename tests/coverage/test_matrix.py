"""Every architecture can train its head, its last block, and everything, with gradients that are right.

`pytest tests/coverage` runs the third that CI runs; `pytest tests/coverage -m ""` runs all of it and
takes about an hour on two cores. EDGETL_COVERAGE=FILE collects what was found for docs/coverage.md.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
from pathlib import Path

import pytest
from architectures import ARCHITECTURES, Architecture
from cells import CLASSES, measure

from edgetl.preparation.heads import replace_head

POLICIES = ("head", "last:1", "all")


def parameters() -> list[object]:
    return [pytest.param(item, id=item.id, marks=() if item.ci else pytest.mark.long) for item in ARCHITECTURES]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras")
@pytest.mark.parametrize("architecture", parameters())
def test_gradients(architecture: Architecture, tmp_path: Path) -> None:
    # not importorskip: keras is imported with its backend chosen, or not at all
    if architecture.library != "tensorflow" and importlib.util.find_spec(architecture.library) is None:
        pytest.skip(f"{architecture.library} is not installed")
    model, names, image = architecture.load(tmp_path)
    network = replace_head(model, CLASSES, names)
    failures = []
    for policy in POLICIES:
        try:
            cell = measure(network, image, policy, tmp_path / "artifacts")
        except Exception as error:
            failures.append(f"{policy}: {type(error).__name__}: {error}")
            record(architecture, {"policy": policy, "error": f"{type(error).__name__}: {error}"})
            continue
        record(architecture, dataclasses.asdict(cell))
        if not cell.slope_error < 0.01:
            failures.append(f"{policy}: the loss's slope differs from the gradient's norm by {cell.slope_error:.2%}")
        if not cell.logits_error < 1e-3:
            failures.append(f"{policy}: logits differ by {cell.logits_error:.2e}")
    assert not failures, "\n".join(failures)


def record(architecture: Architecture, found: dict[str, object]) -> None:
    if target := os.environ.get("EDGETL_COVERAGE"):
        with open(target, "a", encoding="utf-8") as file:
            row = {"library": architecture.library, "name": architecture.name, "size": architecture.size, **found}
            file.write(json.dumps(row) + "\n")
