"""A new head that is usable before the first step: closed forms on the cached features.

Both forms are linear, and become the head's weight and bias. A factor scales their scores to logits: the one
with the smallest loss of samples that are left out of what scores them, so that training begins with
sensible probabilities. Sums are taken in float64, batch by batch.

What is left out is a whole recording, with all of its windows: their features are nearly alike, so that a head
which has seen one window of a recording is too sure of the others.

Where all left-out samples are right, their loss would fall without end as the factor grows. So their
targets are mixed with as much of the uniform distribution as one sample more, `UNSEEN`, would bring: n right
answers in a row do not show that the next one is right, too. The windows of a recording are one such answer.
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

They come in random order, because the first stand for all where penalty and factor are chosen; of recordings in
windows, one window of each recording before the second ones.
"""

HELD_OUT = 600
"""Samples that choose the scaling and the penalty, each left out once."""

MOST_SCORES = 500_000
"""Scores of left-out samples that are held at a time: with thousands of classes fewer samples choose."""

UNSEEN = 1.0
"""Samples of unknown class that the left-out ones are mixed with; see above."""

PENALTIES = tuple(10.0 ** (half / 2) for half in range(0, -13, -1))
"""Of ridge regression, the strongest first, in units of the sum of squares of all features.

Behind a stronger one than 1 next to nothing but the means is left, of which leaving out a sample takes more away than
it does of the rest.
"""

TIE = 1e-3
"""A weaker penalty must lower the loss by this share; otherwise the stronger one stays."""

FACTORS = (2.0**-4, 2.0**10)
"""Bounds of the factor."""

CONSTANT = 1e-6
"""A feature that varies by less than this share of its size holds rounding, and gets no weight."""


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


@dataclass(frozen=True)
class _Scores:
    """How a task reads scores: scores minus `middle`, times a factor, are logits; numbers have no factor.

    Attributes:
        unknown: the targets of a sample of which nothing is known; None for equally likely classes.
    """

    middle: float
    scaled: bool
    unknown: float | None
    loss: Callable[[Array, Array], float]


def prototype(batches: Batches, smoothing: float = 0.0, recordings: NDArray[np.int64] | None = None) -> LinearHead:
    """Class means of normalised features as weights (Qi et al. 2018, weight imprinting); for classification.

    A head works on features that are not normalised; their mean length is in its scale.

    Args:
        smoothing: of the labels in the loss that chooses the factor; as `edgetl.targets.TargetEncoder` has it.
        recordings: `[N]`, which recording each sample is a window of; None where each is one of its own.
    """
    sums: Any = 0.0
    lengths, seen = 0.0, 0
    for x, targets in batches():
        norms = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
        sums = sums + targets.T @ (x / np.maximum(norms, 1e-12))
        lengths, seen = lengths + float(norms.sum()), seen + len(x)
    length = max(lengths / seen, 1e-12)
    directions = _normalised(sums)
    recordings = np.arange(seen) if recordings is None else recordings
    most = _most(HELD_OUT, len(directions))
    chosen, place = np.unique(recordings[:most], return_inverse=True)
    wholes = _sums_of(batches, recordings, chosen)
    scores, truth = [], []
    for start, (x, targets) in _numbered(_first(batches, most)):
        wide = x.astype(np.float64)
        score = wide @ directions.T
        label = targets.argmax(1)
        # what the sample's own class gives without its recording
        own = _normalised(sums[label] - wholes[place[start : start + len(x)]])
        score[np.arange(len(x)), label] = (own * wide).sum(1)
        scores.append(score / length)
        truth.append(targets)
    how = _SCORES["classification"]
    mixed = _mixed(np.concatenate(truth), len(np.unique(recordings)), how, smoothing)
    _, factor = _best_factor(np.concatenate(scores), mixed, how)
    return LinearHead((directions * factor / length).astype(np.float32), np.zeros(len(directions), np.float32))


def _sums_of(batches: Batches, recordings: NDArray[np.int64], chosen: NDArray[np.int64]) -> Array:
    """Sums of the normalised features of each recording chosen, whose numbers are in order, `[len(chosen), D]`."""
    sums: Any = None
    for start, (x, _) in _numbered(batches()):
        sums = np.zeros((len(chosen), x.shape[1])) if sums is None else sums
        numbers = recordings[start : start + len(x)]
        place = np.minimum(np.searchsorted(chosen, numbers), len(chosen) - 1)
        inside = chosen[place] == numbers
        np.add.at(sums, place[inside], _normalised(x[inside].astype(np.float64)))
    return np.asarray(sums)


def ridge(
    batches: Batches, task: str, smoothing: float = 0.0, recordings: NDArray[np.int64] | None = None
) -> LinearHead:
    """Ridge regression of centred targets on centred features, `W = (XᵀX + λI)⁻¹XᵀY` (Hoerl & Kennard 1970).

    The features are taken as they are or divided by their standard deviations, and λ is one of `PENALTIES`:
    whichever gives the smallest loss of left-out samples, the stronger penalty where there is next to no
    difference. Leaving out needs no second fit: with the hat matrix H of the fit, `y - ŷ` of the samples G of a
    recording, fitted without them, is `(I - H_GG)⁻¹(y - ŷ)_G` (Allen 1974, PRESS, for each sample alone).

    Args:
        task: one of `edgetl.choices.TASKS`.
        smoothing, recordings: as for `prototype`.
    """
    moments = _moments(batches)
    scores = _SCORES[task]
    x, y = _rows(batches, _most(HELD_OUT, moments.outputs))
    recordings = np.arange(moments.count) if recordings is None else recordings
    all_recordings, some_recordings = len(np.unique(recordings)), len(np.unique(recordings[: len(x)]))
    truth = _mixed(y, some_recordings, scores, smoothing)
    groups = _of_one_size(recordings[: len(x)])
    choices = []
    for scale in (moments.deviations, np.where(moments.deviations < np.inf, 1.0, np.inf)):
        decomposed = _decomposed(x, moments.mean, scale)
        choices.append((*_choose(decomposed, y, groups, truth, scores), scale))
        del decomposed
    del x
    _, penalty, factor, scale = min(choices, key=lambda choice: choice[0])
    # in the units of all samples the same penalty weighs less the more there are of them; windows of the same
    # recordings bring nothing new
    penalty *= some_recordings / all_recordings
    # others stand for all where more of them cannot be left out as a whole
    known = factor if all_recordings < moments.count else None
    return _fit(batches, moments, scale, penalty, scores, smoothing, known)


@dataclass(frozen=True)
class _Moments:
    """Of all samples: their number, how many outputs they have, mean features `[D]`, and their deviations.

    The deviation of a feature that is constant is infinite, so that it has no part in anything.
    """

    count: int
    outputs: int
    mean: Array
    deviations: Array
    mean_targets: Array


def _moments(batches: Batches) -> _Moments:
    count, outputs = 0, 0
    first, total, squares, targets, largest = None, *[0.0] * 4  # type: Any, Any, Any, Any, Any
    for x, y in batches():
        wide = x.astype(np.float64)
        first = wide[0] if first is None else first
        moved = wide - first  # sums of squares of large, alike numbers would lose all digits
        count, outputs = count + len(x), y.shape[1]
        total, squares = total + moved.sum(0), squares + (moved**2).sum(0)
        targets, largest = targets + y.sum(0, dtype=np.float64), np.maximum(largest, np.abs(wide).max(0))
    assert first is not None, "there is at least one sample"
    variance = np.maximum(squares / count - (total / count) ** 2, 0.0)
    deviations = np.sqrt(variance)
    return _Moments(
        count,
        outputs,
        first + total / count,
        np.where(deviations > CONSTANT * np.maximum(largest, 1e-30), deviations, np.inf),
        targets / count,
    )


def _of_one_size(recordings: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the rows of each recording, those of as many windows in one array `[recordings, windows]`."""
    order = np.argsort(recordings, kind="stable")
    _, starts, counts = np.unique(recordings[order], return_index=True, return_counts=True)
    return [order[starts[counts == size][:, None] + np.arange(size)] for size in np.unique(counts)]


def _decomposed(x: NDArray[np.float32], mean: Array, scale: Array) -> tuple[Array, Array]:
    """Return eigenvalues `[r]` of centred, scaled features' ZZᵀ, and orthonormal vectors `[m, r]`; r is m or D."""
    z = _scaled(x, mean, scale)
    z -= z.mean(0)
    # of the smaller one of ZZᵀ and ZᵀZ
    if wide := z.shape[0] <= z.shape[1]:
        z = z @ z.T
    values, vectors = np.linalg.eigh(z if wide else z.T @ z)
    values = np.maximum(values, 0.0)
    return values, vectors if wide else z @ vectors / np.sqrt(np.maximum(values, 1e-12 * max(values[-1], 1e-300)))


def _choose(
    decomposed: tuple[Array, Array], y: Array, groups: Sequence[NDArray[np.int64]], truth: Array, scores: _Scores
) -> tuple[float, float, float]:
    """Return the loss of left-out recordings, the penalty and the factor; one decomposition serves all penalties.

    Args:
        decomposed: features of `m` samples, as `_decomposed` has them.
        y, truth: their targets, `[m, K]`, and those in the loss.
        groups: rows of each recording, as `_of_one_size` has them.
    """
    values, basis = decomposed
    count, mean_y = len(y), y.mean(0)
    unit = values.sum() or 1.0
    inside, squared = basis.T @ (y - mean_y), basis**2
    best, worse = (np.inf, PENALTIES[0], 1.0), 0
    for penalty in PENALTIES:
        shrunk = values / (values + penalty * unit)
        fitted = mean_y + basis @ (shrunk[:, None] * inside)
        left_out = _left_out(y, fitted, 1 / count + squared @ shrunk)
        for rows in groups:
            if rows.shape[1] > 1:
                part = basis[rows]
                hat = 1 / count + (part * shrunk) @ part.transpose(0, 2, 1)
                solved = np.linalg.solve((1 + 1e-9) * np.eye(rows.shape[1]) - hat, (y - fitted)[rows])
                left_out[rows] = y[rows] - solved
        loss, factor = _best_factor(left_out - scores.middle, truth, scores)
        best, worse = ((loss, penalty, factor), 0) if loss < best[0] * (1 - TIE) else (best, worse + 1)
        if worse == 4:  # weaker ones only fit more closely
            break
    return best


def _fit(
    batches: Batches,
    moments: _Moments,
    scale: Array,
    penalty: float,
    scores: _Scores,
    smoothing: float,
    known: float | None,
) -> LinearHead:
    """Fit all samples; the factor is the one known, or else that of the first ones, each left out."""
    mean, mean_y, count = moments.mean, moments.mean_targets, moments.count
    used = scale < np.inf
    few = count <= len(mean)  # then there are as many equations as samples, and otherwise as features
    system, right = (_of_samples if few else _of_features)(batches, moments, scale)
    unit = float(np.trace(system)) or 1.0
    system[np.diag_indices_from(system)] += penalty * unit
    inverse = _inverted_factor(system)  # in its place
    del system
    solved = inverse.T @ (inverse @ right)
    weight = solved
    if few:
        weight = np.zeros((len(mean), len(mean_y)))
        for start, (x, _) in _numbered(batches()):
            weight += _scaled(x, mean, scale).T @ solved[start : start + len(x)]

    factor = 1.0 if known is None else known
    if scores.scaled and known is None:
        most = _most(HELD_OUT, len(mean_y))
        if few:
            truth = right[:most] + mean_y
            # y - ŷ is λ times what was solved for, and 1 - hᵢᵢ is λ times the diagonal of (ZZᵀ + λI)⁻¹
            fitted = truth - penalty * unit * solved[:most]
            leverage = 1 - penalty * unit * (inverse[:, :most] ** 2).sum(0)
        else:
            x, truth = _rows(batches, most)
            z = _scaled(x, mean, scale)
            fitted = mean_y + z @ weight
            leverage = ((z @ inverse.T) ** 2).sum(1)
        left_out = _left_out(truth, fitted, 1 / count + leverage) - scores.middle
        _, factor = _best_factor(left_out, _mixed(truth, count, scores, smoothing), scores)
    weight = np.where(used[:, None], weight / np.where(used, scale, 1.0)[:, None], 0.0)
    bias = mean_y - scores.middle - mean @ weight
    return LinearHead((factor * weight.T).astype(np.float32), (factor * bias).astype(np.float32))


def _scaled(x: NDArray[np.float32], mean: Array, scale: Array) -> Array:
    z: Array = x - mean
    z /= scale
    return z


def _of_samples(batches: Batches, moments: _Moments, scale: Array) -> tuple[Array, Array]:
    """Return ZZᵀ and the centred targets."""
    z, right = np.empty((moments.count, len(scale))), np.empty((moments.count, moments.outputs))
    for start, (x, y) in _numbered(batches()):
        rows = slice(start, start + len(x))
        z[rows], right[rows] = _scaled(x, moments.mean, scale), y - moments.mean_targets
    return z @ z.T, right


def _of_features(batches: Batches, moments: _Moments, scale: Array) -> tuple[Array, Array]:
    """Return ZᵀZ and Zᵀ times the centred targets."""
    system, right = np.zeros((len(scale), len(scale))), np.zeros((len(scale), moments.outputs))
    for x, y in batches():
        z = _scaled(x, moments.mean, scale)
        system += z.T @ z
        right += z.T @ (y - moments.mean_targets)
    return system, right


def _left_out(y: NDArray[Any], fitted: Array, leverage: Array) -> Array:
    """What the fit without each sample gives for it."""
    return np.asarray(y - (y - fitted) / np.maximum(1 - leverage, 1e-6)[:, None])


def _inverted_factor(a: Array, block: int = 64) -> Array:
    """Make of `A = LLᵀ` (Cholesky) the lower triangular L⁻¹, in place, by halves, in matrix products; return it."""
    size = len(a)
    if size <= block:
        a[:] = np.tril(np.linalg.inv(np.linalg.cholesky(a)))
        return a
    half = size // 2
    first, below, second = a[:half, :half], a[half:, :half], a[half:, half:]
    _inverted_factor(first, block)
    below[:] = below @ first.T
    second -= below @ below.T
    _inverted_factor(second, block)
    below[:] = -second @ (below @ first)
    a[:half, half:] = 0.0
    return a


def _best_factor(scores: Array, truth: Array, how: _Scores) -> tuple[float, float]:
    """Return the smallest loss and its factor; the loss is convex in the factor, so it has one minimum."""
    if not how.scaled:
        return how.loss(scores, truth), 1.0
    low, high = np.log2(FACTORS)
    inner = 2 / (1 + 5**0.5)  # golden section (Kiefer 1953)
    a, b = high - inner * (high - low), low + inner * (high - low)
    at_a, at_b = how.loss(2**a * scores, truth), how.loss(2**b * scores, truth)
    while high - low > 0.05:
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - inner * (high - low)
            at_a = how.loss(2**a * scores, truth)
        else:
            low, a, at_a = a, b, at_b
            b = low + inner * (high - low)
            at_b = how.loss(2**b * scores, truth)
    return min((at_a, float(2**a)), (at_b, float(2**b)))


def _mixed(targets: NDArray[Any], count: int, how: _Scores, smoothing: float) -> Array:
    """Smoothed targets, with `UNSEEN` samples in `count` of which nothing is known."""
    if not how.scaled:
        return np.asarray(targets, np.float64)
    known = (1 - smoothing) * count / (count + UNSEEN)
    unknown = 1 / targets.shape[1] if how.unknown is None else how.unknown
    return np.asarray(known * targets.astype(np.float64) + (1 - known) * unknown)


def _most(samples: int, outputs: int) -> int:
    return max(1, min(samples, MOST_SCORES // outputs))


def _rows(batches: Batches, most: int) -> tuple[NDArray[np.float32], Array]:
    parts = list(_first(batches, most))
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]).astype(np.float64)


def _numbered(
    parts: Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]],
) -> Iterator[tuple[int, tuple[NDArray[np.float32], NDArray[np.float32]]]]:
    start = 0
    for x, y in parts:
        yield start, (x, y)
        start += len(x)


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
    log_sums = np.log(np.exp(shifted).sum(1))
    return float((targets.sum(1) * log_sums - (targets * shifted).sum(1)).mean())


def _binary_cross_entropy(logits: Array, targets: Array) -> float:
    return float((np.logaddexp(0, logits) - targets * logits).mean())


def _squared_error(values: Array, targets: Array) -> float:
    return float(((values - targets) ** 2).mean())


_SCORES = {
    "classification": _Scores(0.0, True, None, _cross_entropy),
    "multilabel": _Scores(0.5, True, 0.5, _binary_cross_entropy),
    "regression": _Scores(0.0, False, 0.0, _squared_error),
}
