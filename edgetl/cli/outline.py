"""Results as lines for people, for the command line to print."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgetl.errors import visible
from edgetl.tasks.figures import called, figure, leading, shown

if TYPE_CHECKING:
    from edgetl.deployment.benchmarking import Benchmark
    from edgetl.deployment.deployed import Prediction
    from edgetl.device.planning import Plan
    from edgetl.device.profile import Device
    from edgetl.runs.compare import RunSummary
    from edgetl.runs.report.write import ReportResult


def prediction(item: Prediction) -> str:
    """A prediction on one line: the input, the window's time, and what it is."""
    where = "" if item.start is None or item.end is None else f" {item.start:.2f} to {item.end:.2f} s"
    return f"{item.input}{where}: {told(item)}{' (silent)' if item.silent else ''}"


def told(item: Prediction) -> str:
    """A prediction for people: numbers, or classes with their probabilities; a mark on labels that it gives."""
    if item.values:
        return ", ".join(f"{name} {value:.6g}" for name, value in item.values.items())
    given = item.labels if len(item.labels) != 1 or item.labels[0] != item.top[0][0] else ()
    return ", ".join(f"{label}{'*' if label in given else ''} {p:.1%}" for label, p in item.top)


def others(figures: dict[str, float | None], metric: str) -> Iterator[str]:
    """The figures beside the one that decides, on one line."""
    if rest := [figure(name, value) for name, value in figures.items() if name != metric]:
        yield f"  {', '.join(rest)}"


def per_label(figures: dict[str, dict[str, float | None]]) -> Iterator[str]:
    """A line for each class or label, with a bar for its recall; or for each of several numbers."""
    shown_names = [visible(name) for name in figures]
    width = max(map(len, shown_names))
    for name, found in zip(shown_names, figures.values(), strict=True):
        if "recall" in found:
            recall = found["recall"]
            bar = "no samples" if recall is None else f"{recall:6.1%}  {'█' * round(20 * recall)}"
            yield f"  {name:<{width}}  {bar}"
        elif len(figures) > 1:
            yield f"  {name:<{width}}  {', '.join(figure(metric, value) for metric, value in found.items())}"


def placements(placement: dict[str, dict[str, float]]) -> Iterator[str]:
    """Say what ran where, unless the CPU ran everything."""
    if {name for shares in placement.values() for name in shares} <= {"CPUExecutionProvider"}:
        return
    for what, shares in placement.items():
        listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        yield f"  {what} ran on: {listed} of the time" if shares else f"  {what} did not have to run"


def report_lines(result: ReportResult) -> Iterator[str]:
    """Where a report lies, and what it says first."""
    yield f"{result.report} is ready: {result.size_kb:.0f} kB, in {result.seconds:.1f} s"
    name = result.metric
    if not result.finished:
        yield "  the run is not finished: 'edgetl finetune … --resume' goes on"
    if result.figures:
        before = f"{shown(name, result.figures_before.get(name))} before, " if result.figures_before else ""
        yield (
            f"  validation {called(name)} {before}{shown(name, result.figures.get(name))}"
            f"{'' if result.finished else ' so far'}"
        )
    for plot in result.plots:
        yield f"  {plot}"


def timings_table(found: Benchmark) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Heads and rows for `console.table`."""
    rows = [
        (f"{t.batch}", t.how, f"{t.median_ms:.1f}", f"{t.p95_ms:.1f}", f"{t.per_second:.1f}", f"{t.calls}")
        for t in found.timings
    ]
    return (">at once", "as", ">median ms", ">p95 ms", ">per second", ">measured"), rows


def devices_table(found: Mapping[str, Device]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Heads and rows for `console.table`."""
    rows = [
        (
            name,
            device.title,
            device.architecture,
            f"{device.cores}",
            f"{device.memory_mb:,.0f}",
            f"{device.training_memory_mb:,.0f}",
            ", ".join(device.engines) or "-",
            ", ".join(provider.name for provider in device.providers),
        )
        for name, device in found.items()
    ]
    return ("name", "device", "architecture", ">cores", ">memory MB", ">to train", "engines", "providers"), rows


def device(found: Device) -> Iterator[str]:
    """A profile, each figure with its source."""
    for field in dataclasses.fields(found):
        if field.name == "sources":
            continue
        value = getattr(found, field.name)
        if field.name == "providers":
            value = [f"{item.name} ({item.package or 'no package'})" for item in value]
        yield f"{field.name}: {_short(list(value) if isinstance(value, tuple) else value)}"
        yield f"    {found.sources[field.name]}"


def plan_lines(found: Plan) -> Iterator[str]:
    """Whether a job fits a device, and how, or why not."""
    if found.fits:
        parts = "" if found.micro_batch >= found.batch_size else f", {found.micro_batch} at once"
        yield (
            f"{found.artifacts} fits {found.title}: {found.engine}, {found.threads} threads, "
            f"batches of {found.batch_size}{parts}"
        )
    else:
        yield f"{found.artifacts} does not fit {found.title}:"
        for problem in found.problems:
            yield f"  {problem}"
    if found.deploy_precision != "float32":
        yield f"  deploy for it with --precision {found.deploy_precision}"
    if found.memory is not None:
        yield (
            f"  memory: {found.memory.features_mb:,.0f} MB to compute features, {found.memory.training_mb:,.0f} MB to "
            f"train, of {found.budget_mb:,.0f} MB; at most {found.largest_micro_batch} samples fit at once"
        )
        if found.pictures is not None:
            width, height = found.pictures
            yield f"  that is with photographs of {width}×{height} pixels, one on each thread"
    if found.disk_mb is not None and found.cache_mb is not None:
        yield (
            f"  disk: {found.disk_mb:,.0f} MB of {found.storage_mb:,.0f}, of which {found.cache_mb:,.0f} MB features "
            f"of {found.images:,} samples"
        )


def runs_table(found: Sequence[RunSummary]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Heads and rows for `console.table`; `>` before a head aligns its column to the right."""
    heads = (
        "run",
        "model",
        "trains",
        "validation",
        ">loss",
        ">best",
        ">epochs",
        ">samples",
        ">lr",
        "engine",
        ">seconds",
    )

    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    rows = [
        (
            run.name,
            run.model,
            ", ".join(run.policy) or "-",
            figure(lead, run.val_figures[lead]) if (lead := leading(run.task, run.metric)) in run.val_figures else "-",
            number(run.val_loss, ".4f"),
            number(run.best_epoch, "d"),
            f"{run.epochs}" if run.finished else f"{run.epochs} of {run.planned_epochs}",
            f"{number(run.train_samples, 'd')}+{number(run.val_samples, 'd')}",
            f"{run.lr:g}",
            run.engine,
            number(run.seconds, ".1f"),
        )
        for run in found
    ]
    return heads, rows


def artifacts(found: dict[str, Any]) -> Iterator[str]:
    """A prepared directory: what it is, what trains, the boundary, and a line for every parameter."""
    yield from plain({k: v for k, v in found.items() if k not in ("trainable", "frozen", "features", "files")})
    yield "boundary, for one sample:"
    for spec in found["features"]:
        size = 4 * math.prod(spec["shape"])
        yield f"  {spec['name']}  {spec['shape']}  {size / 1e3:,.1f} kB"
    for name, title in (("backbone", "frozen"), ("trainable", "trainable")):
        count = sum(math.prod(spec["shape"]) for spec in found[title])
        yield f"{name}: {count:,} {title} parameters, {found[f'{name}_macs'] / 1e6:,.1f} million multiply-accumulates"
    yield "parameters (* trains):"
    for mark, title in ((" ", "frozen"), ("*", "trainable")):
        for spec in found[title]:
            yield f" {mark} {spec['name']}  {spec['shape']}"
    yield "files:"
    for file, entry in found["files"].items():
        yield f"  {file}  {entry['bytes']:,} bytes  {entry['sha256'][:12]}"


def plain(value: Any, indent: int = 0) -> Iterator[str]:
    """Nested plain values as indented lines; long lists of numbers or records are cut."""
    for key, item in value.items():
        pad = "  " * indent
        if isinstance(item, dict):
            yield f"{pad}{key}:"
            yield from plain(item, indent + 1)
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            yield f"{pad}{key}:"
            for entry in item[-10:]:
                yield f"{pad}  " + "  ".join(f"{k}={_short(v)}" for k, v in entry.items())
        else:
            yield f"{pad}{key}: {_short(item)}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
