from pathlib import Path

import pytest
from click.testing import CliRunner

from edgetl import benchmark, deploy
from edgetl.cli.main import main
from edgetl.deployment import benchmarking
from edgetl.errors import DeployError


def test_a_model_of_single_samples(digits_model: Path) -> None:
    found = benchmark(digits_model, seconds=0.1, threads=2)
    assert found.inputs == ("image uint8 [480, 640, 3]",)
    assert [(timing.batch, timing.how) for timing in found.timings] == [(1, "one call"), (16, "concurrent calls")]
    for timing in found.timings:
        assert 0 < timing.median_ms <= timing.p95_ms
        assert timing.calls >= 10
    assert found.size_mb == digits_model.stat().st_size / 1e6
    assert 20 < found.base_rss_mb < found.peak_rss_mb < found.base_rss_mb + 100
    assert found.placement == {"CPUExecutionProvider": 1.0}


def test_figures_of_a_clock_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    # the first call is not timed; then nine take a millisecond each and one takes 91
    durations = iter([5.0, *[0.001] * 9, 0.091])

    def call() -> None:
        nonlocal now
        now += next(durations)

    monkeypatch.setattr(benchmarking.time, "monotonic", lambda: now)
    found = benchmarking._timing(call, 4, "one call", seconds=0.0)
    assert (found.batch, found.calls) == (4, 10)
    assert found.median_ms == pytest.approx(1)
    assert found.p95_ms == pytest.approx(1 + 0.55 * 90)  # between the ninth and the tenth of ten, NumPy's way
    assert found.per_second == pytest.approx(4 * 10 / 0.1)


@pytest.mark.parametrize(("batch", "expected"), [(None, [(1, "one call"), (16, "one call")]), (3, [(3, "one call")])])
def test_models_of_batches(
    digits_run: Path, tmp_path: Path, batch: int | None, expected: list[tuple[int, str]]
) -> None:
    deploy(digits_run, out=tmp_path / "model.onnx", input="tensor", batch=batch)
    found = benchmark(tmp_path / "model.onnx", seconds=0)
    assert [(timing.batch, timing.how) for timing in found.timings] == expected
    assert found.inputs == (f"input float32 [{batch or 1}, 1, 24, 24]",)


def test_any_onnx_file(digits_artifacts: Path) -> None:
    found = benchmark(digits_artifacts / "backbone.onnx", seconds=0)
    assert [timing.batch for timing in found.timings] == [1, 16]


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"nothing\.onnx does not exist"):
        benchmark(tmp_path / "nothing.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(DeployError, match=r"bad\.onnx: CPUExecutionProvider refuses the model"):
        benchmark(tmp_path / "bad.onnx")


def test_the_table(digits_model: Path) -> None:
    result = CliRunner().invoke(main, ["benchmark", str(digits_model), "--seconds", "0"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "first answer in" in lines[0]
    assert lines[3].split() == ["at", "once", "as", "median", "ms", "p95", "ms", "per", "second", "measured"]
    assert [line.split()[0] for line in lines[4:]] == ["1", "16"]
