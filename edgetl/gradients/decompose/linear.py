"""Sums, products, powers, and linear maps along an axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from edgetl.graph.rewrite import Array, Builder, Dim, Rule, Unsupported, attribute


def sum_(node: onnx.NodeProto, op: Builder) -> str:
    """`a + b + …`, one Add after the other."""
    return _sum(op, node.input)


def mean(node: onnx.NodeProto, op: Builder) -> str:
    """`(a + b + …) / n`."""
    return op.Mul(_sum(op, node.input), 1 / len(node.input))


def matmul(node: onnx.NodeProto, op: Builder) -> str | None:
    """Vectors as matrices of one row or column: the registered gradient fails on them."""
    a, b = node.input
    a_is_vector, b_is_vector = op.rank(a) == 1, op.rank(b) == 1
    if not a_is_vector and not b_is_vector:
        return None
    if a_is_vector:
        a = op.Unsqueeze(a, [0])
    if b_is_vector:
        b = op.Unsqueeze(b, [1])
    product = op.MatMul(a, b)
    return op.Squeeze(product, [-2] * a_is_vector + [-1] * b_is_vector)


def pow_(node: onnx.NodeProto, op: Builder) -> str | None:
    """`xᵉ` as it is where e is a constant float; `exp(e · ln x)` where it is computed and x is positive."""
    x, exponent = node.input
    value = op.constant(exponent)
    if value is not None:
        ready = value.dtype == np.float32 and exponent not in op.producers
        return None if ready else op.Pow(x, value.astype(np.float32))
    base = op.constant(x)
    if not (base is not None and (base > 0).all()) and not _is_positive(op, x):
        raise Unsupported("its exponent is computed, and its base may be negative")
    log = np.log(base) if base is not None else op.Log(x)
    return op.Exp(op.Mul(exponent, log))


def cum_sum(node: onnx.NodeProto, op: Builder) -> str:
    """A product with a triangular matrix of ones."""
    x = node.input[0]
    rank = len(op.shape(x))
    axis = op.ints(node.input[1])[0] % rank
    (size,) = op.sizes(x, [axis])
    lower: Array = np.tri(size, k=-1 if attribute(node, "exclusive", 0) else 0, dtype=np.float32)
    return along_axis(op, x, lower.T if attribute(node, "reverse", 0) else lower, axis, rank)


def einsum(node: onnx.NodeProto, op: Builder) -> str:
    """One or two operands as Transpose, Reshape and MatMul.

    A label is shared by both operands and the output (a batch axis of MatMul), shared by both
    alone (summed by MatMul), or belongs to one operand (a row or column; summed before, if it is
    not in the output).
    """
    terms, output = _equation(node)
    sizes: dict[str, Dim] = {}
    operands: list[tuple[str, str]] = []
    for i, (name, labels) in enumerate(zip(node.input, terms, strict=True)):
        for label, size in zip(labels, op.shape(name), strict=True):
            known = sizes.setdefault(label, size)
            if isinstance(size, int):
                if isinstance(known, int) and known != size:
                    raise Unsupported(f"{label!r} stands for {known} and for {size}")
                sizes[label] = size
        wanted = set(output).union(*terms[:i], *terms[i + 1 :])
        alone = [axis for axis, label in enumerate(labels) if label not in wanted]
        value = op.ReduceSum(name, alone, keepdims=0) if alone else name
        operands.append((value, "".join(label for label in labels if label in wanted)))
    if len(operands) == 1:
        value, labels = operands[0]
        return op.transposed(value, [labels.index(label) for label in output])

    (a, a_labels), (b, b_labels) = operands
    batch = "".join(label for label in a_labels if label in b_labels and label in output)
    inner = "".join(label for label in a_labels if label in b_labels and label not in output)
    rows = "".join(label for label in a_labels if label not in b_labels)
    columns = "".join(label for label in b_labels if label not in a_labels)
    left = _as_matrices(op, a, a_labels, (batch, rows, inner), sizes)
    right = _as_matrices(op, b, b_labels, (batch, inner, columns), sizes)
    product = op.MatMul(left, right)
    made = batch + rows + columns
    if len(rows) != 1 or len(columns) != 1:
        product = op.Reshape(product, [*([0] * len(batch)), *_target([sizes[label] for label in rows + columns])])
    return op.transposed(product, [made.index(label) for label in output])


def along_axis(op: Builder, x: str, matrix: Array, axis: int, rank: int) -> str:
    """Multiply each vector of `x` along `axis` by `matrix` (`[out, in]`)."""
    if matrix.shape[0] == matrix.shape[1] and (matrix == np.eye(len(matrix))).all():
        return x
    if axis == rank - 1:
        return op.MatMul(x, matrix.T)
    if axis == rank - 2:
        return op.MatMul(matrix, x)
    swapped = list(range(rank))
    swapped[axis], swapped[-1] = rank - 1, axis
    return op.Transpose(op.MatMul(op.Transpose(x, perm=swapped), matrix.T), perm=swapped)


def _sum(op: Builder, names: Sequence[str]) -> str:
    total = names[0]
    for name in names[1:]:
        total = op.Add(total, name)
    return total


def _as_matrices(op: Builder, value: str, labels: str, parts: tuple[str, str, str], sizes: dict[str, Dim]) -> str:
    """Bring axes into the order of `parts` (batch, rows, columns) and merge the rows, and the columns, into one."""
    batch, rows, columns = parts
    value = op.transposed(value, [labels.index(label) for label in batch + rows + columns])
    if len(rows) == len(columns) == 1:
        return value
    return op.Reshape(value, [*([0] * len(batch)), *_target([_product(rows, sizes), _product(columns, sizes)])])


def _product(labels: str, sizes: dict[str, Dim]) -> Dim:
    product = 1
    for label in labels:
        size = sizes[label]
        if not isinstance(size, int):
            return None
        product *= size
    return product


def _target(sizes: Sequence[Dim]) -> list[int]:
    """Return sizes for Reshape, with -1 for the one that varies."""
    target = [size if isinstance(size, int) else -1 for size in sizes]
    if target.count(-1) > 1:
        raise Unsupported("two axes vary besides the batch")
    return target


def _equation(node: onnx.NodeProto) -> tuple[list[str], str]:
    equation = attribute(node, "equation", "").replace(" ", "")
    if "." in equation:
        raise Unsupported(f"the equation {equation!r} has an ellipsis")
    left, arrow, output = equation.partition("->")
    if not arrow:
        output = "".join(sorted(label for label in set(left) - {","} if left.count(label) == 1))
    terms = left.split(",")
    if len(terms) > 2 or any(len(set(labels)) != len(labels) for labels in (*terms, output)):
        raise Unsupported(f"the equation {equation!r} has three operands, or a label twice in one")
    return terms, output


def _is_positive(op: Builder, name: str) -> bool:
    node = op.producers.get(name)
    if node is None:
        return False
    if node.op_type == "Clip":
        low = op.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
        return low is not None and bool((low > 0).all())
    return node.op_type in ("Exp", "Sigmoid", "Softplus")


RULES: dict[str, Rule] = {
    "CumSum": cum_sum,
    "Einsum": einsum,
    "MatMul": matmul,
    "Mean": mean,
    "Pow": pow_,
    "Sum": sum_,
}
