"""Gradients of convolutions.

X is `[N, Ci, *size]`, W `[Co, Ci/g, *kernel]`, Y and dY `[N, Co, *out]`, with g groups. Along an axis
with kernel k, stride s, dilation d and pads (p, q) in front and behind, the taps reach over
`r = d(k - 1)` elements.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from edgetl.graph.rewrite import Builder, Rule, Unsupported, attribute, operand

MOST_ROWS, FEWEST_TAPS = 14, 5
"""Rows of a map up to which, and of a kernel from which on, `_by_rows` is faster."""

NARROWEST_TILE, WIDEST_TILE = 12, 32
"""Elements of an output's row that `_by_bands` multiplies at once."""

LARGEST_COLUMNS = 1 << 20
"""Elements per sample of all that a kernel's taps meet; what is larger is multiplied tap by tap."""


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

    @property
    def is_pointwise_dense(self) -> bool:
        """Whether, moreover, every input element is read."""
        return self.is_pointwise and set(self.strides) == {1}


def conv(node: onnx.NodeProto, op: Builder) -> str | None:
    """Conv(X, W, B?) itself, or `_by_rows` where that is faster and W trains: a constant W has a faster layout."""
    x, w, bias = node.input[0], node.input[1], operand(node, 2)
    if len(op.shape(w)) != 4 or op.constant(w) is not None or attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return None
    sizes = _geometry(node, op, x, w, node.output[0])
    return _by_rows(op, x, w, bias, sizes) if _is_flat(sizes) else None


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
    elif _is_flat(back := replace(g, size=g.out, out=g.size, before=tuple(front), after=tuple(behind))):
        return _by_rows(op, dy, _flipped(op, w, g), None, back)
    return op.Conv(
        dy,
        _flipped(op, w, g),
        group=g.group,
        dilations=g.dilations,
        pads=[max(pad, 0) for pad in (*front, *behind)],
    )


def _is_flat(g: Geometry) -> bool:
    """Return whether a convolution is depthwise and dense, of few rows that meet many."""
    is_depthwise = g.dims == 2 and g.group == g.inputs == g.outputs
    is_dense = {*g.strides, *g.dilations} == {1}
    return is_depthwise and is_dense and g.size[0] <= MOST_ROWS and g.kernel[0] >= FEWEST_TAPS


def _by_rows(op: Builder, x: str, w: str, bias: str | None, g: Geometry) -> str:
    """Depthwise: convolve along the last axis alone; the rows become channels.

    Y's row y meets X's row `y + i - p` with the kernel's row i: `W'[c, y, h, j] = W[c, i, j]` where
    `h = y + i - p`, else 0. Of W' most is zeros, but the runtime copies X only once for each column
    of the kernel, not for each tap.
    """
    (height, _), (rows, columns), out = g.size, g.kernel, g.out[0]
    band = np.zeros((rows, out, height), np.float32)
    for i, row in itertools.product(range(rows), range(out)):
        met = row + i - g.before[0]
        if 0 <= met < height:
            band[i, row, met] = 1
    turned = op.Transpose(op.Reshape(w, [g.group, rows, columns]), perm=[0, 2, 1])
    spread = op.MatMul(turned, band.reshape(rows, -1))
    kernel = op.Reshape(op.Transpose(spread, perm=[0, 2, 1]), [g.group * out, height, columns])
    if bias:
        bias = op.Reshape(op.Expand(op.Reshape(bias, [-1, 1]), [1, out]), [-1])
    flat = op.Reshape(x, [0, g.group * height, g.size[1]])
    y = op.Conv(flat, kernel, bias, group=g.group, pads=[g.before[1], g.after[1]])
    return op.Reshape(y, [0, g.group, *g.out])


def _flipped(op: Builder, w: str, g: Geometry) -> str:
    """Turn `[g·out, in, *kernel]` into `[g·in, out, *kernel]`, reversed in space."""
    taps = math.prod(g.kernel)
    inputs, outputs = g.inputs // g.group, g.outputs // g.group
    if inputs > 1 or outputs > 1:
        w = op.Transpose(op.Reshape(w, [g.group, outputs, inputs, taps]), perm=[0, 2, 1, 3])
    w = op.Reshape(w, [g.inputs, outputs, taps])
    if taps > 1:
        # exact, and four times as fast as Gather, which copies each element on its own
        w = op.MatMul(w, np.eye(taps, dtype=np.float32)[::-1])
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
    """Return dW, in the form that runs fastest in onnxruntime on a CPU.

    `dW[o, i, t] = Σₙ Σₐ dY[n, o, a]·X[n, i, s·a + d·t - p]`: for each tap t the product of dY with those
    elements of X that meet the tap, summed over samples and space.
    """
    taps = math.prod(g.kernel)
    if g.dims == 2 and g.group == g.inputs == g.outputs:
        width = next((n for n in range(WIDEST_TILE, NARROWEST_TILE - 1, -1) if g.out[1] % n == 0), None)
        if g.out[1] <= WIDEST_TILE:
            width = g.out[1]
        return _by_exchange(op, dy, x, g) if width is None else _by_bands(op, dy, x, g, width)
    if g.dims == 2 and taps > 9 and set(g.strides) != {1}:
        return _by_exchange(op, dy, x, g)
    return _by_taps(op, dy, x, g)


def _by_taps(op: Builder, dy: str, x: str, g: Geometry) -> str:
    """One matrix product per tap; or a single one, where all that the taps meet is small enough to lay side by side."""
    inputs, outputs = g.inputs // g.group, g.outputs // g.group
    area, taps = math.prod(g.out), math.prod(g.kernel)
    axes = list(range(2, 2 + g.dims))
    # sum over the batch within the product, or behind it? the first copies X and dY, the second makes N matrices
    batched = area * (inputs + outputs) > inputs * outputs
    if any((*g.before, *g.after)):
        x = op.Pad(x, [0, 0, *g.before, 0, 0, *g.after])
    if batched:
        left = op.Reshape(dy, [-1, g.group, outputs, area])
    else:
        left = op.Reshape(_channels_first(op, dy, g), [g.group, outputs, -1])
        x = _channels_first(op, x, g)
    joined = batched and taps > 1 and inputs * taps * area * g.group <= LARGEST_COLUMNS
    parts = []
    for tap in itertools.product(*map(range, g.kernel)):
        met = op.Slice(x, *_met(g, tap), axes, list(g.strides)) if taps > 1 or not g.is_pointwise_dense else x
        shape = [g.group, inputs, 1] if joined else [g.group, inputs]
        met = op.Reshape(met, [-1, *shape, area] if batched else [*shape, -1])
        parts.append(met if joined else _summed_product(op, left, met, batched))
    if joined:
        columns = op.Reshape(op.Concat(*parts, axis=3), [-1, g.group, inputs * taps, area])
        made = _summed_product(op, left, columns, batched)
    else:
        parts = [op.Reshape(part, [g.outputs, inputs, 1]) for part in parts]
        made = parts[0] if taps == 1 else op.Concat(*parts, axis=2)
    return op.Reshape(made, [g.outputs, inputs, *g.kernel])


def _summed_product(op: Builder, left: str, right: str, batched: bool) -> str:
    """Return `left·rightᵀ`, with a leading batch axis summed over all samples."""
    product = op.MatMul(left, op.Transpose(right, perm=[0, 1, 3, 2] if batched else [0, 2, 1]))
    return op.ReduceSum(product, [0], keepdims=0) if batched else product


def _met(g: Geometry, tap: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Return where, along each axis of the padded X, the elements that meet a tap start and end."""
    starts = [d * t for d, t in zip(g.dilations, tap, strict=True)]
    return starts, [start + s * (n - 1) + 1 for start, s, n in zip(starts, g.strides, g.out, strict=True)]


def _by_bands(op: Builder, dy: str, x: str, g: Geometry, width: int) -> str:
    """Depthwise: multiply whole rows, or tiles of them, and pick from each product of columns those that meet.

    dY's rows are cut into tiles of `width` elements, X's into tiles of the elements that these meet,
    which overlap. For the kernel's row i, `P = Σ dY[n, c, y, tile]ᵀ X[n, c, s·y + d·i - p, tile]` over
    samples, rows and tiles is `[C, width, met]`; its elements `[a, s·a + d·j]` add up to `dW[c, i, j]`.
    Most of P is wasted, but matrix products are much faster than copies of X for each tap.
    """
    (height, out), (rows, columns), (stride, reach) = g.out, g.kernel, (g.strides[1], g.reach[1])
    tiles = out // width
    # a whole row needs no zeros beside it: the band leaves out what would meet them
    left, right = (g.before[1], g.after[1]) if tiles > 1 else (0, 0)
    met = stride * (width - 1) + reach + 1 if tiles > 1 else g.size[1]
    band = np.zeros((width, met, columns), np.float32)
    for a, j in itertools.product(range(width), range(columns)):
        position = stride * a + g.dilations[1] * j - (g.before[1] - left)
        if 0 <= position < met:
            band[a, position, j] = 1
    if any((g.before[0], g.after[0], left, right)):
        x = op.Pad(x, [0, 0, g.before[0], left, 0, 0, g.after[0], right])
    if tiles > 1:
        starts = [tile * width * stride for tile in range(tiles)]
        x = op.Concat(*(op.Unsqueeze(op.Slice(x, [n], [n + met], [3]), [2]) for n in starts), axis=2)
    else:
        x = op.Unsqueeze(x, [2])
    x = op.Transpose(x, perm=[1, 0, 2, 3, 4])
    tiled = op.Transpose(op.Reshape(dy, [0, 0, height, tiles, width]), perm=[1, 0, 3, 2, 4])
    turned = op.Transpose(op.Reshape(tiled, [g.group, -1, width]), perm=[0, 2, 1])
    found = []
    for i in range(rows):
        start = g.dilations[0] * i
        met_rows = op.Slice(x, [start], [start + g.strides[0] * (height - 1) + 1], [3], [g.strides[0]])
        product = op.MatMul(turned, op.Reshape(met_rows, [g.group, -1, met]))
        picked = op.MatMul(op.Reshape(product, [g.group, width * met]), band.reshape(-1, columns))
        found.append(op.Reshape(picked, [g.group, 1, 1, columns]))
    return found[0] if rows == 1 else op.Concat(*found, axis=2)


def _by_exchange(op: Builder, dy: str, x: str, g: Geometry) -> str:
    """A convolution of X with dY as its kernel, samples and channels, strides and dilations exchanged.

    With groups, X becomes `[Ci/g, g·N, *size]` and the result is `[Ci/g, Co, *kernel]`, perhaps with
    more elements behind, which windows beyond the last make.
    """
    inputs = g.inputs // g.group
    axes = list(range(2, 2 + g.dims))
    if g.group == 1:
        x = _channels_first(op, x, g)
    elif inputs == 1:
        x = op.Reshape(_channels_first(op, x, g), [1, -1, *g.size])
    else:
        grouped = op.Reshape(x, [-1, g.group, inputs, *g.size])
        turned = op.Transpose(grouped, perm=[2, 1, 0, *(axis + 1 for axis in axes)])
        x = op.Reshape(turned, [inputs, -1, *g.size])
    made = op.Conv(
        x,
        _channels_first(op, dy, g),
        group=g.group,
        strides=g.dilations,
        dilations=g.strides,
        pads=[*g.before, *g.after],
    )
    if set(g.strides) != {1}:
        made = op.Slice(made, [0] * g.dims, list(g.kernel), axes)
    return op.Reshape(made, [g.outputs, 1, *g.kernel]) if inputs == 1 else _channels_first(op, made, g)


def _channels_first(op: Builder, x: str, g: Geometry) -> str:
    return op.Transpose(x, perm=[1, 0, *range(2, 2 + g.dims)])


RULES: dict[str, Rule] = {"ConvGrad": conv_grad}
