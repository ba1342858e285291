"""The same curves and matrix as PNG files, for slides and papers; matplotlib is imported when it is used."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl import storage
from edgetl.errors import visible
from edgetl.figures import is_share
from edgetl.report.findings import Findings, Measured
from edgetl.report.page import MATRIX_CLASSES
from edgetl.report.text import axis_percent, figure_text, percent, titled
from edgetl.run import CONFUSION, CURVES, EpochResult

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

INSTALL_HINT = "pip install 'edgetl[report]'"

_DPI = 150
_ACCENT, _SECOND, _INK, _MUTED, _GRID = "#2457d0", "#b4510a", "#1d1c1a", "#66625c", "#ecebe7"
_STYLE: dict[Any, Any] = {
    "text.usetex": False,  # a class may be named $x
    "text.parse_math": False,
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": "#c9c6c0",
    "axes.labelcolor": _MUTED,
    "axes.titlecolor": _INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": _GRID,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "legend.frameon": False,
}


def write_plots(findings: Findings) -> tuple[Path, ...]:
    """Write `curves.png` and `confusion_matrix.png` into the run, as far as there is something to draw.

    Returns:
        The files.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: they cannot be written.
    """
    written = []
    with _style():
        if findings.results:
            figure = _curves(findings.results, findings.best, findings.lead)
            written.append(_save(figure, findings.path / CURVES))
        if findings.measured and findings.measured.matrix is not None:
            figure = _matrix(findings.measured, findings.measured.matrix, findings.args.labels)
            written.append(_save(figure, findings.path / CONFUSION))
    return tuple(written)


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # characters of names that the font lacks become boxes
        yield


def _save(figure: Figure, path: Path) -> Path:
    with storage.written_aside(path) as aside:
        # tight: names of any length make the picture larger and not the matrix smaller
        figure.savefig(aside, format="png", dpi=_DPI, bbox_inches="tight", pad_inches=0.15)
    return path


def _curves(results: Sequence[EpochResult], best: EpochResult | None, lead: str) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    reached = [(result.epoch, result.val_figures.get(lead)) for result in results]
    is_measured = any(value is not None for _, value in reached)
    figure = Figure(figsize=(9.6 if is_measured else 5, 3.4), layout="constrained", facecolor="white")
    axes = list(figure.subplots(1, 2 if is_measured else 1, squeeze=False)[0])
    train = [(result.epoch, result.train_loss) for result in results]
    val = [(result.epoch, result.val_loss) for result in results]
    _line(axes[-1], train, label="training", color=_SECOND, linestyle=(0, (4, 2.5)))
    _line(axes[-1], val, label="validation", color=_ACCENT, linestyle="solid")
    axes[-1].set_title("Loss")
    axes[-1].set_ylim(bottom=0)
    if axes[-1].lines:
        axes[-1].legend()
    if is_measured:
        _line(axes[0], reached, label="validation", color=_ACCENT)
        axes[0].set_title(titled(lead))
        if is_share(lead):
            axes[0].yaxis.set_major_formatter(lambda value, _: axis_percent(value))
        at_best = best.val_figures.get(lead) if best else None
        if best is not None and at_best is not None:
            axes[0].plot(best.epoch, at_best, "o", markersize=9, fillstyle="none", color=_ACCENT)
            axes[0].set_title(
                f"best {figure_text(lead, at_best)}, epoch {best.epoch}", loc="right", color=_MUTED, weight="normal"
            )
    for each in axes:
        each.set_xlabel("epoch")
        each.grid(axis="y")
        each.set_axisbelow(True)
        each.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if len(results) == 1:
            each.set_xlim(results[0].epoch - 1, results[0].epoch + 1)
    return figure


def _line(axes: Axes, points: Sequence[tuple[int, float | None]], **style: Any) -> None:
    known = [(epoch, value) for epoch, value in points if value is not None]
    if known:
        marker = "o" if len(known) <= 60 else ""
        axes.plot(*zip(*known, strict=True), marker=marker, markersize=3.5, linewidth=1.7, **style)


def _matrix(measured: Measured, counts: NDArray[np.int64], labels: Sequence[str]) -> Figure:
    import numpy as np
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    classes = len(labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    named = classes <= MATRIX_CLASSES
    side = max(2.2, 0.36 * classes) if named else 7
    figure = Figure(figsize=(side, side), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    # where single fields are too small to be read, a few mistakes should still be seen
    norm = PowerNorm(1 if named else 0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(f"Confusion matrix, accuracy {percent(measured.summary.accuracy)}", pad=10)
    axes.set_xlabel("predicted" if named else "predicted class, by its number from 0")
    axes.set_ylabel("true" if named else "true class, by its number from 0")
    strip = axes.inset_axes((1 + 0.15 / side, 0, 0.14 / side, 1))
    bar = figure.colorbar(image, cax=strip, label="share of the true class")
    bar.ax.yaxis.set_major_formatter(lambda value, _: axis_percent(value))
    bar.outline.set_visible(False)
    if not named:
        return figure
    names = [_short(label) for label in labels]
    axes.set_xticks(range(classes), names, rotation=90 if classes > 4 or max(map(len, names)) > 8 else 0)
    axes.set_yticks(range(classes), names)
    axes.tick_params(length=0)
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.55 else _INK
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=9)
    return figure


def _short(label: str, limit: int = 18) -> str:
    printable = visible(label)
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"
