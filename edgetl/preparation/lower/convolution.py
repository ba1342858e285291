"""Gradients of convolutions.

X is `[N, Ci, *size]`, W `[Co, Ci/g, *kernel]`, Y and dY `[N, Co, *out]`, with g groups. Along an axis
with kernel k, stride s, dilation d and pads (p, q) in front and behind, the taps reach over
`r = d(k - 1)` elements.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edgetl.preparation.decompose.builder import Builder, Rule, Unsupported, attribute


@dataclass(frozen=True)
class Geometry:
    """The sizes of a convolution; `before` and `after` are its pads."""

    group: int
    inputs: int
    outputs: int
    size: tuple[int, ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def reach(self) -> tuple[int, ...]:
        """`d(k - 1)` for each axis."""
        return tuple(d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True))

    @property
    def is_pointwise(self) -> bool:
        """Whether every output element reads one input element."""
        return set(self.kernel) == {1} and not any((*self.before, *self.after))


def conv_grad(node: onnx.NodeProto, op: Builder) -> list[str]:
    """ConvGrad(dY, X, W) → dX?, dW?, dB? (Dumoulin & Visin 2016, section 4; dB is the sum of dY per channel)."""
    dy, x, w = node.input
    wanted = [*map(bool, node.output), False, False]
    sizes = _geometry(node, op, x, w, dy)
    return [
        _input_gradient(op, dy, w, sizes) if wanted[0] else "",
        _weight_gradient(op, dy, x, sizes) if wanted[1] else "",
        op.ReduceSum(dy, [0, *range(2, 2 + sizes.dims)], keepdims=0) if wanted[2] else "",
    ]


def _geometry(node: onnx.NodeProto, op: Builder, x: str, w: str, y: str) -> Geometry:
    rank = len(op.shape(w))
    dims = rank - 2
    if attribute(node, "auto_pad", "NOTSET").startswith("SAME"):
        raise Unsupported("its pads are not spelled out")
    outputs, _, *kernel = op.sizes(w, range(rank))
    inputs, *size = op.sizes(x, range(1, rank))
    pads = attribute(node, "pads", [0] * 2 * dims)
    return Geometry(
        group=attribute(node, "group", 1),
        inputs=inputs,
        outputs=outputs,
        size=tuple(size),
        out=op.sizes(y, range(2, rank)),
        kernel=tuple(kernel),
        strides=tuple(attribute(node, "strides", [1] * dims)),
        dilations=tuple(attribute(node, "dilations", [1] * dims)),
        before=tuple(pads[:dims]),
        after=tuple(pads[dims:]),
    )


def _input_gradient(op: Builder, dy: str, w: str, g: Geometry) -> str:
    """Return dX: dY, its elements s apart, convolved with the flipped kernel and pads `r - p` and beyond."""
    if set(g.strides) == {1}:
        return _flipped_convolution(op, dy, w, g, g.after)
    if g.is_pointwise:
        return _spread(op, _flipped_convolution(op, dy, w, g, g.after), g, g.inputs, g.size)
    # elements behind the last one that a window reaches
    rest = [
        n + p + q - r - 1 - s * (o - 1)
        for n, p, q, r, s, o in zip(g.size, g.before, g.after, g.reach, g.strides, g.out, strict=True)
    ]
    return op.ConvTranspose(
        dy,
        w,
        group=g.group,
        strides=g.strides,
        dilations=g.dilations,
        pads=[*g.before, *g.after],
        output_padding=rest,
    )


def _flipped_convolution(op: Builder, dy: str, w: str, g: Geometry, after: Sequence[int]) -> str:
    front = [r - p for r, p in zip(g.reach, g.before, strict=True)]
    behind = [r - q for r, q in zip(g.reach, after, strict=True)]
    if any(pad < 0 for pad in (*front, *behind)):
        dy = op.Pad(dy, [0, 0, *(min(pad, 0) for pad in front), 0, 0, *(min(pad, 0) for pad in behind)])
    return op.Conv(
        dy,
        _flipped(op, w, g),
        group=g.group,
        dilations=g.dilations,
        pads=[max(pad, 0) for pad in (*front, *behind)],
    )


def _flipped(op: Builder, w: str, g: Geometry) -> str:
    """Turn `[g·out, in, *kernel]` into `[g·in, out, *kernel]`, reversed in space."""
    taps = math.prod(g.kernel)
    inputs, outputs = g.inputs // g.group, g.outputs // g.group
    if inputs > 1 or outputs > 1:
        w = op.Transpose(op.Reshape(w, [g.group, outputs, inputs, taps]), perm=[0, 2, 1, 3])
    w = op.Reshape(w, [g.inputs, outputs, taps])
    if taps > 1:
        w = op.Gather(w, np.arange(taps)[::-1].astype(np.int64), axis=2)
    return op.Reshape(w, [g.inputs, outputs, *g.kernel])


def _spread(op: Builder, x: str, g: Geometry, channels: int, size: Sequence[int]) -> str:
    """Put `s - 1` zeros behind each element along each axis, and cut or pad to `size`."""
    # [N, C, H, W] → [N, C, H, 1, W, 1] → [N, C, H, s, W, s] → [N, C, Hs, Ws]
    x = op.Reshape(x, [0, channels, *(part for n in g.out for part in (n, 1))])
    x = op.Pad(x, [0] * (2 + 2 * g.dims) + [0, 0, *(part for s in g.strides for part in (0, s - 1))])
    reached = [n * s for n, s in zip(g.out, g.strides, strict=True)]
    x = op.Reshape(x, [0, channels, *reached])
    rest = [n - m for n, m in zip(size, reached, strict=True)]
    return op.Pad(x, [0] * (2 + g.dims) + [0, 0, *rest]) if any(rest) else x


def _weight_gradient(op: Builder, dy: str, x: str, g: Geometry) -> str:
    """Return dW: for each tap the product of dY with those elements of X that meet the tap, summed over N and space.

    `dW[o, i, t] = Σₙ Σₐ dY[n, o, a]·X[n, i, s·a + d·t - p]`
    """
    inputs, outputs = g.inputs // g.group, g.outputs // g.group
    area = math.prod(g.out)
    # sum over N within the product, or behind it? the first copies X and dY, the second makes N matrices
    batched = area * (inputs + outputs) > inputs * outputs
    if any((*g.before, *g.after)):
        x = op.Pad(x, [0, 0, *g.before, 0, 0, *g.after])
    padded = [p + n + q for p, n, q in zip(g.before, g.size, g.after, strict=True)]
    axes = list(range(2, 2 + g.dims))
    if batched:
        left = op.Reshape(dy, [-1, g.group, outputs, area])
    else:
        swapped = [1, 0, *axes]
        left = op.Reshape(op.Transpose(dy, perm=swapped), [g.group, outputs, -1])
        x = op.Transpose(x, perm=swapped)
    found = []
    for tap in itertools.product(*map(range, g.kernel)):
        starts = [d * t for d, t in zip(g.dilations, tap, strict=True)]
        ends = [a + s * (n - 1) + 1 for a, s, n in zip(starts, g.strides, g.out, strict=True)]
        met = x
        if any(starts) or ends != padded or set(g.strides) != {1}:
            met = op.Slice(x, starts, ends, axes, list(g.strides))
        right = op.Reshape(met, [-1, g.group, inputs, area] if batched else [g.group, inputs, -1])
        perm = [0, 1, 3, 2] if batched else [0, 2, 1]
        product = op.MatMul(left, op.Transpose(right, perm=perm))
        if batched:
            product = op.ReduceSum(product, [0], keepdims=0)
        found.append(op.Reshape(product, [g.outputs, inputs, 1]))
    joined = found[0] if len(found) == 1 else op.Concat(*found, axis=2)
    return op.Reshape(joined, [g.outputs, inputs, *g.kernel])


RULES: dict[str, Rule] = {"ConvGrad": conv_grad}
