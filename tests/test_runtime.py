import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgetl import runtime
from edgetl.engines import resolve_engine
from edgetl.errors import EngineError
from edgetl.events import Note


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


def test_onnxruntime_brings_neither_torch_nor_onnx() -> None:
    code = "import sys; from edgetl.runtime import import_onnxruntime; import_onnxruntime(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "onnxruntime" in loaded
    assert not {"torch", "onnx", "onnxruntime.training"} & set(loaded)


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


def system(tmp_path: Path, groups: str, files: dict[str, str]) -> float | None:
    """What a system says whose MemAvailable is 1000 MB; `files` are below /sys/fs/cgroup."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 2000000 kB\nMemAvailable:  976562 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text(groups)
    for name, content in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return runtime.available_memory_mb(tmp_path / "proc", tmp_path / "cgroup")


V2 = "0::/app/job\n"
UNLIMITED = "9223372036854771712"
V1 = "5:cpu,cpuacct:/\n4:memory:/job\n0::/\n"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {}, 999.999488),
        (V2, {"app/job/memory.max": "max\n", "app/job/memory.current": "5\n"}, 999.999488),
        (V2, {"app/job/memory.max": "300000000\n", "app/job/memory.current": "100000000\n"}, 200),
        # files that are only cached are no use of memory
        (
            V2,
            {
                "app/job/memory.max": "300000000",
                "app/job/memory.current": "100000000",
                "app/job/memory.stat": "anon 1\ninactive_file 60000000\n",
            },
            260,
        ),
        # a limit further up holds, too
        (V2, {"app/memory.max": "90000000\n", "app/memory.current": "0\n", "app/job/memory.max": "max\n"}, 90),
        # a container sees its group as the root
        ("0::/elsewhere\n", {"memory.max": "50000000\n", "memory.current": "60000000\n"}, 0),
        (V1, {"memory/job/memory.limit_in_bytes": "80000000", "memory/job/memory.usage_in_bytes": "1000000"}, 79),
        (
            V1,
            {"memory/job/memory.limit_in_bytes": UNLIMITED, "memory/job/memory.usage_in_bytes": "1"},
            999.999488,
        ),
        (V1, {"memory/job/memory.limit_in_bytes": "nonsense"}, 999.999488),
    ],
)
def test_free_memory_is_what_control_groups_leave(
    tmp_path: Path, groups: str, files: dict[str, str], expected: float
) -> None:
    assert system(tmp_path, groups, files) == pytest.approx(expected)


def test_nothing_is_known_where_the_system_does_not_tell(tmp_path: Path) -> None:
    assert runtime.available_memory_mb(tmp_path, tmp_path) is None


def test_onnxruntime_sends_nothing_and_leaves_no_device_id(tmp_path: Path) -> None:
    code = (
        "import os; from edgetl.runtime import import_onnxruntime; import_onnxruntime()\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['ORT_TELEMETRY_DISABLED'])"
    )
    kept = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept)
    assert done.stdout.split() == ["1", "1"]
    assert list(tmp_path.rglob("*")) == []
    # who wants it says so
    kept["ORT_DISABLE_TELEMETRY"] = kept["ORT_TELEMETRY_DISABLED"] = "0"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept)
    assert done.stdout.split() == ["0", "0"]


def test_a_control_group_s_limit_and_what_others_take_of_it(tmp_path: Path) -> None:
    system(tmp_path, V2, {"app/job/memory.max": "300000000\n", "app/job/memory.current": "100000000\n"})
    places = tmp_path / "proc", tmp_path / "cgroup"
    assert runtime.memory_limit_mb(*places) == pytest.approx(200)
    pages = 60_000_000 // os.sysconf("SC_PAGE_SIZE")
    (tmp_path / "proc" / "self" / "statm").write_text(f"1000000 {pages} 0 0 0 0 0\n")
    assert runtime.memory_limit_mb(*places) == pytest.approx(260, abs=0.1)  # its own part it may keep
    # no more than the limit, though pages that are shared may be charged to others
    (tmp_path / "cgroup" / "app" / "job" / "memory.current").write_text("0\n")
    assert runtime.memory_limit_mb(*places) == 300
    # what is more than the machine has is no limit
    (tmp_path / "cgroup" / "app" / "job" / "memory.max").write_text("3000000000\n")
    assert runtime.memory_limit_mb(*places) is None


def test_no_more_threads_than_cores() -> None:
    cores = runtime.available_cores()
    told: list[Note] = []
    assert runtime.usable_threads(None) == cores
    assert runtime.usable_threads(1, told.append) == 1
    assert not told
    assert runtime.usable_threads(cores + 1, told.append) == cores
    assert f"{cores + 1} threads are more than the cores" in told[0].text
