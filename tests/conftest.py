"""Fixtures: pictures, the committed prepared directory, and a run made from it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared"
HAS_TORCH = importlib.util.find_spec("torch") is not None

# a shell lets its background jobs ignore it, and so would the processes that tests interrupt
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# of several processes (pytest -n), each keeps to a core of its own: threads that wait for each other's core only spin
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

# preparation and coverage need the workstation's packages; everything else runs without torch
collect_ignore = [] if HAS_TORCH else ["preparation", "gradients", "graph", "coverage"]

if HAS_TORCH:
    # in this process as PYTHONPATH=tests/torchvision_standin does it in others
    _file = HERE / "torchvision_standin" / "sitecustomize.py"
    _spec = importlib.util.spec_from_file_location("torchvision_standin", _file)
    assert _spec is not None
    assert _spec.loader is not None
    _standin = importlib.util.module_from_spec(_spec)  # kept, because it holds the declarations
    _spec.loader.exec_module(_standin)


def engines() -> list[str]:
    """The engines that are installed."""
    from edgetl.engines.registry import resolve_engine
    from edgetl.errors import EngineError

    found = []
    for name in ("ort-training", "portable"):
        with contextlib.suppress(EngineError):
            found.append(resolve_engine(name))
    return found


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or leaves features in the user's own cache."""
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's pictures: `train/` with 20 of each of the digits 6 to 9, `test/` with the others."""
    from edgetl.demo.digits import write_pictures

    root = tmp_path_factory.mktemp("digits")
    write_pictures(root)
    return root


@pytest.fixture(scope="session")
def digits_artifacts() -> Path:
    from edgetl.demo.story import committed_artifacts

    return committed_artifacts()


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory, digits: Path, digits_artifacts: Path) -> Path:
    """A finished run; tests that change it copy it first."""
    from edgetl import finetune

    root = tmp_path_factory.mktemp("run")
    finetune(digits_artifacts, digits / "train", out=root / "run", epochs=5, lr=1e-2, cache=root / "cache")
    return root / "run"


@pytest.fixture(scope="session")
def digits_model(tmp_path_factory: pytest.TempPathFactory, digits_run: Path) -> Path:
    from edgetl import deploy

    model = tmp_path_factory.mktemp("model") / "model.onnx"
    deploy(digits_run, out=model)
    return model


def write_pictures(root: Path, counts: dict[str, int], *, size: int = 8, seed: int = 0) -> Path:
    """Write random PNG pictures, `counts[name]` into each folder `root/name`."""
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return root
