"""The command that trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgetl.cli.options import Sections, json_option, options_of
from edgetl.cli.reporting import finish, how_to_resume, reporting
from edgetl.errors import command
from edgetl.tasks.figures import figure
from edgetl.training.settings import FinetuneSettings

if TYPE_CHECKING:
    from edgetl.training.finetune import FinetuneResult


@click.command(cls=Sections)
@click.argument("artifacts", type=click.Path())
@click.argument("data", type=click.Path())
@options_of(FinetuneSettings)
@json_option
def finetune(artifacts: str, data: str, as_json: bool, **options: Any) -> None:
    """Train ARTIFACTS on DATA: a folder with one folder per class, a table, or an .npz file (no PyTorch needed)."""
    if options["resume"] and options["force"]:
        raise click.UsageError("--resume continues a run and --force replaces it: give one of them.")
    with reporting(as_json, interrupted=lambda display: how_to_resume(options["out"], display)) as display:
        import edgetl
        from edgetl.cli import outline

        result = edgetl.finetune(artifacts, data, on_event=display, **options)

    validated = f"validation {figure(result.metric, result.val_metric)}" if result.val_samples else "no validation data"
    speed = (
        "all from the cache" if result.feature_ms_per_image is None else f"{result.feature_ms_per_image:.1f} ms each"
    )
    finish(
        as_json,
        result,
        f"{validated} (best epoch {result.best_epoch} of {result.epochs}), "
        f"in {result.seconds:.1f} s and {result.peak_rss_mb:.0f} MB",
        *outline.others(result.val_figures, result.metric),
        f"  {result.train_samples} samples to train and {result.val_samples} to validate, "
        f"{len(result.rejected)} left out; learning rate {result.lr:g}",
        *([f"  to deploy: {_last_fit(result)}"] if result.refit else []),
        f"  features {result.feature_seconds:.1f} s ({speed}), training {result.training_seconds:.1f} s, "
        f"engine {result.engine}",
        *outline.placements(result.placement),
        f"  the run lies in {result.run}; look at its report.html",
        f"next: {command('deploy', result.run, '--out', 'model.onnx')}",
    )


def _last_fit(result: FinetuneResult) -> str:
    everything = f"all {result.train_samples + result.val_samples} samples"
    if result.best_epoch == 0:
        return f"the head as it begins, computed from {everything}"
    return f"trained again, on {everything}, for {result.best_epoch} epoch{'s' if result.best_epoch > 1 else ''}"
