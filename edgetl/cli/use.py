"""Commands that use a deployed file."""

from __future__ import annotations

from typing import Any

import click

from edgetl.cli.options import Sections, json_option, options_of
from edgetl.cli.reporting import finish, reporting
from edgetl.deployment.settings import BenchmarkSettings, EvaluateSettings, PredictSettings
from edgetl.tasks.figures import figure


@click.command(cls=Sections)
@click.argument("model", type=click.Path())
@click.argument("data", type=click.Path())
@options_of(EvaluateSettings)
@json_option
def evaluate(model: str, data: str, as_json: bool, **options: Any) -> None:
    """Measure MODEL, a deployed file, on DATA: a folder with one folder per class, a table, or an .npz file."""
    with reporting(as_json) as display:
        import edgetl
        from edgetl.cli import outline

        result = edgetl.evaluate(model, data, on_event=display, **options)

    (metric, value), *_ = result.figures.items()
    measured = result.figures if result.loss is None else {**result.figures, "loss": result.loss}
    counted = f"{result.samples} samples" if result.correct is None else f"{result.correct} of {result.samples} samples"
    finish(
        as_json,
        result,
        f"{figure(metric, value)} ({counted} in {result.data})",
        *outline.others(measured, metric),
        *outline.per_label(result.per_label),
        f"  {result.ms_per_image:.1f} ms per sample with {result.threads} threads, "
        f"{result.peak_rss_mb:.0f} MB, {len(result.rejected)} left out",
        *outline.placements({"the model": result.placement}),
    )


@click.command(cls=Sections)
@click.argument("model", type=click.Path())
@click.argument("inputs", nargs=-1, required=True, type=click.Path(), metavar="INPUT...")
@options_of(PredictSettings)
@json_option
def predict(model: str, inputs: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Predict the class or numbers of each INPUT with MODEL: files, folders of them, tables, .npz files, or texts."""
    with reporting(as_json) as display:
        import edgetl
        from edgetl.cli import outline

        results = edgetl.predict(model, inputs, on_event=display, **options)
    finish(as_json, {"model": model, "predictions": results}, *map(outline.prediction, results))


@click.command(cls=Sections)
@click.argument("model", type=click.Path())
@options_of(BenchmarkSettings)
@json_option
def benchmark(model: str, as_json: bool, **options: Any) -> None:
    """Measure how long MODEL, any ONNX file, takes to load and to answer here, and its memory."""
    with reporting(as_json):
        import edgetl
        from edgetl.cli import outline
        from edgetl.cli.console import table

        result = edgetl.benchmark(model, **options)
    heads, rows = outline.timings_table(result)
    finish(
        as_json,
        result,
        f"{result.model}: {result.size_mb:.1f} MB, loads in {result.load_ms:.0f} ms, first answer in "
        f"{result.first_ms:.1f} ms",
        f"  {result.peak_rss_mb:.0f} MB at most, of which {result.base_rss_mb:.0f} MB without the model; "
        f"{result.threads} threads, {result.onnxruntime}",
        f"  given {', '.join(result.inputs)}",
        *outline.placements({"the model": result.placement}),
        *table(heads, rows),
    )
