"""write_report(): the page and the pictures that a person looks at after a run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from edgetl.errors import command
from edgetl.events import Note, OnEvent, ignore
from edgetl.files import storage
from edgetl.runs.report.charts import confusion, curves
from edgetl.runs.report.findings import Findings, gather
from edgetl.runs.report.page import page
from edgetl.runs.report.png import png
from edgetl.runs.run import CONFUSION, CURVES, REPORT, EpochResult, Run


@dataclass(frozen=True)
class ReportResult:
    """What was written, and what it says in short.

    Attributes:
        report: the page.
        plots: the PNG files, as far as there is something to draw.
        size_kb: of the page, 10^3 bytes.
        metric: the figure that matters most.
        figures_before, figures: before the first step and of the best epoch, on the validation data;
            empty where that was not measured.
        mistakes: validation samples whose class was not recognised; None where that was not measured.
        pictures: how many of them the page shows.
    """

    run: str
    report: str
    plots: tuple[str, ...]
    size_kb: float
    finished: bool
    metric: str
    figures_before: dict[str, float | None]
    figures: dict[str, float | None]
    mistakes: int | None
    pictures: int
    seconds: float


def write_report(run: str | Path, *, on_event: OnEvent = ignore) -> ReportResult:
    """Write `report.html`, `curves.png` and `confusion_matrix.png` into a run, finished or not.

    The page needs nothing but a browser. The plots need FreeType, which Pillow's own wheels have; without it
    they are left out and `on_event` is told so.

    Raises:
        RunError: it is no run, or a file of it is damaged.
        OSError: the page cannot be written.
    """
    started = time.monotonic()
    findings = gather(Run(Path(run)))
    html, pictures = page(findings)
    target = findings.path / REPORT
    encoded = html.encode("utf-8")
    storage.write_bytes(target, encoded)
    for name in (CURVES, CONFUSION):  # whatever lies beside the page agrees with it
        (findings.path / name).unlink(missing_ok=True)
    plots = _plots_or_note(findings, on_event)
    return ReportResult(
        run=str(findings.path),
        report=str(target),
        plots=tuple(map(str, plots)),
        size_kb=len(encoded) / 1e3,
        finished=findings.finished,
        metric=findings.lead,
        figures_before=_known(findings.before),
        figures=_known(findings.best),
        mistakes=findings.measured.wrong if findings.measured else None,
        pictures=pictures,
        seconds=time.monotonic() - started,
    )


def _known(result: EpochResult | None) -> dict[str, float | None]:
    return result.val_figures if result is not None and result.val_loss is not None else {}


def _plots_or_note(findings: Findings, on_event: OnEvent) -> tuple[Path, ...]:
    try:
        matrix = confusion(findings)
        drawings = {CURVES: curves(findings), CONFUSION: () if matrix is None else (matrix,)}
        encoded = {name: png(charts) for name, charts in drawings.items() if charts}
    except Exception as error:  # not even a fault of ours may cost the page
        why = "Pillow has no FreeType here" if isinstance(error, ImportError) else "drawing them failed"
        on_event(Note(f"{CURVES} and {CONFUSION} were left out, because {why} ({error or type(error).__name__})"))
        return ()
    for name, data in encoded.items():
        storage.write_bytes(findings.path / name, data)
    return tuple(findings.path / name for name in encoded)


def report_or_note(run: Run, on_event: OnEvent) -> None:
    """Write the report of a run that has just ended; whatever goes wrong is told and does not take the run down."""
    try:
        write_report(run.path, on_event=on_event)
    except Exception as error:  # not even a fault of ours may cost hours of training their result
        on_event(
            Note(f"no report was written ({error or type(error).__name__}): {command('report', run.path)} tries again")
        )


__all__ = ["ReportResult", "report_or_note", "write_report"]
