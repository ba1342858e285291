"""OpenVINO's execution provider (its CPU device needs no Intel hardware) against ONNX Runtime's own CPU provider.

Runs in an environment with onnxruntime-openvino; see .ci/run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import edgetl
from edgetl.errors import EngineError
from edgetl.runs.run import Run
from edgetl.runtime.sessions import import_onnxruntime

OPENVINO = "OpenVINOExecutionProvider"
pytestmark = pytest.mark.skipif(
    OPENVINO not in import_onnxruntime().get_available_providers(), reason="needs onnxruntime-openvino"
)
DEVICE = {"device_type": "CPU"}


def trained(artifacts: Path, data: Path, out: Path, **settings: object) -> edgetl.FinetuneResult:
    return edgetl.finetune(artifacts, data, out=out, cache=out.parent / f"{out.name}-cache", epochs=5, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("micro_batch", [None, 10])
def test_backbone_and_head_step_run_on_it_with_the_same_losses(
    digits_artifacts: Path, digits: Path, tmp_path: Path, micro_batch: int | None
) -> None:
    there = trained(
        digits_artifacts,
        digits,
        tmp_path / "there",
        provider="openvino",
        provider_options=DEVICE,
        micro_batch=micro_batch,
    )
    here = trained(digits_artifacts, digits, tmp_path / "here")
    assert there.placement["features"][OPENVINO] > 0.9
    assert there.placement["training"][OPENVINO] > 0.5
    assert here.placement == {"features": {"CPUExecutionProvider": 1.0}, "training": {"CPUExecutionProvider": 1.0}}
    for ours, cpus in zip(history(tmp_path / "there"), history(tmp_path / "here"), strict=True):
        assert ours.train_loss == pytest.approx(cpus.train_loss, abs=1e-3)
        assert ours.val_loss == pytest.approx(cpus.val_loss, abs=1e-3)
        assert ours.val_accuracy == cpus.val_accuracy


def history(run: Path) -> tuple[edgetl.events.EpochEnd, ...]:
    last = Run(run).read_checkpoint("weights/last.npz")
    assert last is not None
    return last.history


def test_what_it_trained_is_deployed_and_verified_on_the_cpu(
    digits_artifacts: Path, digits: Path, tmp_path: Path
) -> None:
    trained(digits_artifacts, digits, tmp_path / "run", provider="openvino", provider_options=DEVICE)
    assert edgetl.deploy(tmp_path / "run", out=tmp_path / "model.onnx").largest_difference < 1e-3


def test_a_second_run_with_a_full_cache_says_that_no_backbone_ran(
    digits_artifacts: Path, digits: Path, tmp_path: Path
) -> None:
    for out in ("one", "two"):
        result = edgetl.finetune(
            digits_artifacts,
            digits,
            out=tmp_path / out,
            cache=tmp_path / "cache",
            epochs=1,
            provider="openvino",
            provider_options=DEVICE,
        )
    assert result.placement["features"] == {}


def test_a_device_that_is_not_there_is_refused_or_the_cpu_takes_its_place(
    digits_artifacts: Path, digits: Path, tmp_path: Path
) -> None:
    nowhere = {"device_type": "NPU"}
    with pytest.raises(EngineError, match=r"the backbone: OpenVINOExecutionProvider .*--allow-fallback"):
        trained(digits_artifacts, digits, tmp_path / "run", provider="openvino", provider_options=nowhere)
    result = trained(
        digits_artifacts,
        digits,
        tmp_path / "run",
        provider="openvino",
        provider_options=nowhere,
        allow_fallback=True,
    )
    assert result.placement["features"] == {"CPUExecutionProvider": 1.0}


def test_the_command_line_says_what_ran_where(digits_artifacts: Path, digits: Path, tmp_path: Path) -> None:
    command = ["finetune", str(digits_artifacts), str(digits), "--out", str(tmp_path / "run"), "--epochs", "1"]
    options = ["--provider", "openvino", "--provider-option", "device_type=CPU", "--cache", str(tmp_path / "cache")]
    done = subprocess.run(
        [sys.executable, "-m", "edgetl", *command, *options], capture_output=True, text=True, check=True
    )
    assert f"features ran on: {OPENVINO}" in done.stdout
    assert f"training ran on: {OPENVINO}" in done.stdout
