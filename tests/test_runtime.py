import subprocess
import sys

import pytest

from edgetl import runtime
from edgetl.engines import resolve_engine
from edgetl.errors import EngineError


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for module in ("edgetl.runtime", "edgetl.engines"):
        monkeypatch.setattr(f"{module}.installed_distributions", lambda: names)


def test_two_distributions_clash_and_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "onnxruntime", "onnxruntime-training-cpu")
    with pytest.raises(EngineError, match="pip uninstall -y onnxruntime onnxruntime-training-cpu"):
        runtime.import_onnxruntime()


def test_auto_takes_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "onnxruntime-training-cpu")
    assert [resolve_engine(name) for name in ("auto", "portable")] == ["ort-training", "portable"]
    installed(monkeypatch, "onnxruntime")
    assert resolve_engine("auto") == "portable"
    with pytest.raises(EngineError, match=r"--engine portable.*edgetl\[ort-training\]"):
        resolve_engine("ort-training")


@pytest.mark.parametrize(("found", "message"), [((), "is not installed"), (("onnxruntime",), "does not load")])
def test_nothing_to_import(monkeypatch: pytest.MonkeyPatch, found: tuple[str, ...], message: str) -> None:
    installed(monkeypatch, *found)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=message):
        runtime.import_onnxruntime()


def test_results_come_in_order_and_few_are_ahead() -> None:
    taken = []

    def items() -> object:
        for i in range(50):
            taken.append(i)
            yield i

    results = runtime.map_in_order(lambda i: i * i, items(), threads=2)  # type: ignore[arg-type]
    assert next(results) == 0
    assert len(taken) < 15
    assert list(results) == [i * i for i in range(1, 50)]


def test_peak_memory_is_this_process() -> None:
    code = "from edgetl.runtime import peak_rss_mb as p; a = p(); x = bytearray(80_000_000); print(a, p())"
    # started from a process that is larger
    padding = bytearray(300_000_000)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert len(padding) == 300_000_000
    assert before < 60
    assert 70 < after - before < 110
