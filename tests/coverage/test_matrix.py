"""Every architecture can train its head, its last block, and everything, with gradients that are right.

`pytest tests/coverage` runs the third that CI runs, without 50 steps of everything;
`pytest tests/coverage -m ""` runs all of it and takes about two hours on two cores.
EDGETL_COVERAGE=FILE collects what was found for docs/coverage.md.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
from pathlib import Path

import pytest
from architectures import ARCHITECTURES, Architecture
from cells import CLASSES, STANDS_STILL, measure, start_error, train

from edgetl.artifacts import Preprocessing
from edgetl.preparation.heads import Network, replace_head

POLICIES = ("head", "last:1", "all")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras")


def architectures() -> list[object]:
    return [pytest.param(item, id=item.id, marks=() if item.ci else pytest.mark.long) for item in ARCHITECTURES]


@dataclasses.dataclass(frozen=True)
class Loaded:
    architecture: Architecture
    network: Network
    image: Preprocessing


@pytest.fixture(scope="module", params=architectures())
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    architecture = request.param
    # not importorskip: keras is imported with its backend chosen, or not at all
    if architecture.library != "tensorflow" and importlib.util.find_spec(architecture.library) is None:
        pytest.skip(f"{architecture.library} is not installed")
    model, names, image = architecture.load(tmp_path_factory.mktemp("network"))
    return Loaded(architecture, replace_head(model, CLASSES, names), image)


def test_gradients(loaded: Loaded, tmp_path: Path) -> None:
    failures = []
    for policy in POLICIES:
        problems = []
        found = {}
        try:
            cell = measure(loaded.network, loaded.image, policy, tmp_path / "artifacts")
            start = start_error(loaded.network, loaded.image, tmp_path / "start") if policy == "head" else 0.0
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")
        else:
            found = dataclasses.asdict(cell)
            if not cell.slope_error < 0.01:
                problems.append(f"the loss's slope differs from the gradient's norm by {cell.slope_error:.2%}")
            if not cell.logits_error < 1e-3:
                problems.append(f"logits differ by {cell.logits_error:.2e}")
            if not start < 1e-4:
                problems.append(f"the prepared head's first gradient is off by {start:.2e}")
            if not cell.engines_error < 1e-5:
                problems.append(f"the engines' gradients differ by {cell.engines_error:.2e}")
        record(loaded.architecture, policy, "gradients", found, problems)
        failures += [f"{policy}: {problem}" for problem in problems]
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("policy", [*POLICIES[:-1], pytest.param(POLICIES[-1], marks=pytest.mark.long)])
def test_training(loaded: Loaded, policy: str, tmp_path: Path) -> None:
    found, problems = {}, []
    try:
        trained = train(loaded.network, loaded.image, policy, tmp_path / "artifacts")
    except Exception as error:
        problems.append(f"{type(error).__name__}: {error}")
    else:
        found = dataclasses.asdict(trained)
        # that the engines agree says nothing about a training that stands still
        if not abs(trained.last_loss - trained.first_loss) > STANDS_STILL:
            problems.append(f"the loss goes from {trained.first_loss:.6g} to {trained.last_loss:.6g}")
        # where a training is chaotic, what rounding alone does to it
        if not trained.loss_error < max(1e-4, 10 * (trained.rounding or 0)):
            problems.append(f"the engines' losses differ by {trained.loss_error:.2e}")
        if trained.disagreements:
            problems.append(f"the engines disagree about {trained.disagreements} pictures")
    record(loaded.architecture, policy, "training", found, problems)
    assert not problems, "\n".join(problems)


def record(architecture: Architecture, policy: str, proof: str, found: dict[str, object], problems: list[str]) -> None:
    if target := os.environ.get("EDGETL_COVERAGE"):
        with open(target, "a", encoding="utf-8") as file:
            network = {"library": architecture.library, "name": architecture.name, "size": architecture.size}
            file.write(json.dumps({**network, "policy": policy, "proof": proof, "problems": problems, **found}) + "\n")
