"""Real processes for the tests beside this file: commands, and runs that stop where a test wants them to."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def python(code: str) -> tuple[str, ...]:
    """The beginning of a command that runs Python as on a device, whatever else this environment has installed.

    Where torch is installed onnxruntime-training imports it, which takes longer than all that is tested here.
    """
    return (sys.executable, "-c", f"import sys; sys.modules.update(torch=None)\n{code}")


EDGETL = python("from edgetl.__main__ import run; run()")
PATIENCE = 120.0
"""Seconds after which what a test waits for is taken to never come; long, because the machine may be busy."""

_HELD = """
import json, sys, time
from pathlib import Path
import edgetl, edgetl.events
given = json.loads(sys.argv[1])
ready, go = Path(given.pop("ready")), Path(given.pop("go"))
wanted = given.pop("event")

def hold(event):
    if type(event).__name__ == wanted and not ready.exists():
        ready.touch()
        while not go.exists():
            time.sleep(0.01)

edgetl.finetune(**given, on_event=hold)
"""


def classifier(file: Path) -> Path:
    """Write a small network of five classes as an ONNX file, which is prepared without exporting anything."""
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "g", "b"], ["y"], transB=1),
    ]
    shapes = {"w": (4, 3, 3, 3), "g": (5, 4), "b": (5,)}
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), name) for name, s in shapes.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), file)
    return file


def command(*arguments: object, **options: object) -> "subprocess.CompletedProcess[str]":
    """Run the command line to its end."""
    return subprocess.run(
        [*EDGETL, *map(str, arguments)], capture_output=True, text=True, encoding="utf-8", check=False, **options
    )


def sentence(done: "subprocess.CompletedProcess[str]") -> str:
    """Check that a command ended as an error of the user's should, and return its sentence."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (found,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    return found


@dataclass(frozen=True)
class Held:
    """A process that fine-tunes and waits in the middle of it."""

    process: "subprocess.Popen[bytes]"
    go: Path

    def finish(self) -> None:
        """Let it go on to its end."""
        self.go.touch()
        assert self.process.wait(PATIENCE) == 0


@contextmanager
def held(directory: Path, event: str, **options: object) -> Iterator[Held]:
    """Start a fine-tuning that waits at its first event of that name."""
    directory.mkdir(parents=True)
    ready, go = directory / "ready", directory / "go"
    given = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    job = json.dumps({**given, "event": event, "ready": str(ready), "go": str(go)})
    process = subprocess.Popen([*python(_HELD), job])
    try:
        wait_for(ready.exists, process)
        yield Held(process, go)
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """Wait until a condition holds, while the process lives."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, "the process ended too early"
        assert time.monotonic() < end
        time.sleep(0.01)
