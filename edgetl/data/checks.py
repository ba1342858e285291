"""What is odd about labelled samples, in sentences for people: labels that contradict each other, and missing ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.data.sample import listed, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHOWN = 3

_HUGE = 1e4
"""Times the usual size of columns from which on one is far larger than the others."""


def groups_at_odds(keys: NDArray[Any], labels: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Yield for each key whose samples have more than one label the first sample and the first with another label.

    Args:
        keys: `[N]`, of any type that can be sorted.
        labels: `[N]` or `[N, K]`.
    """
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    ends = np.cumsum(counts)
    for end, count in zip(ends[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True):
        members = order[end - count : end]
        differ = (labels[members] != labels[members[0]]).reshape(count, -1).any(axis=1)
        if differ.any():
            yield int(members[0]), int(members[differ.argmax()])


def contradictions(
    digests: Sequence[bytes], labels: NDArray[Any], names: Sequence[str], name_of: Callable[[int], str]
) -> str | None:
    """Say which samples have the same content and another label; None if none have.

    Args:
        digests: hashes of the samples' contents, of one length.
        labels: `[N]` class indices, or `[N, K]` numbers.
        names: of the classes, labels or numbers.
        name_of: what a sample is called, by its index.
    """
    pairs = list(groups_at_odds(np.array(digests, f"V{len(digests[0])}") if len(digests) else np.empty(0), labels))
    if not pairs:
        return None
    told = "; ".join(
        f"{name_of(first)} is {_label(labels[first], names)}, and {name_of(other)} is {_label(labels[other], names)}"
        for first, other in pairs[:_SHOWN]
    )
    more = f"; and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    contents = "1 content has" if len(pairs) == 1 else f"{len(pairs)} contents have"
    return f"{contents} more than one label, which contradict each other: {told}{more}"


def odd_columns(smallest: NDArray[Any], largest: NDArray[Any], names: Sequence[str]) -> Iterator[str]:
    """Say which columns of numbers never vary, and which are far larger than the others.

    Args:
        smallest, largest: of each column, `[D]`.
        names: of the columns; empty for those that have none.
    """
    sizes = np.maximum(np.abs(smallest), np.abs(largest)).astype(np.float64)
    called = names if len(names) == len(sizes) else [f"{index + 1}" for index in range(len(sizes))]
    usual = float(np.median(sizes[sizes > 0])) if sizes.any() else 0.0
    is_huge = sizes > _HUGE * usual
    constant = [called[index] for index in np.flatnonzero((largest - smallest <= 1e-6 * sizes) & ~is_huge).tolist()]
    if 0 < len(constant) < len(sizes):
        verbs = ("varies", "tells") if len(constant) == 1 else ("vary", "tell")
        yield f"{_columns(constant)} {verbs[0]} in no training sample, and {verbs[1]} nothing"
    if huge := [called[index] for index in np.flatnonzero(is_huge).tolist()]:
        verb = "is" if len(huge) == 1 else "are"
        yield (
            f"{_columns(huge)} {verb} up to {sizes.max():.3g} large where numbers of other columns are around "
            f"{usual:.3g}: scale such columns, or leave out what counts up (times, serial numbers)"
        )


def _columns(names: Sequence[str]) -> str:
    return f"the column{'s' if len(names) > 1 else ''} {listed(names)}"


def _label(label: Any, names: Sequence[str]) -> str:
    if np.ndim(label) == 0:
        return shown(names[int(label)])
    return ", ".join(f"{name} {value:g}" for name, value in zip(names, label.tolist(), strict=True))


def missing(names: Sequence[str], labels: NDArray[Any], what: str) -> str | None:
    """Say which classes or labels no sample has; None if each has some.

    Args:
        labels: `[N]` class indices, or `[N, K]` of 0 and 1.
        what: the samples, such as `validation sample`.
    """
    counts = np.bincount(labels, minlength=len(names)) if labels.ndim == 1 else labels.sum(axis=0)
    lacking = [name for name, count in zip(names, counts.tolist(), strict=True) if not count]
    if not lacking:
        return None
    them = "it is" if len(lacking) == 1 else "they are"
    return f"there is no {what} of {listed(lacking)}, so how well {them} recognised is not measured"
