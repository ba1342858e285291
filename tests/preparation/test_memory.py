"""What a training step takes, from its graph."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.artifacts import PORTABLE_PARAMETERS
from edgetl.graphs import make_model
from edgetl.preparation.lower.observe import Value, observe
from edgetl.preparation.memory import _length, graph_memory


def graph(*nodes: onnx.NodeProto, outputs: tuple[str, ...]) -> onnx.ModelProto:
    made = helper.make_graph(
        list(nodes),
        "step",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 250])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.ones((250, 500), np.float32), "w")],
    )
    return make_model(made)


def test_values_live_from_the_node_that_makes_them_to_the_last_that_reads_them() -> None:
    """x [N, 250] and w [250, 500] always; a and b [N, 500] at once, and c is made where b was."""
    model = graph(
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["x", "w"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Add", ["a", "c"], ["d"]),
        helper.make_node("ReduceSum", ["d"], ["y"], keepdims=0),
        outputs=("y",),
    )
    found = graph_memory(model)
    assert found.per_sample_mb == pytest.approx(4 * (250 + 500 + 500) / 1e6)
    assert found.fixed_mb == pytest.approx(4 * (250 * 500 + 1) / 1e6)


def test_what_is_read_later_is_kept() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a0"])]
    for i in range(5):
        nodes.append(helper.make_node("Softplus", [f"a{i}"], [f"a{i + 1}"]))
    ending = [helper.make_node("ReduceSum", ["a5"], ["y"], keepdims=0)]
    kept = [helper.make_node("Sum", [f"a{i}" for i in range(6)], ["z"])]
    alone = graph_memory(graph(*nodes, *ending, outputs=("y",))).per_sample_mb
    held = graph_memory(graph(*nodes, *kept, outputs=("z",))).per_sample_mb
    assert alone == pytest.approx(4 * (250 + 2 * 500) / 1e6)
    assert held == pytest.approx(4 * (250 + 6 * 500 + 500) / 1e6)


def test_sizes_as_they_are_observed() -> None:
    assert [_length(dim, 8) for dim in (5, "batch", "3*batch", "batch+1", "2*batch-3")] == [5, 8, 24, 9, 13]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_values_are_looked_at_one_after_the_other() -> None:
    """Eighty values of 12 MB for three samples, of which two are needed at once."""
    resource = pytest.importorskip("resource")
    nodes = [helper.make_node("Softplus", ["x" if i == 0 else f"a{i}"], [f"a{i + 1}"]) for i in range(80)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1_000_000])]
    outputs = [helper.make_tensor_value_info("a80", TensorProto.FLOAT, None)]
    model = make_model(helper.make_graph(nodes, "deep", inputs, outputs))
    observe(model)  # its libraries and threads are there
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + 400_000_000, before[1]))
    try:
        found = observe(model)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert found["a80"] == Value(TensorProto.FLOAT, ("batch", 1_000_000))


DEEP = """
import torch
from torch import nn


class Deep(nn.Module):
    \"\"\"Sixty pairs of values of 3.2 MB a sample, which a step keeps for its gradients, and 69 MB of weights.\"\"\"

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 1)
        self.scales = nn.ParameterList(nn.Parameter(torch.full((16, 1, 1), 1 + i / 100)) for i in range(60))
        self.widen = nn.Linear(16, 4096)
        self.wide = nn.Linear(4096, 4096)
        self.head = nn.Linear(4096, 10)

    def forward(self, x):
        x = self.stem(x)
        for scale in self.scales:
            x = torch.sigmoid(x * scale)
        return self.head(torch.relu(self.wide(torch.relu(self.widen(x.mean((2, 3)))))))
"""

PREPARE = """
import sys
from edgetl import prepare
print(prepare(sys.argv[1], out=sys.argv[2], classes=10, train=["all"]).peak_rss_mb)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks of other systems count otherwise")
def test_prepare_takes_four_times_the_weights_and_as_much_as_its_libraries(tmp_path: Path) -> None:
    (tmp_path / "deep.py").write_text(DEEP)
    command = [sys.executable, "-c", PREPARE, f"{tmp_path / 'deep.py'}:Deep", str(tmp_path / "artifacts")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    parameters = np.load(tmp_path / "artifacts" / PORTABLE_PARAMETERS)
    weights_mb = sum(array.nbytes for array in parameters.values()) / 1e6
    assert weights_mb > 60
    assert float(done.stdout.split()[-1]) < 1500 + 4 * weights_mb
