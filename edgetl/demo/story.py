"""The demo: a network that knows the digits 0 to 5 learns 6 to 9 from twenty examples of each.

With torch it pretrains that network first and prepares it; without torch it starts from the
prepared directory `artifacts/digits` that comes with edgetl.
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetl.demo.digits import NEW, PRETRAINED, drawings, write_pictures
from edgetl.deployment.deploy import deploy
from edgetl.deployment.deployed import evaluate, predict
from edgetl.errors import ArtifactsError
from edgetl.events import FeatureProgress, OnEvent, Stage, ignore
from edgetl.files.storage import refuse_existing, temporary_directory
from edgetl.runtime import process
from edgetl.training.finetune import finetune

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgetl.events import Event

_MARKER = "model.onnx"


@dataclass(frozen=True)
class Shown:
    """A picture of the test part and what the deployed model says of it; `pixels` are 0..255, row by row."""

    pixels: tuple[tuple[int, ...], ...]
    truth: str
    prediction: str
    probability: float


@dataclass(frozen=True)
class DemoResult:
    """What the demo measured.

    Attributes:
        transfer: accuracy of the deployed model on the test part.
        scratch: of the same network trained on the same examples without pretraining; None without
            torch.
        pixels: of comparing pixels with each class's mean picture.
        confusion: `[truth][prediction]` counts of the deployed model.
        model: where it lies, if it was kept.
    """

    transfer: float
    scratch: float | None
    pixels: float
    examples: int
    test_pictures: int
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    shown: tuple[Shown, ...]
    model: str | None
    model_kb: float
    ms_per_image: float
    finetune_seconds: float
    seconds: float
    peak_rss_mb: float
    engine: str
    pretrained_here: bool


def run_demo(out: str | Path | None = None, *, on_event: OnEvent = ignore) -> DemoResult:
    """Run the whole story; see the module's docstring.

    Args:
        out: directory to keep pictures, prepared directory, run and model in; default a temporary
            one.

    Raises:
        EdgetlError: `out` is in the way, or no engine is installed.
    """
    started = time.monotonic()
    # torch is used where it is installed; the committed directory serves everywhere else
    with_torch = all(importlib.util.find_spec(name) is not None for name in ("torch", "onnxscript"))
    with _directory(out) as directory:
        canvases, labels, train = write_pictures(directory / "pictures")
        test = np.setdiff1d(np.arange(len(labels)), train)
        scratch = None
        if with_torch:
            artifacts = directory / "artifacts"
            scratch = _pretrain_and_prepare(artifacts, canvases, labels, train, test, on_event)
        else:
            artifacts = committed_artifacts()
        model = directory / "model.onnx"
        told = _quietly(on_event)
        on_event(Stage(f"fine-tuning on {len(train)} pictures of the digits {', '.join(map(str, NEW))}"))
        run = finetune(
            artifacts,
            directory / "pictures" / "train",
            out=directory / "run",
            val_fraction=0,
            epochs=80,
            lr=1e-2,
            cache=directory / "cache",
            on_event=told,
        )
        on_event(Stage("deploying and measuring"))
        deployed = deploy(directory / "run", out=model, on_event=told)
        measured = evaluate(model, directory / "pictures" / "test", on_event=told)
        confusion, shown = _look(model, directory / "pictures" / "test", measured_labels=deployed.labels)
        return DemoResult(
            transfer=measured.accuracy or 0.0,
            scratch=scratch,
            pixels=_nearest_mean(canvases, labels, train, test),
            examples=len(train),
            test_pictures=len(test),
            labels=deployed.labels,
            confusion=confusion,
            shown=shown,
            model=str(model) if out else None,
            model_kb=deployed.size_mb * 1e3,
            ms_per_image=measured.ms_per_image,
            finetune_seconds=run.seconds,
            seconds=time.monotonic() - started,
            peak_rss_mb=process.peak_rss_mb(),
            engine=run.engine,
            pretrained_here=with_torch,
        )


def committed_artifacts() -> Path:
    """Return the prepared directory that comes with edgetl: in the wheel, or in the checkout.

    Raises:
        ArtifactsError: it is in neither place.
    """
    here = Path(__file__).parent
    for place in (here / "artifacts", here.parents[1] / "artifacts" / "digits"):
        if (place / "manifest.json").is_file():
            return place
    raise ArtifactsError("the demo's prepared directory is missing from this installation: install edgetl again")


def prepare_digits(artifacts: Path, directory: Path, *, on_event: OnEvent = ignore) -> None:
    """Pretrain on the digits 0 to 5 and prepare the network for the others; needs torch."""
    import torch

    from edgetl.demo import network
    from edgetl.preparation.prepare import prepare

    on_event(Stage("pretraining a network on the digits 0 to 5"))
    pretrained = network.pretrain(*drawings(PRETRAINED, copies=3), steps=900)
    weights = directory / "pretrained.pt"
    torch.save(pretrained.state_dict(), weights)
    prepare(
        "edgetl.demo.network:build",
        out=artifacts,
        labels=[str(digit) for digit in NEW],
        weights=weights,
        preprocessing={"size": 24, "resize": "squash", "mean": (network.MEAN,), "std": (network.STD,)},
        force=True,
        on_event=_quietly(on_event),
    )


def draw(result: DemoResult) -> None:
    """Show the result on stdout; see `edgetl.demo.picture`."""
    from edgetl.demo.picture import draw_result

    draw_result(result)


def _pretrain_and_prepare(
    artifacts: Path,
    canvases: NDArray[np.uint8],
    labels: NDArray[np.int64],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    on_event: OnEvent,
) -> float:
    """Prepare the pretrained network, and return what the same network reaches from scratch."""
    from edgetl.demo import network

    prepare_digits(artifacts, artifacts.parent, on_event=on_event)
    on_event(Stage("training the same network from scratch, for comparison"))
    fresh = network.pretrain(canvases[train], labels[train], steps=300)
    return network.accuracy(fresh, canvases[test], labels[test])


def _look(
    model: Path, pictures: Path, *, measured_labels: tuple[str, ...]
) -> tuple[tuple[tuple[int, ...], ...], tuple[Shown, ...]]:
    from edgetl.data.dataset import read_rgb

    predictions = predict(model, [pictures], top=1)
    counts = np.zeros((len(measured_labels), len(measured_labels)), dtype=np.int64)
    by_class: dict[str, list[Shown]] = {label: [] for label in measured_labels}
    for item in predictions:
        truth = Path(item.input).parent.name
        counts[measured_labels.index(truth), measured_labels.index(item.labels[0])] += 1
        if len(by_class[truth]) < 2:
            grey = read_rgb(Path(item.input).read_bytes())[:, :, 0]
            rows = tuple(tuple(int(value) for value in row) for row in grey)
            by_class[truth].append(Shown(rows, truth, *item.top[0]))
    shown = tuple(item for pair in zip(*by_class.values(), strict=True) for item in pair)
    return tuple(tuple(int(count) for count in row) for row in counts), shown


def _nearest_mean(
    canvases: NDArray[np.uint8], labels: NDArray[np.int64], train: NDArray[np.int64], test: NDArray[np.int64]
) -> float:
    means = np.stack([canvases[train][labels[train] == index].mean(0) for index in range(len(NEW))])
    distances = ((canvases[test][:, None] - means[None]) ** 2).sum((2, 3))
    return float((distances.argmin(1) == labels[test]).mean())


def _quietly(on_event: OnEvent) -> OnEvent:
    """Pass on the progress of features; the demo names its stages itself, and its data give no cause for notes."""

    def told(event: Event) -> None:
        if isinstance(event, FeatureProgress):
            on_event(event)

    return told


@contextlib.contextmanager
def _directory(out: str | Path | None) -> Iterator[Path]:
    if out is None:
        with temporary_directory() as directory:
            yield directory
        return
    refuse_existing(Path(out), force=False, marker=_MARKER, hint="remove it")
    Path(out).mkdir(parents=True, exist_ok=True)
    yield Path(out)


__all__ = ["DemoResult", "Shown", "committed_artifacts", "draw", "prepare_digits", "run_demo"]
