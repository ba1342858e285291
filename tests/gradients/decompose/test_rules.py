"""Each operator and form: the gradients of onnxruntime-training, after decompose, are torch's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper, parser

from edgetl.engines.ort_training import import_training_api
from edgetl.gradients.decompose.decompose import DIFFERENTIABLE, RULES, decompose, obstacles
from edgetl.gradients.losses import with_loss
from edgetl.gradients.ort_artifacts import _quiet
from edgetl.graph.build import make_model
from edgetl.runtime import sessions
from edgetl.tasks.targets import TargetEncoder

BATCH = 3
LAST = np.iinfo(np.int64).max
RNG = np.random.default_rng(0)
Array = np.ndarray[Any, Any]


@dataclass
class Case:
    """Nodes from `h` (`[3, *shape]`, carrying a gradient) to `y`, and the same in torch."""

    name: str
    nodes: str
    reference: Callable[..., torch.Tensor]
    shape: tuple[int, ...] = (4, 5)
    parameters: Mapping[str, Array] = field(default_factory=dict)
    constants: Mapping[str, Array] = field(default_factory=dict)
    inputs: Array | None = None


def weights(*shape: int) -> Array:
    return RNG.uniform(0.5, 1.5, shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def scalar(value: float) -> Array:
    return np.array(value, np.float32)


# few different values, so that there are ties, zeros and bounds; and positive ones
TIES = np.random.default_rng(3).integers(-1, 3, (BATCH, 4, 5)).astype(np.float32)
POSITIVE = np.abs(TIES) + np.float32(0.5)
EXTREME = (TIES * 40).astype(np.float32)
MASK = np.arange(5) % 3 == 0
MASK2 = (np.arange(20) % 3 == 0).reshape(4, 5)
IMAGE = (4, 7, 9)


def activations() -> Iterator[Case]:
    def prelu(h: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        return torch.where(h > 0, h, h * p)

    simple: list[tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = [
        ("HardSwish", F.hardswish),
        ("HardSigmoid<alpha=0.1666666667,beta=0.5>", F.hardsigmoid),
        ("HardSigmoid", lambda h: (0.2 * h + 0.5).clamp(0, 1)),
        ("Softplus", F.softplus),
        ("Mish", F.mish),
        ("Elu", F.elu),
        ("Elu<alpha=0.5>", lambda h: F.elu(h, 0.5)),
        ("Celu<alpha=2.0>", lambda h: F.celu(h, 2.0)),
        ("Selu", F.selu),
        ("LeakyRelu<alpha=0.2>", lambda h: F.leaky_relu(h, 0.2)),
        ("ThresholdedRelu<alpha=0.5>", lambda h: F.threshold(h, 0.5, 0.0)),
        ("Softsign", F.softsign),
        ("Relu", torch.relu),
        ("Sigmoid", torch.sigmoid),
        ("Tanh", torch.tanh),
        ("Erf", torch.erf),
        ("Abs", torch.abs),
        ("Neg", torch.neg),
        ("Identity", lambda h: h),
        ("Dropout", lambda h: h),
        ("Clip", lambda h: h),
    ]
    for call, reference in simple:
        name, _, rest = call.partition("<")
        yield Case(call, f"y = {name}{'<' + rest if rest else ''}(h)", reference)
        if name not in ("HardSwish", "HardSigmoid"):  # torch's derivative there is 0 at the bounds
            yield Case(f"{call} at ties", f"y = {name}{'<' + rest if rest else ''}(h)", reference, inputs=TIES)
    for op, reference in (("Softplus", F.softplus), ("Mish", F.mish), ("Elu", F.elu), ("Selu", F.selu)):
        yield Case(f"{op} far out", f"y = {op}(h)", reference, inputs=EXTREME)
    for op, function in (("Sin", torch.sin), ("Cos", torch.cos), ("Tan", torch.tan), ("Exp", torch.exp)):
        yield Case(op, f"y = {op}(h)", function, inputs=TIES / 4)
    for op, function in (("Sinh", torch.sinh), ("Cosh", torch.cosh)):
        yield Case(op, f"y = {op}(h)", function)
    for op, function in (("Log", torch.log), ("Sqrt", torch.sqrt), ("Reciprocal", torch.reciprocal)):
        yield Case(op, f"y = {op}(h)", function, inputs=POSITIVE)
    yield Case("PRelu", "y = PRelu(h, p)", prelu, parameters={"p": weights(1)})
    yield Case("PRelu channels", "y = PRelu(h, p)", prelu, parameters={"p": weights(4, 1)}, inputs=TIES)
    bounds = {"low": scalar(-0.5), "high": scalar(0.5)}
    yield Case("Clip both", "y = Clip(h, low, high)", lambda h: h.clamp(-0.5, 0.5), constants=bounds)
    yield Case("Clip min", "y = Clip(h, low)", lambda h: h.clamp(min=-0.5), constants=bounds)
    yield Case("Clip max", "y = Clip(h, , high)", lambda h: h.clamp(max=0.5), constants=bounds)
    yield Case(
        "Clip trained",
        "y = Clip(h, low, high)",
        lambda h, low, high: torch.minimum(torch.maximum(h, low), high),
        parameters=bounds,
    )
    for ratio in ("h, r", "h, r, t"):
        yield Case(
            f"Dropout({ratio})",
            f"y, m = Dropout({ratio})",
            lambda h: h,
            constants={"r": scalar(0.5), "t": np.array(False)},
        )
    for axis in (0, 1, 2, -1):
        yield Case(f"Softmax {axis}", f"y = Softmax<axis={axis}>(h)", lambda h, a=axis: h.softmax(a), (4, 5, 2))
        yield Case(f"LogSoftmax {axis}", f"y = LogSoftmax<axis={axis}>(h)", lambda h, a=axis: h.log_softmax(a), (4, 5))
    yield Case(
        "tanh gelu as torch exports it",
        """a = Mul(h, h) b = Mul(a, h) c = Mul(b, k) d = Add(h, c) e = Mul(d, root) f = Tanh(e) g = Add(f, one)
        i = Mul(h, half) y = Mul(i, g)""",
        lambda h: F.gelu(h, approximate="tanh"),
        constants={"k": scalar(0.044715), "root": scalar(0.7978845608), "one": scalar(1), "half": scalar(0.5)},
    )


def normalisations() -> Iterator[Case]:
    scale_bias = {"s": weights(5), "b": weights(5)}
    for outputs in ("y", "y, m, i"):
        yield Case(
            f"LayerNormalization {outputs}",
            f"{outputs} = LayerNormalization<axis=-1, epsilon=1e-3>(h, s, b)",
            lambda h, s, b: F.layer_norm(h, (5,), s, b, 1e-3),
            parameters=scale_bias,
        )
    yield Case(
        "LayerNormalization without bias",
        "y = LayerNormalization<axis=-1>(h, s)",
        lambda h, s: F.layer_norm(h, (5,), s),
        parameters={"s": weights(5)},
    )
    yield Case(
        "LayerNormalization frozen",
        "y = LayerNormalization(h, s, b)",
        lambda h: F.layer_norm(h, (5,)),
        constants={"s": np.ones(5, np.float32), "b": np.zeros(5, np.float32)},
    )
    yield Case(
        "LayerNormalization two axes",
        "y = LayerNormalization<axis=-2>(h, s, b)",
        lambda h, s, b: F.layer_norm(h, (5, 2), s, b),
        (4, 5, 2),
        parameters={"s": weights(5, 2), "b": weights(5, 2)},
    )
    yield Case(
        "LayerNormalization of a frozen input",
        "n = LayerNormalization(k, s, b) y = Add(n, h)",
        lambda h, s, b: F.layer_norm(torch.tensor(TIES, dtype=h.dtype), (5,), s, b) + h,
        parameters=scale_bias,
        constants={"k": TIES},
    )
    statistics = {"m": weights(4), "v": weights(4)}

    def batch_norm(h: torch.Tensor, s: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        mean, variance = (torch.tensor(statistics[k], dtype=h.dtype) for k in "mv")
        return F.batch_norm(h, mean, variance, s, b, False, 0.0, 1e-3)

    channels = {"s": weights(4), "b": weights(4)}
    for shape in (IMAGE, (4,), (4, 5), (4, 3, 2, 2)):
        yield Case(
            f"BatchNormalization {len(shape)}",
            "y = BatchNormalization<epsilon=1e-3>(h, s, b, m, v)",
            batch_norm,
            shape,
            parameters=channels,
            constants=statistics,
        )
    yield Case(
        "BatchNormalization frozen",
        "y = BatchNormalization<epsilon=1e-3>(h, s, b, m, v)",
        lambda h: batch_norm(h, *(torch.tensor(channels[k], dtype=h.dtype) for k in "sb")),
        IMAGE,
        constants={**statistics, **channels},
    )
    yield Case(
        "BatchNormalization of the batch",
        "y, rm, rv = BatchNormalization<training_mode=1>(h, s, b, m, v)",
        lambda h, s, b: F.batch_norm(h, None, None, s, b, True),
        IMAGE,
        parameters=channels,
        constants=statistics,
    )
    yield Case(
        "BatchNormalization off the path",
        "n = BatchNormalization<epsilon=1e-3>(k, s, b, m, v) y = Mul(h, n)",
        lambda h: h * batch_norm(*(torch.tensor(a, dtype=h.dtype) for a in (TIES, channels["s"], channels["b"]))),
        constants={**statistics, **channels, "k": TIES},
    )
    for shape in (IMAGE, (4, 9)):
        yield Case(
            f"InstanceNormalization {len(shape)}",
            "y = InstanceNormalization(h, s, b)",
            lambda h, s, b: F.instance_norm(h, weight=s, bias=b),
            shape,
            parameters=channels,
        )
    yield Case(
        "group normalisation as torch exports it",
        """r = Reshape(h, grouped) n = InstanceNormalization(r, ones, zeros) t = Shape(h) u = Reshape(n, t)
        v = Mul(u, s) y = Add(v, b)""",
        lambda h, s, b: F.group_norm(h, 2, s.ravel(), b.ravel()),
        IMAGE,
        parameters={"s": weights(4, 1, 1), "b": weights(4, 1, 1)},
        constants={"grouped": ints(0, 2, -1), "ones": np.ones(2, np.float32), "zeros": np.zeros(2, np.float32)},
    )
    yield Case(
        "GroupNormalization",
        "y = GroupNormalization<num_groups=2>(h, s, b)",
        lambda h, s, b: F.group_norm(h, 2, s.repeat_interleave(2), b.repeat_interleave(2)),
        IMAGE,
        parameters={"s": weights(2), "b": weights(2)},
    )
    yield Case("LpNormalization", "y = LpNormalization<axis=1>(h)", lambda h: F.normalize(h, dim=1))
    yield Case("LpNormalization 1", "y = LpNormalization<axis=-1,p=1>(h)", lambda h: F.normalize(h, 1, -1))
    yield Case(
        "LRN",
        "y = LRN<size=3,alpha=0.3,beta=0.6,bias=2.0>(h)",
        lambda h: F.local_response_norm(h, 3, 0.3, 0.6, 2.0),
        IMAGE,
    )
    yield Case(
        "MeanVarianceNormalization",
        "y = MeanVarianceNormalization(h)",
        lambda h: (h - h.mean((0, 2, 3), True)) / h.std((0, 2, 3), correction=0, keepdim=True),
        IMAGE,
    )


def reductions() -> Iterator[Case]:
    def l1(h: torch.Tensor, axes: Any, keep: bool) -> torch.Tensor:
        return h.abs().sum(axes, keep)

    functions: dict[str, Callable[..., torch.Tensor]] = {
        "ReduceMax": torch.amax,
        "ReduceMin": torch.amin,
        "ReduceMean": torch.mean,
        "ReduceSum": torch.sum,
        "ReduceL1": l1,
        "ReduceL2": lambda h, axes, keep: torch.linalg.vector_norm(h, 2, axes, keep),
        "ReduceSumSquare": lambda h, axes, keep: (h * h).sum(axes, keep),
        "ReduceLogSumExp": torch.logsumexp,
        "ReduceLogSum": lambda h, axes, keep: h.sum(axes, keep).log(),
    }
    for op, function in functions.items():
        inputs = POSITIVE if op in ("ReduceLogSum", "ReduceL2") else TIES
        for axes in ((1,), (-1,), (1, 2), (2, 1)):
            for keep in (0, 1):
                yield Case(
                    f"{op} {axes} keepdims={keep}",
                    f"y = {op}<keepdims={keep}>(h, axes)",
                    lambda h, f=function, a=axes, k=keep: f(h, a, bool(k)),
                    constants={"axes": ints(*axes)},
                    inputs=inputs,
                )
        yield Case(
            f"{op} all",
            f"r = {op}(h) y = Mul(h, r)",
            lambda h, f=function: h * f(h, (0, 1, 2), True),
            inputs=inputs,
        )
        yield Case(
            f"{op} over the batch",
            f"r = {op}(h, axes) y = Mul(h, r)",
            lambda h, f=function: h * f(h, (0,), True),
            constants={"axes": ints(0)},
            inputs=inputs,
        )
    yield Case("GlobalMaxPool", "y = GlobalMaxPool(h)", lambda h: h.amax((2, 3), True), IMAGE)
    yield Case("GlobalMaxPool of ties", "y = GlobalMaxPool(h)", lambda h: h.amax(2, True), inputs=TIES)
    yield Case("GlobalAveragePool", "y = GlobalAveragePool(h)", lambda h: h.mean((2, 3), True), IMAGE)


def linear() -> Iterator[Case]:
    functions = {
        "Add": torch.add,
        "Sub": torch.sub,
        "Mul": torch.mul,
        "Div": torch.div,
        "Max": torch.maximum,
        "Min": torch.minimum,
    }
    for op, function in functions.items():
        for shape in ((4, 5), (5,), (4, 1), (), (1,), (1, 4, 5)):
            parameters = {"p": weights(*shape)}
            yield Case(f"{op} h {shape}", f"y = {op}(h, p)", function, parameters=parameters)
            yield Case(f"{op} {shape} h", f"y = {op}(p, h)", lambda h, p, f=function: f(p, h), parameters=parameters)
        yield Case(
            f"{op} of a mean",
            f"a = ReduceMean(h, axes) y = {op}(h, a)",
            lambda h, f=function: f(h, h.mean(1, True)),
            constants={"axes": ints(1)},
        )
    three = {"p": weights(4, 5), "q": weights(5)}
    yield Case("Sum", "y = Sum(h, p, q)", lambda h, p, q: h + p + q, parameters=three)
    yield Case("Sum of one", "y = Sum(h)", lambda h: h)
    yield Case("Mean", "y = Mean(h, p, q)", lambda h, p, q: (h + p + q) / 3, parameters=three)
    yield Case("Max of three", "y = Max(h, p, q)", lambda h, p, q: h.maximum(p).maximum(q), parameters=three)
    for name, nodes, shape, parameter in (
        ("3-D 2-D", "h, p", (4, 5), (5, 3)),
        ("4-D 2-D", "h, p", (2, 4, 5), (5, 3)),
        ("2-D 3-D", "p, h", (4, 5), (3, 4)),
        ("2-D 4-D", "p, h", (2, 4, 5), (3, 4)),
        ("4-D 4-D", "h, p", (2, 4, 5), (1, 1, 5, 3)),
        ("4-D 3-D", "h, p", (2, 4, 5), (2, 5, 3)),
        ("3-D 4-D", "p, h", (2, 4, 5), (2, 3, 4)),
        ("3-D 1-D", "h, p", (4, 5), (5,)),
        ("1-D 3-D", "p, h", (4, 5), (4,)),
    ):
        reference = torch.matmul if nodes[0] == "h" else (lambda h, p: torch.matmul(p, h))
        yield Case(f"MatMul {name}", f"y = MatMul({nodes})", reference, shape, {"p": weights(*parameter)})
    yield Case(
        "MatMul with a constant",
        "y = MatMul(k, h)",
        lambda h: torch.tensor(MASK2[:, :4], dtype=h.dtype) @ h,
        constants={"k": MASK2[:, :4].astype(np.float32)},
    )
    yield Case("MatMul h h", "t = Transpose<perm=[0,2,1]>(h) y = MatMul(h, t)", lambda h: h @ h.mT)
    for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
        yield Case(
            f"Gemm {a}{b}",
            f"t = Transpose<perm=[1,0]>(h) y = Gemm<transA={a},transB={b},alpha=0.5,beta=2.0>({'ht'[a]}, p, q)",
            lambda h, p, q, b=b: 0.5 * h @ (p.T if b else p) + 2 * q,
            (5,),
            {"p": weights(3, 5) if b else weights(5, 3), "q": weights(3)},
        )
    yield Case("Gemm without bias", "y = Gemm(h, p)", torch.matmul, (5,), {"p": weights(5, 3)})
    for exponent in (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0):
        yield Case(
            f"Pow {exponent}",
            "y = Pow(h, e)",
            lambda h, e=exponent: h**e,
            constants={"e": scalar(exponent)},
            inputs=TIES if exponent >= 1 else POSITIVE,
        )
    yield Case("Pow int", "y = Pow(h, e)", lambda h: h**3, constants={"e": np.array(3, np.int64)}, inputs=TIES)
    yield Case("Pow cast", "c = Cast<to=1>(e) y = Pow(h, c)", lambda h: h**3, constants={"e": ints(3)}, inputs=TIES)
    yield Case(
        "Pow vector",
        "y = Pow(h, e)",
        lambda h: h ** torch.tensor([1, 2, 3, 2, 1]),
        constants={"e": np.array([1, 2, 3, 2, 1], np.float32)},
    )
    yield Case(
        "Pow trained (GeM)",
        "c = Clip(h, eps) y = Pow(c, p)",
        lambda h, p: h.clamp(min=1e-3) ** p,
        parameters={"p": weights(1)},
        constants={"eps": scalar(1e-3)},
    )
    yield Case("Pow of a constant", "y = Pow(b, h)", lambda h: 2**h, constants={"b": scalar(2)})
    yield Case("CumSum", "y = CumSum(h, a)", lambda h: h.cumsum(2), constants={"a": np.array(2)})
    yield Case(
        "CumSum reverse",
        "y = CumSum<reverse=1,exclusive=1>(h, a)",
        lambda h: h.flip(1).cumsum(1).flip(1) - h,
        constants={"a": np.array(1)},
    )
    for equation, shape, parameter in (
        ("nij,jk->nik", (4, 5), (5, 3)),
        ("nij,nkj->nik", (4, 5), (3, 6, 5)),
        ("nchw,co->nohw", IMAGE, (4, 3)),
        ("nchw,chwo->no", (2, 3, 4), (2, 3, 4, 5)),
        ("nij,ij->nij", (4, 5), (4, 5)),
        ("nij,ij->ni", (4, 5), (4, 5)),
        ("nhid,hjd->nhij", (2, 4, 5), (2, 3, 5)),
        ("nhwc,hkc->nhwk", (3, 4, 5), (3, 6, 5)),
        ("nij,k->nijk", (4, 5), (3,)),
        ("nijx,nj->ni", (4, 5, 2), (3, 5)),
        ("nij, kj", (4, 5), (3, 5)),
    ):
        yield Case(
            f"Einsum {equation}",
            f'y = Einsum<equation="{equation}">(h, p)',
            lambda h, p, e=equation: torch.einsum(e, h, p),
            shape,
            {"p": weights(*parameter)},
        )
    for equation in ("nij->nji", "nij->ni", "nij->nj"):
        yield Case(
            f"Einsum {equation}", f'y = Einsum<equation="{equation}">(h)', lambda h, e=equation: torch.einsum(e, h)
        )


def shapes() -> Iterator[Case]:
    yield Case(
        "Transpose",
        "t = Transpose<perm=[2,0,1]>(h) u = Transpose(t) y = Transpose<perm=[1,0,2]>(u)",
        lambda h: h.permute(0, 1, 2).permute(2, 0, 1).permute(2, 1, 0).permute(1, 0, 2),
    )
    sums = "c = ReduceSum(a, axis) d = ReduceSum(b, axis) y = Mul(c, d)"
    split = {"axis": ints(2), "sizes": ints(1, 4)}

    def two(h: torch.Tensor, n: int) -> torch.Tensor:
        return h[..., :n].sum(2, True) * h[..., n:].sum(2, True)

    yield Case(
        "Split num_outputs", f"a, b = Split<axis=2,num_outputs=2>(h) {sums}", lambda h: two(h, 3), constants=split
    )
    yield Case("Split sizes", f"a, b = Split<axis=-1>(h, sizes) {sums}", lambda h: two(h, 1), constants=split)
    yield Case("Split, first unused", "a, y = Split<axis=2>(h, sizes)", lambda h: h[..., 1:], constants=split)
    yield Case("Split, last unused", "y, a = Split<axis=2,num_outputs=2>(h)", lambda h: h[..., :3])
    yield Case("Concat", "t = Tanh(h) y = Concat<axis=-1>(h, t, h)", lambda h: torch.cat([h, h.tanh(), h], -1))
    yield Case("Concat of one", "y = Concat<axis=1>(h)", lambda h: h)
    yield Case(
        "class token",
        "s = Shape<start=0,end=1>(h) t = Concat<axis=0>(s, rest) e = Expand(p, t) y = Concat<axis=1>(e, h)",
        lambda h, p: torch.cat([p.expand(h.shape[0], 1, 5), h], 1),
        parameters={"p": weights(1, 1, 5)},
        constants={"rest": ints(1, 5)},
    )
    yield Case(
        "Expand",
        "u = Unsqueeze(h, a) y = Expand(u, s)",
        lambda h: h.unsqueeze(2).expand(-1, -1, 3, -1),
        constants={"a": ints(2), "s": ints(1, 4, 3, 5)},
    )
    yield Case("Tile", "y = Tile(h, r)", lambda h: h.repeat(1, 2, 3), constants={"r": ints(1, 2, 3)})
    for name, start, end, axis, step, reference in (
        ("plain", [1], [3], [1], [1], lambda h: h[:, 1:3]),
        ("to the end", [1], [LAST], [-1], [1], lambda h: h[..., 1:]),
        ("from the back", [-2], [-1], [2], [1], lambda h: h[..., -2:-1]),
        ("beyond", [1], [100], [2], [1], lambda h: h[..., 1:]),
        ("steps", [1], [LAST], [2], [2], lambda h: h[..., 1::2]),
        ("two axes", [1, 0], [3, LAST], [1, 2], [1, 2], lambda h: h[:, 1:3, ::2]),
        ("backwards", [-1], [-LAST], [2], [-1], lambda h: h.flip(2)),
        ("backwards to an element", [4], [0], [2], [-2], lambda h: h[..., [4, 2]]),
        ("backwards and forwards", [-1, 1], [-LAST, 3], [2, 1], [-1, 1], lambda h: h.flip(2)[:, 1:3]),
    ):
        constants = {"s": ints(*start), "e": ints(*end), "a": ints(*axis), "t": ints(*step)}
        yield Case(f"Slice {name}", "y = Slice(h, s, e, a, t)", reference, constants=constants)
    for name, indices, axis, chosen in (
        ("one", np.array(-1), 1, lambda h: h[:, -1]),
        ("repeated", ints(0, -1, 0), 2, lambda h: h[..., [0, -1, 0]]),
        ("table", np.array([[0, 1], [1, 3]]), 2, lambda h: h[..., torch.tensor([[0, 1], [1, 3]])]),
    ):
        yield Case(f"Gather {name}", f"y = Gather<axis={axis}>(h, i)", chosen, constants={"i": indices})
    yield Case(
        "Gather of a table",
        "g = Gather(p, i) y = Add(h, g)",
        lambda h, p: h + p[[0, 2, 2, 0]],
        parameters={"p": weights(3, 5)},
        constants={"i": ints(0, 2, 2, 0)},
    )
    yield Case(
        "GatherElements",
        "y = GatherElements<axis=2>(h, i)",
        lambda h: h[..., [0, 0]],
        constants={"i": np.zeros((3, 4, 2), np.int64)},
    )
    yield Case(
        "GatherND, the batch behind the indexed axes",
        "t = Transpose<perm = [1, 2, 0]>(h) g = GatherND(t, i) y = Transpose<perm = [1, 0]>(g)",
        lambda h: h[:, [0, 3, 0], [1, 0, 1]],
        constants={"i": ints([0, 1], [3, 0], [0, 1])},
    )
    yield Case(
        "Squeeze, Unsqueeze",
        "u = Unsqueeze(h, a) v = Unsqueeze(u, b) y = Squeeze(v)",
        lambda h: h,
        constants={"a": ints(-1), "b": ints(1)},
    )
    yield Case("Reshape", "y = Reshape(h, s)", lambda h: h.flatten(1), constants={"s": ints(0, -1)})
    yield Case(
        "Flatten",
        "t = Flatten<axis=2>(h) y = Reshape(t, s)",
        lambda h: h,
        constants={"s": ints(-1, 20)},
    )
    mean = "u = ReduceMean(h, axes)"
    axes = {"axes": ints(1)}
    yield Case(
        "Where scalar",
        "y = Where(m, h, z)",
        lambda h: h.where(torch.tensor(MASK2), -1.0),
        constants={"m": MASK2, "z": scalar(-1)},
    )
    yield Case(
        "Where row",
        "y = Where(m, h, p)",
        lambda h, p: h.where(torch.tensor(MASK), p),
        parameters={"p": weights(5)},
        constants={"m": MASK},
    )
    yield Case(
        "Where one",
        "y = Where(m, p, h)",
        lambda h, p: p.where(torch.tensor(MASK), h),
        parameters={"p": weights(1)},
        constants={"m": MASK},
    )
    yield Case(
        "Where mean",
        f"{mean} y = Where(m, u, h)",
        lambda h: h.mean(1, True).where(torch.tensor(MASK), h),
        constants={"m": MASK, **axes},
    )
    yield Case(
        "Where wide mask",
        f"{mean} y = Where(m, u, u)",
        lambda h: h.mean(1, True).expand(3, 4, 5),
        constants={"m": MASK2, **axes},
    )
    yield Case(
        "Where of merged axes",
        "r = Reshape(h, s) t = Tanh(r) w1 = Where(m, r, t) y = Where(m, w1, z)",
        lambda h: h.where(torch.tensor(MASK), 0.0),
        constants={"m": MASK, "s": ints(-1, 2, 5), "z": scalar(0)},
    )
    yield Case(
        "Where computed",
        "m = Greater(h, z) t = Tanh(h) y = Where(m, h, t)",
        lambda h: h.where(h > 0, h.tanh()),
        constants={"z": scalar(0)},
    )
    yield Case("mask", "m = Greater(h, z) c = Cast<to=1>(m) y = Mul(h, c)", torch.relu, constants={"z": scalar(0)})
    yield Case("Cast", "c = Cast<to=11>(h) d = Tanh(c) y = Cast<to=1>(d)", torch.tanh)
    yield Case("CastLike", "c = CastLike(h, z) y = Tanh(c)", torch.tanh, constants={"z": scalar(0)})
    yield Case("TopK", "y, i = TopK<axis=2>(h, k)", lambda h: h.topk(3, 2)[0], constants={"k": ints(3)})
    yield Case("Trilu", "y = Trilu(h)", torch.triu)
    yield Case(
        "Pad",
        "y = Pad(h, p, v)",
        lambda h: F.pad(h, (1, 2, 0, 1), value=3.0),
        constants={"p": ints(0, 0, 1, 0, 1, 2), "v": scalar(3)},
    )
    yield Case(
        "Pad axes",
        "y = Pad(h, p, v, a)",
        lambda h: F.pad(h, (1, 2), value=3.0),
        constants={"p": ints(1, 2), "v": scalar(3), "a": ints(-1)},
    )
    yield Case(
        "Pad axes alone", "y = Pad(h, p, , a)", lambda h: F.pad(h, (1, 2)), constants={"p": ints(1, 2), "a": ints(2)}
    )
    yield Case("Pad negative", "y = Pad(h, p)", lambda h: h[:, :, 1:-1], constants={"p": ints(0, 0, -1, 0, 0, -1)})
    for mode, theirs in (("reflect", "reflect"), ("edge", "replicate")):
        for pads in ((1, 2), (1, 0), (2, -1)):
            yield Case(
                f"Pad {mode} {pads}",
                f'y = Pad<mode="{mode}">(h, p)',
                lambda h, m=theirs, p=pads: F.pad(h, p, mode=m),
                constants={"p": ints(0, 0, pads[0], 0, 0, pads[1])},
            )
    yield Case(
        "Pad reflect two axes",
        'y = Pad<mode="reflect">(h, p)',
        lambda h: F.pad(h, (1, 2, 3, 1), mode="reflect"),
        IMAGE,
        constants={"p": ints(0, 0, 3, 1, 0, 0, 1, 2)},
    )


def convolutions() -> Iterator[Case]:
    def conv(h: torch.Tensor, w1: torch.Tensor, b: torch.Tensor | None = None, **settings: Any) -> torch.Tensor:
        function = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[h.ndim]
        return function(h, w1, b, **settings)

    def one(name: str, spec: str, shape: tuple[int, ...], weight: tuple[int, ...], bias: bool, **settings: Any) -> Case:
        parameters = {"w1": weights(*weight), **({"b": weights(weight[0])} if bias else {})}
        nodes = f"y = Conv<{spec}>({', '.join(['h', *parameters])})"
        return Case(f"Conv {name}", nodes, lambda h, w1, b=None: conv(h, w1, b, **settings), shape, parameters)

    yield one("3x3", "pads=[1,1,1,1]", IMAGE, (6, 4, 3, 3), True, padding=1)
    yield one("1x1", "pads=[0,0,0,0]", IMAGE, (6, 4, 1, 1), True)
    yield one("stride", "strides=[3,2],pads=[1,0,1,0]", IMAGE, (6, 4, 2, 3), False, stride=(3, 2), padding=(1, 0))
    yield one(
        "dilated",
        "dilations=[2,1],strides=[2,2],pads=[2,1,2,1]",
        IMAGE,
        (6, 4, 3, 3),
        False,
        stride=2,
        padding=(2, 1),
        dilation=(2, 1),
    )
    yield one("groups", "group=2,pads=[1,1,1,1]", IMAGE, (6, 2, 3, 3), True, padding=1, groups=2)
    yield one(
        "depthwise",
        "group=32,pads=[2,2,2,2],strides=[2,2]",
        (32, 9, 9),
        (32, 1, 5, 5),
        True,
        stride=2,
        padding=2,
        groups=32,
    )
    yield one("valid", 'auto_pad="VALID"', IMAGE, (6, 4, 3, 3), False)
    yield one("1-D", "pads=[1,1]", (4, 9), (6, 4, 3), True, padding=1)
    yield one(
        "1-D depthwise",
        "group=32,pads=[2,2],dilations=[2],strides=[2],kernel_shape=[3]",
        (32, 50),
        (32, 1, 3),
        True,
        padding=2,
        stride=2,
        dilation=2,
        groups=32,
    )
    yield one("3-D", "pads=[1,1,1,1,1,1]", (2, 5, 6, 4), (3, 2, 3, 3, 3), True, padding=1)
    yield one(
        "3-D groups",
        "group=2,strides=[2,2,2],pads=[1,1,1,1,1,1]",
        (2, 5, 6, 4),
        (4, 1, 3, 3, 3),
        True,
        stride=2,
        padding=1,
        groups=2,
    )
    yield one("3-D depthwise", "group=8", (8, 5, 6, 4), (8, 1, 3, 3, 3), False, groups=8)
    for mode, pads, kernel, stride in (
        ("SAME_UPPER", (1, 1, 1, 1), 3, 2),
        ("SAME_UPPER", (0, 1, 0, 1), 2, 1),
        ("SAME_LOWER", (1, 0, 1, 0), 2, 1),
    ):
        yield Case(
            f"Conv {mode} {kernel}",
            f'y = Conv<auto_pad="{mode}",strides=[{stride},{stride}]>(h, w1)',
            lambda h, w1, p=pads, s=stride: F.conv2d(F.pad(h, p), w1, stride=s),
            IMAGE,
            {"w1": weights(6, 4, kernel, kernel)},
        )
    yield Case(
        "Conv with a computed weight",
        "k = Mul(w1, g) y = Conv(h, k)",
        lambda h, w1, g: F.conv2d(h, w1 * g),
        IMAGE,
        {"w1": weights(6, 4, 3, 3), "g": weights(6, 1, 1, 1)},
    )

    def transposed(h: torch.Tensor, w1: torch.Tensor, b: torch.Tensor | None = None, **settings: Any) -> torch.Tensor:
        function = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}[h.ndim]
        return function(h, w1, b, **settings)

    for dims in (1, 2, 3):
        for kernel, stride, padding, extra, dilation, groups in (
            (3, 1, 1, 0, 1, 1),
            (2, 2, 0, 0, 1, 1),
            (4, 2, 1, 0, 1, 2),
            (3, 2, 1, 1, 1, 4),
            (3, 3, 0, 2, 2, 1),
            (1, 2, 0, 1, 1, 1),
            (3, 1, 3, 0, 1, 1),
        ):
            spec = (
                f"strides={[stride] * dims},pads={[padding] * 2 * dims},output_padding={[extra] * dims},"
                f"dilations={[dilation] * dims},group={groups}"
            )
            settings = {
                "stride": stride,
                "padding": padding,
                "output_padding": extra,
                "dilation": dilation,
                "groups": groups,
            }
            yield Case(
                f"ConvTranspose {dims}-D k{kernel} s{stride} p{padding}+{extra} d{dilation} g{groups}",
                f"y = ConvTranspose<{spec}>(h, w1, b)",
                lambda h, w1, b, s=settings: transposed(h, w1, b, **s),
                (4, 5, 6, 5)[: dims + 1],
                {"w1": weights(4, 2, *[kernel] * dims), "b": weights(2 * groups)},
            )
    yield Case(
        "ConvTranspose asymmetric",
        "y = ConvTranspose<strides=[2,1],pads=[1,0,0,2]>(h, w1)",
        lambda h, w1: F.conv_transpose2d(h, w1, stride=(2, 1))[:, :, 1:, : -2 or None],
        (4, 5, 6),
        {"w1": weights(4, 2, 3, 3)},
    )
    yield Case(
        "ConvTranspose SAME_UPPER",
        'y = ConvTranspose<strides=[2,2],auto_pad="SAME_UPPER">(h, w1)',
        lambda h, w1: F.conv_transpose2d(h, w1, stride=2)[:, :, :-1, :-1],
        (4, 5, 6),
        {"w1": weights(4, 2, 3, 3)},
    )


def resampling() -> Iterator[Case]:
    for spec, settings in (
        ("kernel_shape=[2,2],strides=[2,2]", {"kernel_size": 2}),
        ("kernel_shape=[3,3]", {"kernel_size": 3, "stride": 1}),
        ("kernel_shape=[3,3],strides=[2,2],pads=[1,1,1,1]", {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("kernel_shape=[3,3],strides=[2,2],ceil_mode=1", {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
        ("kernel_shape=[2,2],strides=[2,2],ceil_mode=1", {"kernel_size": 2, "ceil_mode": True}),
        (
            "kernel_shape=[3,3],strides=[2,2],pads=[1,1,1,1],ceil_mode=1",
            {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        ),
    ):
        maximum: Callable[..., torch.Tensor] = lambda h, s=settings: F.max_pool2d(h, **s)  # noqa: E731
        yield Case(f"MaxPool {spec}", f"y = MaxPool<{spec}>(h)", maximum, IMAGE)
        for counted in (0, 1):
            if counted and spec == "kernel_shape=[2,2],strides=[2,2],ceil_mode=1":
                continue  # onnxruntime itself differs from torch
            yield Case(
                f"AveragePool {spec} {counted}",
                f"y = AveragePool<{spec},count_include_pad={counted}>(h)",
                lambda h, s=settings, c=counted: F.avg_pool2d(h, **s, count_include_pad=bool(c)),
                IMAGE,
            )
    yield Case(
        "MaxPool dilated",
        "y = MaxPool<kernel_shape=[3,3],dilations=[2,2],pads=[1,1,1,1]>(h)",
        lambda h: F.max_pool2d(h, 3, 1, 1, 2),
        IMAGE,
    )
    yield Case(
        "MaxPool asymmetric",
        "y = MaxPool<kernel_shape=[3,3],strides=[2,2],pads=[0,0,1,1]>(h)",
        lambda h: F.max_pool2d(F.pad(h, (0, 1, 0, 1), value=-1e9), 3, 2),
        IMAGE,
    )
    for mode, pads in (("SAME_UPPER", (0, 1, 0, 1)), ("SAME_LOWER", (1, 0, 1, 0))):
        spec = f'kernel_shape=[2,2],strides=[2,2],auto_pad="{mode}"'

        def average(h: torch.Tensor, pads: tuple[int, ...] = pads) -> torch.Tensor:
            return F.avg_pool2d(F.pad(h, pads), 2) / F.avg_pool2d(F.pad(torch.ones_like(h), pads), 2)

        yield Case(
            f"MaxPool {mode}",
            f"y = MaxPool<{spec}>(h)",
            lambda h, p=pads: F.max_pool2d(F.pad(h, p, value=-1e9), 2),
            IMAGE,
        )
        yield Case(f"AveragePool {mode}", f"y = AveragePool<{spec}>(h)", average, (4, 7, 7))
    yield Case(
        "MaxPool ties",
        "r = Relu(h) y = MaxPool<kernel_shape=[2,2],strides=[1,1]>(r)",
        lambda h: F.max_pool2d(h.relu(), 2, 1),
        IMAGE,
    )
    yield Case(
        "MaxPool 1-D",
        "y = MaxPool<kernel_shape=[3],strides=[2],pads=[1,1]>(h)",
        lambda h: F.max_pool1d(h, 3, 2, 1),
        (4, 9),
    )
    yield Case(
        "MaxPool 3-D",
        "y = MaxPool<kernel_shape=[3,3,3],strides=[2,2,2],pads=[1,1,1,1,1,1]>(h)",
        lambda h: F.max_pool3d(h, 3, 2, 1),
        (2, 5, 6, 4),
    )
    yield Case(
        "AveragePool asymmetric",
        "y = AveragePool<kernel_shape=[3,3],strides=[2,2],pads=[0,0,1,1],count_include_pad=1>(h)",
        lambda h: F.avg_pool2d(F.pad(h, (0, 1, 0, 1)), 3, 2),
        IMAGE,
    )
    yield Case(
        "AveragePool 1-D",
        "y = AveragePool<kernel_shape=[3],strides=[2],pads=[1,1]>(h)",
        lambda h: F.avg_pool1d(h, 3, 2, 1, count_include_pad=False),
        (4, 9),
    )
    yield Case(
        "AveragePool 3-D",
        "y = AveragePool<kernel_shape=[2,3,1],strides=[2,1,2]>(h)",
        lambda h: F.avg_pool3d(h, (2, 3, 1), (2, 1, 2)),
        (2, 5, 6, 4),
    )
    yield Case(
        "DepthToSpace CRD", 'y = DepthToSpace<blocksize=2,mode="CRD">(h)', lambda h: F.pixel_shuffle(h, 2), (8, 3, 5)
    )
    yield Case(
        "DepthToSpace DCR",
        "y = DepthToSpace<blocksize=2>(h)",
        lambda h: F.pixel_shuffle(h.reshape(-1, 4, 2, 3, 5).transpose(1, 2).flatten(1, 2), 2),
        (8, 3, 5),
    )
    yield Case(
        "SpaceToDepth",
        "y = SpaceToDepth<blocksize=2>(h)",
        lambda h: F.pixel_unshuffle(h, 2).reshape(-1, 2, 4, 2, 3).transpose(1, 2).flatten(1, 2),
        (2, 4, 6),
    )

    def resized(h: torch.Tensor, **settings: Any) -> torch.Tensor:
        return F.interpolate(h, **settings)

    def by_size(name: str, spec: str, size: tuple[int, int], **settings: Any) -> Case:
        return Case(
            f"Resize {name} to {size}",
            f"b = Shape<end=1>(h) sizes = Concat<axis=0>(b, rest) y = Resize<{spec}>(h, , , sizes)",
            lambda h: resized(h, size=size, **settings),
            IMAGE,
            constants={"rest": ints(4, *size)},
        )

    plain = 'mode="linear",coordinate_transformation_mode="pytorch_half_pixel"'
    cubic = 'mode="cubic",cubic_coeff_a=-0.75,coordinate_transformation_mode="pytorch_half_pixel"'
    nearest = 'mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="floor"'
    for size in ((14, 18), (3, 13), (2, 5)):
        yield by_size("linear", plain, size, mode="bilinear")
        yield by_size("nearest", nearest, size, mode="nearest")
        yield by_size("antialias", f"{plain},antialias=1,exclude_outside=1", size, mode="bilinear", antialias=True)
    for size in ((14, 18), (3, 13)):
        yield by_size("cubic", cubic, size, mode="bicubic")
    corners = 'mode="linear",coordinate_transformation_mode="align_corners"'
    yield by_size("corners", corners, (13, 4), mode="bilinear", align_corners=True)
    half = 'mode="linear",coordinate_transformation_mode="half_pixel"'
    scaled: list[tuple[str, list[float], dict[str, Any]]] = [
        (nearest, [2, 3], {"mode": "nearest"}),
        (nearest, [1, 2], {"mode": "nearest"}),
        (half, [2, 2], {"mode": "bilinear"}),
        (half, [1.5, 0.5], {"mode": "bilinear"}),
    ]
    for spec, scales, settings in scaled:
        yield Case(
            f"Resize {settings['mode']} by {scales}",
            f"y = Resize<{spec}>(h, , scales)",
            lambda h, s=scales, k=settings: resized(h, scale_factor=s, recompute_scale_factor=False, **k),
            IMAGE,
            constants={"scales": np.array([1, 1, *scales], np.float32)},
        )
    yield Case(
        "Resize axes",
        f"y = Resize<{plain},axes=[2,3]>(h, , , size)",
        lambda h: resized(h, size=(4, 12), mode="bilinear"),
        IMAGE,
        constants={"size": ints(4, 12)},
    )
    yield Case(
        "Resize 1-D",
        f"y = Resize<{nearest}>(h, , scales)",
        lambda h: h.repeat_interleave(2, 2),
        constants={"scales": np.array([1, 1, 2], np.float32)},
    )


CASES = [
    case
    for family in (activations, normalisations, reductions, linear, shapes, convolutions, resampling)
    for case in family()
]


@pytest.mark.parametrize("case", CASES, ids=[re.sub(r"\s+", " ", case.name) for case in CASES])
def test_gradients_are_those_of_torch(case: Case, tmp_path: Path) -> None:
    model, initial, x, labels, expected_logits, expected = build(case)
    names = list(expected)
    assert obstacles(model, names) == ()
    rewritten = decompose(model, names)
    onnx.checker.check_model(rewritten)
    for each in (model, rewritten):
        (logits,) = sessions.open_session(each.SerializeToString()).run(None, {"x": x})
        close(logits, expected_logits, 1e-5)
    for name in names:
        (kept,) = (tensor for tensor in rewritten.graph.initializer if tensor.name == name)
        np.testing.assert_array_equal(numpy_helper.to_array(kept), initial[name])

    logits, found = train_step(rewritten, names, x, labels, tmp_path)
    close(logits, expected_logits, 1e-5)
    for name in names:
        close(found[name], expected[name], 1e-4)
    again = decompose(rewritten, names)
    assert [node.op_type for node in again.graph.node] == [node.op_type for node in rewritten.graph.node]


def close(found: Array, expected: Array, tolerance: float) -> None:
    """Compare relative to the largest element: many gradients have elements that nearly cancel."""
    assert found.shape == expected.shape
    scale = max(float(np.abs(expected).max()), 1e-3)
    assert np.abs(found - expected).max() <= tolerance * scale


def build(case: Case) -> tuple[onnx.ModelProto, dict[str, Array], Array, Array, Array, dict[str, Array]]:
    """Return model, initializers, x, labels, and torch's logits and gradients in double precision."""
    rng = np.random.default_rng(1)
    x = case.inputs if case.inputs is not None else rng.standard_normal((BATCH, *case.shape)).astype(np.float32)
    # with given inputs h = x, so that what is a tie, a zero or a bound stays one
    w = np.ones(x.shape[1:], np.float32) if case.inputs is not None else rng.uniform(0.5, 1.5, x.shape[1:])
    initial: dict[str, Array] = {"w": w.astype(np.float32), **case.parameters, **case.constants}
    parameters = {
        name: torch.tensor(np.asarray(initial[name], np.float64), requires_grad=True)
        for name in ("w", *case.parameters)
    }
    h = torch.tensor(x, dtype=torch.float64) * parameters["w"]
    y = case.reference(h, *(parameters[name] for name in case.parameters)).reshape(BATCH, -1)
    initial["readout"] = (rng.standard_normal((y.shape[1], 3)) / np.sqrt(y.shape[1])).astype(np.float32)
    labels = np.arange(BATCH, dtype=np.int64)
    logits = y @ torch.tensor(initial["readout"], dtype=torch.float64)
    F.cross_entropy(logits, torch.tensor(labels)).backward()

    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "w"], ["h"]),
            *parser.parse_graph(f"g (float[1] x) => (float[1] y) {{ {case.nodes} }}").node,
            helper.make_node("Reshape", ["y", "rows"], ["flat"]),
            helper.make_node("MatMul", ["flat", "readout"], ["batch_logits"]),
        ],
        "case",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *x.shape[1:]])],
        [helper.make_tensor_value_info("batch_logits", TensorProto.FLOAT, ["batch", 3])],
        initializer=[
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in {**initial, "rows": ints(-1, y.shape[1])}.items()
        ],
    )
    gradients_ = {name: value.grad.numpy() for name, value in parameters.items() if value.grad is not None}
    return make_model(graph), initial, x, labels, logits.detach().numpy(), gradients_


ENCODE = TargetEncoder("classification", 3)


def train_step(
    model: onnx.ModelProto, names: list[str], x: Array, labels: Array, directory: Path
) -> tuple[Array, dict[str, Array]]:
    """One forward and backward pass; return the logits and the parameters' gradients."""
    sessions.import_onnxruntime()
    with _quiet():
        from onnxruntime.training import artifacts

        artifacts.generate_artifacts(
            with_loss(model, "cross_entropy"),
            requires_grad=names,
            frozen_params=[],
            loss_input_names=["loss"],
            artifact_directory=directory,
            additional_output_names=["batch_logits"],
        )
    api = import_training_api()
    options = sessions.import_onnxruntime().SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    state = api.CheckpointState.load_checkpoint(str(directory / "checkpoint"))
    module = api.Module(
        str(directory / "training_model.onnx"), state, str(directory / "eval_model.onnx"), session_options=options
    )
    module.train()
    _, logits = module(x, *ENCODE(labels))
    return logits, {name: state.parameters[name].grad for name in names}


def parsed(nodes: str, shape: tuple[int, ...] = (4, 5), **constants: Array) -> onnx.ModelProto:
    """Nodes from `h = x · w` to `y`."""
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "w"], ["h"]),
            *parser.parse_graph(f"g (float[1] x) => (float[1] y) {{ {nodes} }}").node,
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializer=[
            numpy_helper.from_array(value, name)
            for name, value in {"w": np.ones(shape, np.float32), **constants}.items()
        ],
    )
    return make_model(graph)


def test_every_obstacle_is_listed_at_once() -> None:
    model = parsed("a = Floor(h) b = Det(h) c = Pow(h, w) d = Add(a, c) y = Mul(d, b)", (5, 5))
    assert [(o.op_type, o.node) for o in obstacles(model, ["w"])] == [("Floor", "a"), ("Det", "b"), ("Pow", "c")]
    assert "negative" in obstacles(model, ["w"])[2].reason
    assert [node.op_type for node in decompose(model, ["w"]).graph.node].count("Floor") == 1


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ('y = Einsum<equation="nii->ni">(h)', {}),
        ('y = Einsum<equation="...i->...">(h)', {}),
        ("y = Pow(h, w)", {}),
        ("y = ReduceProd(h)", {}),
        (
            'y = Resize<coordinate_transformation_mode="tf_crop_and_resize">(h, roi, s)',
            {"roi": np.zeros(6, np.float32), "s": np.ones(3, np.float32)},
        ),
        ("y = Round(h)", {}),
        (
            "s = Shape(x) i = Gather(s, zero) y = CumSum(h, i)",
            {"zero": np.array(0)},
        ),
    ],
)
def test_forms_that_no_rule_knows_are_obstacles(nodes: str, constants: dict[str, Array]) -> None:
    model = parsed(nodes, (5, 5), **constants)
    (obstacle,) = obstacles(model, ["w"])
    assert obstacle.op_type in nodes
    assert decompose(model, ["w"]).graph.node[-1].op_type == obstacle.op_type


def test_what_no_gradient_passes_stays_as_it_is() -> None:
    model = parsed("k = HardSwish(x) s = Floor(x) u = ReduceMax(h) i = ArgMax(h) t = Add(k, s) y = Mul(t, h)")
    assert obstacles(model, ["w"]) == ()
    assert [n.op_type for n in decompose(model, ["w"]).graph.node] == ["Mul", "HardSwish", "Floor", "Add", "Mul"]


def test_inputs_and_outputs_keep_their_names_and_the_model_its_own() -> None:
    model = parsed("y = Dropout(h)")
    before = model.SerializeToString()
    result = decompose(model, ["w"])
    assert model.SerializeToString() == before
    assert [value.name for value in (*result.graph.input, *result.graph.output)] == ["x", "y"]


def test_statistics_of_batch_normalisation_may_be_computed() -> None:
    """As those of a standardised weight are."""
    model = parsed("y = BatchNormalization(h, a, b, c, d)", **{k: np.ones(4, np.float32) for k in "abcd"})
    for trainable in (["w", "a", "b"], ["w", "c", "d"]):
        assert obstacles(model, trainable) == ()
        left = {node.op_type for node in decompose(model, trainable).graph.node}
        assert "BatchNormalization" not in left


def test_every_rule_and_every_native_operator_has_a_case() -> None:
    used = {name for case in CASES for name in re.findall(r"= (\w+)", case.nodes)}
    untested = set(RULES) | DIFFERENTIABLE
    # opset 20, and those whose gradients are exercised by the device's text models only
    assert untested - used <= {"Gelu", "ScatterElements", "ScatterND"}
