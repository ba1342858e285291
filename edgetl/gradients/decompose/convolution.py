"""Convolutions whose registered gradient is missing, wrong, or writes where it must not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from edgetl.graph.rewrite import Builder, Rule, attribute, attributes, operand


def conv(node: onnx.NodeProto, op: Builder) -> str | None:
    """Itself with explicit pads; in two dimensions or in one group.

    The registered gradient takes `auto_pad` SAME for no padding. With groups in one or three
    dimensions it writes past the end of a buffer: other tensors change without an error.
    """
    x, weight, bias = node.input[0], node.input[1], operand(node, 2)
    dims = len(op.shape(weight)) - 2
    group = attribute(node, "group", 1)
    settings = attributes(node, without=("auto_pad",))
    same = attribute(node, "auto_pad", "NOTSET").startswith("SAME")
    if same:
        settings["pads"] = _same_pads(node, op)
    if group == 1 or dims == 2:
        return op.Conv(x, weight, bias, **settings) if same else None
    if dims == 1:
        # a row of height 1
        lifted = {"strides": [1], "dilations": [1], "kernel_shape": [1]}
        for name, front in lifted.items():
            if name in settings:
                settings[name] = [*front, *settings[name]]
        if "pads" in settings:
            before, after = settings["pads"]
            settings["pads"] = [0, before, 0, after]
        return op.Squeeze(op.Conv(op.Unsqueeze(x, [2]), op.Unsqueeze(weight, [2]), bias, **settings), [2])
    settings["group"] = 1
    biases: Sequence[str | None] = _split(op, bias, 0, group) if bias else [None] * group
    parts = zip(_split(op, x, 1, group), _split(op, weight, 0, group), biases, strict=True)
    return op.Concat(*(op.Conv(*part, **settings) for part in parts), axis=1)


def conv_transpose(node: onnx.NodeProto, op: Builder) -> str:
    """Zeros between the elements, then a convolution with the flipped kernel (Dumoulin & Visin 2016, section 4).

    ConvTransposeGrad has no CPU kernel. With stride s, kernel k, dilation d and pads (p, q) along
    an axis, the input's elements lie s apart, and d(k - 1) - p zeros before and d(k - 1) - q after
    them, with the output padding.
    """
    x, weight, bias = node.input[0], node.input[1], operand(node, 2)
    rank = len(op.shape(x))
    dims = rank - 2
    in_channels, per_group, *kernel = op.sizes(weight, range(rank))
    group = attribute(node, "group", 1)
    strides = attribute(node, "strides", [1] * dims)
    dilations = attribute(node, "dilations", [1] * dims)
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    size = op.sizes(x, range(2, rank))
    pads, extra = _transposed_pads(node, size, strides, reach)
    if any(s > 1 for s in strides):
        # [N, C, H, W] → [N, C, H, 1, W, 1] → [N, C, H, s, W, s] → [N, C, Hs, Ws]: s - 1 zeros behind each element
        spread = op.Reshape(x, [0, in_channels, *(part for n in size for part in (n, 1))])
        spread = op.Pad(spread, [0] * (2 + 2 * dims) + [0, 0, *(part for s in strides for part in (0, s - 1))])
        x = op.Reshape(spread, [0, in_channels, *(n * s for n, s in zip(size, strides, strict=True))])
    before = [r - pads[i] for i, r in enumerate(reach)]
    after = [r - pads[dims + i] + extra[i] - (strides[i] - 1) for i, r in enumerate(reach)]
    if any(pad < 0 for pad in (*before, *after)):
        x = op.Pad(x, [0, 0, *(min(pad, 0) for pad in before), 0, 0, *(min(pad, 0) for pad in after)])
    settings: dict[str, Any] = {"group": group, "dilations": dilations, "kernel_shape": kernel}
    settings["pads"] = [max(pad, 0) for pad in (*before, *after)]
    if dims == 2 or group == 1:
        return op.Conv(x, _flipped(op, weight, group, in_channels // group, per_group, kernel), bias, **settings)
    settings["group"] = 1
    groups = zip(_split(op, x, 1, group), _split(op, weight, 0, group), strict=True)
    y = op.Concat(
        *(op.Conv(a, _flipped(op, w, 1, in_channels // group, per_group, kernel), **settings) for a, w in groups),
        axis=1,
    )
    return op.Add(y, op.Reshape(bias, [-1, *([1] * dims)])) if bias else y


def _flipped(op: Builder, weight: str, group: int, inputs: int, outputs: int, kernel: list[int]) -> str:
    """Turn a ConvTranspose weight `[g·in, out, *kernel]` into Conv's `[g·out, in, *kernel]`, reversed in space."""
    taps = math.prod(kernel)
    grouped = op.Transpose(op.Reshape(weight, [group, inputs, outputs, taps]), perm=[0, 2, 1, 3])
    backwards = grouped if taps == 1 else op.Gather(grouped, np.arange(taps)[::-1].astype(np.int64), axis=3)
    return op.Reshape(backwards, [group * outputs, inputs, *kernel])


def _split(op: Builder, value: str, axis: int, parts: int) -> list[str]:
    return op.add_many("Split", parts, value, axis=axis, num_outputs=parts)


def _same_pads(node: onnx.NodeProto, op: Builder) -> list[int]:
    """Return the pads with which the output has `ceil(size / stride)` elements (ONNX Conv-11)."""
    x, weight = node.input[:2]
    rank = len(op.shape(x))
    dims = rank - 2
    totals = [
        max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
        for size, kernel, stride, dilation in zip(
            op.sizes(x, range(2, rank)),
            op.sizes(weight, range(2, rank)),
            attribute(node, "strides", [1] * dims),
            attribute(node, "dilations", [1] * dims),
            strict=True,
        )
    ]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return [*small, *large] if attribute(node, "auto_pad", "") == "SAME_UPPER" else [*large, *small]


def _transposed_pads(
    node: onnx.NodeProto, size: tuple[int, ...], strides: list[int], reach: list[int]
) -> tuple[list[int], list[int]]:
    """Return a ConvTranspose's pads (begins, then ends) and output padding (ONNX ConvTranspose-11)."""
    dims = len(size)
    extra = list(attribute(node, "output_padding", [0] * dims))
    auto = attribute(node, "auto_pad", "NOTSET")
    shape = attribute(node, "output_shape", None)
    if shape is None and not auto.startswith("SAME"):
        return list(attribute(node, "pads", [0] * 2 * dims)), extra
    wanted = shape[-dims:] if shape is not None else [n * s for n, s in zip(size, strides, strict=True)]
    totals = [s * (n - 1) + e + r + 1 - w for s, n, e, r, w in zip(strides, size, extra, reach, wanted, strict=True)]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return ([*small, *large] if auto == "SAME_UPPER" else [*large, *small]), extra


RULES: dict[str, Rule] = {"Conv": conv, "ConvTranspose": conv_transpose}
