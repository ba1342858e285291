"""The command that trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgetl import choices, defaults
from edgetl.cli.options import (
    decode_option,
    device_option,
    input_option,
    json_option,
    label_option,
    memory_option,
    number,
    number_or,
    numbers,
    provider_options,
    threads_option,
    window_options,
)
from edgetl.cli.reporting import finish, how_to_resume, reporting
from edgetl.errors import command
from edgetl.tasks.figures import figure, metrics_of

if TYPE_CHECKING:
    from edgetl.training.finetune import FinetuneResult


@click.command()
@click.argument("artifacts", type=click.Path())
@click.argument("data", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="Run directory to write.")
@click.option(
    "--val", type=click.Path(), metavar="DATA", help="Validation data; else val/ or test/ of DATA, else --val-fraction."
)
@click.option(
    "--val-fraction",
    type=number("val_fraction"),
    default=defaults.VAL_FRACTION,
    show_default=True,
    help="Share of each class kept for validation.",
)
@click.option(
    "--keep-test",
    is_flag=True,
    help="Leave test/ of DATA alone, for edgetl evaluate; without val/, --val-fraction validates.",
)
@click.option("--epochs", type=number("epochs"), default=defaults.EPOCHS, show_default=True)
@click.option(
    "--batch-size",
    type=number("batch_size"),
    help=f"Samples of a step.  [default: {defaults.BATCH_SIZE}, or the device's]",
)
@click.option(
    "--lr",
    default=defaults.RATE,
    show_default=True,
    metavar="RATE|auto|search",
    callback=number_or("lr", {word: word for word in choices.RATES}),
    help="Largest learning rate. auto chooses it for what trains: a head alone, or pretrained layers as well. search "
    "tries several on the training samples.",
)
@click.option(
    "--init",
    type=click.Choice(choices.INITIALIZATIONS),
    default=defaults.INIT,
    show_default=True,
    help="How a new head begins: at zero, or in closed form from the features.",
)
@click.option(
    "--schedule",
    type=click.Choice(choices.AUTO_SCHEDULES),
    default=defaults.SCHEDULE,
    show_default=True,
    help="How the learning rate changes. auto is constant for a head alone, and linear where pretrained layers train.",
)
@click.option(
    "--warmup",
    type=number("warmup"),
    help="Share of all steps over which the rate rises.  [default: 0.1 where pretrained layers train, otherwise 0]",
)
@click.option(
    "--metric",
    type=click.Choice(list(dict.fromkeys(name for task in choices.TASKS for name in metrics_of(task)))),
    help="By what the best epoch is chosen.  [default: accuracy, macro_f1 or r2, by the task]",
)
@click.option(
    "--refit/--no-refit",
    default=None,
    help="Train again on all samples, those that validated included, for as many epochs as were best.  [default: for a "
    f"head alone, or fewer than {defaults.REFIT_BELOW} samples, unless validation data are given]",
)
@click.option("--patience", type=number("patience"), help="Stop after so many epochs without a better one.")
@click.option("--label-smoothing", type=number("label_smoothing"), default=0.0, show_default=True)
@click.option("--class-weights", type=click.Choice(choices.CLASS_WEIGHTS), help="Let every class count alike.")
@click.option(
    "--augment",
    type=click.Choice(choices.STRENGTHS),
    help="Train on other views of each sample, too; they are cached.",
)
@click.option(
    "--views", type=number("views"), default=defaults.VIEWS, show_default=True, help="Views that --augment makes."
)
@click.option("--flip/--no-flip", default=True, show_default=True, help="Whether views of pictures may be mirrored.")
@click.option(
    "--cache-precision",
    type=click.Choice(choices.CACHE_PRECISIONS),
    help="float16 halves the cache and rounds the features.  [default: float32, or the device's]",
)
@click.option(
    "--pixel-range",
    metavar="LOW,HIGH",
    callback=lambda _, __, text: numbers(text, "--pixel-range"),
    help="Of pictures of more than 8 bits: the values that become black and white, such as 0,1023.  [default: found in "
    "the training samples]",
)
@click.option(
    "--seed",
    type=number("seed"),
    default=defaults.SEED,
    show_default=True,
    help="Of the split and of the order of samples.",
)
@click.option("--resume", is_flag=True, help="Continue the run at --out, with the result of an uninterrupted one.")
@click.option("--force", is_flag=True, help="Replace the run at --out.")
@click.option("--engine", type=click.Choice(choices.ENGINES), default="auto", show_default=True)
@click.option("--optimizer", type=click.Choice(choices.OPTIMIZERS), default="adamw", show_default=True)
@click.option(
    "--momentum",
    type=number("momentum"),
    default=defaults.SGD_MOMENTUM,
    show_default=True,
    help="Of --optimizer sgd.",
)
@click.option(
    "--weight-decay",
    type=number("weight_decay"),
    default=defaults.WEIGHT_DECAY,
    show_default=True,
    help="Decoupled from the gradient, in both optimizers.",
)
@click.option(
    "--clip-norm",
    type=number("clip_norm"),
    help="Largest norm of a step's gradients; longer ones are scaled down.  [default: no limit]",
)
@click.option(
    "--micro-batch",
    default="auto",
    show_default=True,
    metavar="auto|N",
    callback=number_or("micro_batch", {"auto": None}),
    help="Samples computed at once; their gradients are added up over a batch, which is the same step in less memory.",
)
@label_option
@input_option
@window_options
@provider_options
@click.option(
    "--cache", type=click.Path(), metavar="DIR", help="Where features are kept.  [default: the user's cache folder]"
)
@decode_option(defaults.DECODE)
@threads_option
@device_option
@memory_option
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
