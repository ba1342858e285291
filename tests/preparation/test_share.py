"""`--train auto`: the largest share of a network that fits a device."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import edgetl
from edgetl import prepare
from edgetl.artifacts import load_artifacts
from edgetl.device.planning import RESERVE, predict, smaller_step
from edgetl.errors import DeviceError, EdgetlError
from edgetl.events import Note
from edgetl.preparation.share import _last


@pytest.mark.parametrize("fitting", range(7))
def test_halving_finds_the_last_that_fits(fitting: int) -> None:
    candidates = list("abcdef")
    asked: list[str] = []

    def fits(candidate: str) -> bool:
        asked.append(candidate)
        return candidates.index(candidate) < fitting

    assert _last(candidates, fits) == (candidates[fitting - 1] if fitting else None)
    assert len(asked) <= 3


SOURCE = """
from torch import nn


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
    def forward(self, x):
        return x + self.conv(x).relu()

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(Block(64) for _ in range(4)))
        self.head = nn.Linear(64, 5)
    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))

def build():
    return Network().eval()
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("source") / "network.py"
    file.write_text(SOURCE)
    return f"{file}:build"


def prepared(source: str, out: Path, **options: object) -> edgetl.preparation.prepare.PrepareResult:
    return prepare(source, out=out, classes=3, preprocessing={"size": 64}, **options)  # type: ignore[arg-type]


def test_the_largest_share_that_fits(source: str, tmp_path: Path) -> None:
    needs = {}
    for policy in ("head", "last:2", "last:3", "all"):
        prepared(source, tmp_path / policy, train=[policy])
        needs[policy] = RESERVE * predict(load_artifacts(tmp_path / policy).manifest, "portable", 1, 4).peak_mb
    assert needs["head"] < needs["last:2"] < needs["last:3"] < needs["all"]
    notes: list[str] = []
    prepared(
        source,
        tmp_path / "auto",
        train=["auto"],
        device="raspberry-pi-4",
        memory_mb=(needs["last:2"] + needs["last:3"]) / 2,
        on_event=lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    assert load_artifacts(tmp_path / "auto").manifest.policy == ("last:2",)
    assert notes[-1] == "--train auto: last:2 is the largest share that fits Raspberry Pi 4 Model B, 4 GB"
    prepared(source, tmp_path / "everything", train=["auto"], device="raspberry-pi-4")
    assert load_artifacts(tmp_path / "everything").manifest.policy == ("all",)


def test_plan_names_the_share_that_would_fit(source: str, tmp_path: Path) -> None:
    prepared(source, tmp_path / "all", train=["all"])
    shares = load_artifacts(tmp_path / "all").manifest.shares
    assert [share.policy for share in shares] == ["head", "last:1", "last:2", "last:3", "last:4", "all"]
    for smaller, larger in itertools.pairwise(shares):
        assert smaller.trainable_mb < larger.trainable_mb
        assert smaller.values_mb < larger.values_mb
        assert smaller.nodes < larger.nodes
    # the last block: a convolution, its activation and the sum, 64 maps of 32×32 each, before the mean
    assert shares[1].values_mb - shares[0].values_mb == pytest.approx(3 * 64 * 32 * 32 * 4e-6, rel=0.01)
    # what is estimated from the whole is near what the share itself takes
    prepared(source, tmp_path / "some", train=["last:2"])
    whole, some = (load_artifacts(tmp_path / name).manifest.step_memory for name in ("all", "some"))
    assert whole is not None
    assert some is not None
    assert smaller_step(whole.per_sample_mb, shares[2], shares[-1]) == pytest.approx(some.per_sample_mb, rel=0.25)


def test_nothing_fits(source: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"not even the head .* fits raspberry-pi-4: it takes .* and 20 MB"):
        prepared(source, tmp_path / "out", train=["auto"], device="raspberry-pi-4", memory_mb=20)
    with pytest.raises(DeviceError, match="even for one sample at once"):
        prepared(source, tmp_path / "out", train=["all"], device="raspberry-pi-4", memory_mb=20)
    assert list(tmp_path.iterdir()) == []


def test_auto_stands_alone(source: str, tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match="auto"):
        prepared(source, tmp_path / "out", train=["auto", "bias"], device="raspberry-pi-4")


def test_the_backbone_is_quantised_before_training(source: str, tmp_path: Path, pictures: Callable[[], Path]) -> None:
    import onnx

    torch.manual_seed(0)
    prepared(source, tmp_path / "int8", backbone="int8", calibration=pictures())
    manifest = load_artifacts(tmp_path / "int8").manifest
    assert manifest.backbone_precision == "int8"
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(tmp_path / "int8" / "backbone.onnx").graph.node}
    with pytest.raises(EdgetlError, match="give --calibration DATA"):
        prepared(source, tmp_path / "a", backbone="int8")
    with pytest.raises(EdgetlError, match="has no backbone"):
        prepared(source, tmp_path / "b", backbone="int8", calibration=pictures(), train=["all"])


@pytest.fixture
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    from conftest import write_pictures

    return lambda: write_pictures(tmp_path_factory.mktemp("pictures"), {"a": 12}, size=64)
