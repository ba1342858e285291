"""A new head that is usable before the first step: closed forms on the cached features.

Both forms are linear, and become the head's weight and bias. Their scores are scaled by the factor
that makes the loss smallest when each sample is left out of what scores it, so that training begins
with sensible probabilities. Sums are taken in float64, batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.artifacts import TRAINABLE, Artifacts
from edgetl.errors import EngineError, one_sentence
from edgetl.providers import Provider, open_placed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Batches = Callable[[], Iterator[tuple["NDArray[np.float32]", "NDArray[np.float32]"]]]
"""Gives, each time it is called, the training samples: the head's inputs `[n, D]` and targets `[n, K]`.

They come in random order, because the first `HELD_OUT` stand for all.
"""

HELD_OUT = 1000
"""Most samples that are left out one by one to choose a factor and a penalty."""

PENALTIES = tuple(10.0**exponent for exponent in range(-4, 3))
"""Of ridge regression, in units of the features' mean variance."""

FACTORS = tuple(2.0 ** (half / 2) for half in range(-6, 25))


def head_inputs(prepared: Artifacts, threads: int) -> Callable[[Sequence[NDArray[Any]]], NDArray[np.float32]]:
    """Return the function from a batch of features to what enters the head, `[N, D]`, with the initial parameters.

    Raises:
        EngineError: the head is not a single linear layer.
    """
    head, features = prepared.manifest.head, prepared.manifest.features
    if head is None:
        raise EngineError(
            f"the head of {prepared.path} is not a single linear layer, so that it can only begin at zero: "
            "give --init zero"
        )
    names = [spec.name for spec in features]
    if head.input in names:
        position = names.index(head.input)
        return lambda arrays: np.asarray(arrays[position]).reshape(len(arrays[position]), -1)
    import onnx

    from edgetl.graphs import prune

    with one_sentence(EngineError, f"the graph of {prepared.path} cannot be cut before its head, prepare it anew"):
        model = onnx.load(prepared.file(TRAINABLE), load_external_data=False)
        del model.graph.output[:]
        model.graph.output.append(onnx.ValueInfoProto(name=head.input))
        prune(model.graph)
    session = open_placed(model.SerializeToString(), Provider(), threads=threads, what="the part before the head")
    taken = {value.name for value in session.inputs}

    def run(arrays: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        feeds = {name: array for name, array in zip(names, arrays, strict=True) if name in taken}
        return np.asarray(session.run([head.input], feeds)[0])

    return run


@dataclass(frozen=True)
class LinearHead:
    """Weight `[K, D]` and bias `[K]`, float32."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def prototype(batches: Batches) -> LinearHead:
    """Class means of normalised features as weights (Qi et al. 2018, weight imprinting); for classification.

    A head works on features that are not normalised; their mean length is in its scale.
    """
    sums: Any = 0.0
    lengths, seen = 0.0, 0
    for x, targets in batches():
        norms = np.linalg.norm(x, axis=1, keepdims=True).astype(np.float64)
        sums = sums + targets.T @ (x / np.maximum(norms, 1e-12))
        lengths, seen = lengths + float(norms.sum()), seen + len(x)
    length = max(lengths / seen, 1e-12)
    directions = _normalised(sums)
    scores, truth = [], []
    for x, targets in _first(batches, HELD_OUT):
        score = (x @ directions.T).astype(np.float64)
        label = targets.argmax(1)
        # what the sample's own class gives without it
        own = _normalised(sums[label] - _normalised(x.astype(np.float64)))
        score[np.arange(len(x)), label] = (own * x).sum(1)
        scores.append(score / length)
        truth.append(targets)
    factor = min(FACTORS, key=lambda f: _cross_entropy(f * np.concatenate(scores), np.concatenate(truth)))
    return LinearHead((directions * factor / length).astype(np.float32), np.zeros(len(directions), np.float32))


def ridge(batches: Batches, task: str) -> LinearHead:
    """Ridge regression of centred targets on centred features, `W = (XᵀX + λI)⁻¹XᵀY` (Hoerl & Kennard 1970).

    Of `PENALTIES` the one is taken whose scores of left-out samples have the smallest loss; leaving
    out needs no second fit (Allen 1974, PRESS): `y - ŷ₋ᵢ = (y - ŷᵢ)/(1 - hᵢᵢ)`.
    """
    count, sum_x, sum_y, xx, xy = 0, *[0.0] * 4  # type: Any, Any, Any, Any, Any
    for x, targets in batches():
        wide = x.astype(np.float64)
        count += len(x)
        sum_x += wide.sum(0)
        sum_y += targets.sum(0, dtype=np.float64)
        xx += wide.T @ wide
        xy += wide.T @ targets
    mean_x, mean_y = sum_x / count, sum_y / count
    xx -= np.outer(sum_x, mean_x)
    xy -= np.outer(sum_x, mean_y)
    diagonal = xx.diagonal().copy()
    unit = max(float(diagonal.mean()), 1e-12)
    middle, factors, loss = {
        "classification": (0.0, FACTORS, _cross_entropy),
        "multilabel": (0.5, FACTORS, _binary_cross_entropy),
        "regression": (0.0, (1.0,), _squared_error),
    }[task]
    best = (np.inf, 0.0, 0.0)
    for penalty in PENALTIES:
        # a Cholesky factor for each penalty takes a third of the memory of the eigenvectors for all
        np.fill_diagonal(xx, diagonal + penalty * unit)
        lower = np.linalg.cholesky(xx)
        turned = _forward(lower, xy)
        scores, truth = [], []
        for x, y in _first(batches, HELD_OUT):
            held_out = _forward(lower, (x - mean_x).T)
            fitted = mean_y + held_out.T @ turned
            leverage = 1 / count + (held_out**2).sum(0)
            scores.append(y - (y - fitted) / np.maximum(1 - leverage, 1e-6)[:, None] - middle)
            truth.append(y.astype(np.float64))
        del lower
        left_out, wanted = np.concatenate(scores), np.concatenate(truth)
        best = min(best, *((loss(factor * left_out, wanted), penalty, factor) for factor in factors))
    _, penalty, factor = best
    np.fill_diagonal(xx, diagonal + penalty * unit)
    weight = np.linalg.solve(xx, xy)
    bias = mean_y - mean_x @ weight - middle
    return LinearHead((factor * weight.T).astype(np.float32), (factor * bias).astype(np.float32))


def _forward(lower: Array, right: Array, block: int = 64) -> Array:
    """Solve `lower · z = right` by forward substitution; NumPy has no triangular solver."""
    found = np.array(right, np.float64)
    for start in range(0, len(lower), block):
        rows = slice(start, start + block)
        found[rows] = np.linalg.solve(lower[rows, rows], found[rows] - lower[rows, :start] @ found[:start])
    return found


def _first(batches: Batches, most: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    left = most
    for x, targets in batches():
        if left <= 0:
            return
        yield x[:left], targets[:left]
        left -= len(x)


def _normalised(vectors: Array) -> Array:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))


def _cross_entropy(logits: Array, targets: Array) -> float:
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return float(-(targets * log_probabilities).sum(1).mean())


def _binary_cross_entropy(logits: Array, targets: Array) -> float:
    return float((np.logaddexp(0, logits) - targets * logits).mean())


def _squared_error(values: Array, targets: Array) -> float:
    return float(((values - targets) ** 2).mean())
