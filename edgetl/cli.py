"""The command line: parse, call one function, print. Heavy imports happen inside the commands."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgetl import __version__, choices, defaults
from edgetl.errors import EdgetlError
from edgetl.figures import figure, metrics_of

if TYPE_CHECKING:
    from edgetl.console import Display

F = TypeVar("F", bound=Callable[..., Any])

_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
_threads_option = click.option(
    "--threads", type=click.IntRange(min=1), default=None, help="Cores to use.  [default: all available]"
)


def _column_option(name: str, what: str) -> Callable[[F], F]:
    return click.option(
        f"--{name}-column",
        multiple=True,
        metavar="NAME[,NAME]",
        callback=lambda _, __, items: tuple(name.strip() for item in items for name in item.split(",") if name.strip()),
        help=f"Of a table: the column of {what}, where it has another name than usual. Repeatable.",
    )


_label_option = _column_option("label", "the labels or numbers to learn")
_input_option = _column_option("input", "paths, texts or numbers")


def _provider_options(command: F) -> F:
    for option in reversed(
        (
            click.option(
                "--provider",
                default="cpu",
                show_default=True,
                metavar="NAME",
                help="ONNX Runtime's execution provider: cpu, openvino, cuda, webgpu, coreml, qnn, ...",
            ),
            click.option(
                "--provider-option",
                "provider_options",
                multiple=True,
                metavar="KEY=VALUE",
                callback=lambda _, option, items: dict(_text_pair(item, option.opts[0]) for item in items),
                help="Option of the provider. Repeatable.",
            ),
            click.option(
                "--allow-fallback", is_flag=True, help="Use the CPU where the provider is missing or refuses."
            ),
        )
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgetl")
def main() -> None:
    """Transfer learning on the edge: prepare with PyTorch, fine-tune and deploy without it."""


@main.command()
@click.argument("source")
@click.option("--out", required=True, type=click.Path(), help="Directory to write.")
@click.option("--labels", help="Class names, separated by commas.")
@click.option("--labels-from", type=click.Path(), metavar="DATA", help="Data that name the classes.")
@_label_option
@click.option(
    "--classes",
    type=click.IntRange(min=1),
    help="Number of classes, labels or numbers; finetune takes the names from its data.",
)
@click.option("--weights", type=click.Path(), metavar="FILE", help="Weights: .safetensors, or a .pt/.pth state dict.")
@click.option(
    "--model-arg",
    "model_args",
    multiple=True,
    metavar="KEY=VALUE",
    help="Argument for the model's constructor. Repeatable.",
)
@click.option(
    "--train",
    multiple=True,
    default=("head",),
    show_default=True,
    metavar="POLICY",
    help="Share of the network that trains: head, last:K, all, bias, norm, or a glob over parameter names. Repeatable.",
)
@click.option("--head", metavar="NAME", help="The classifier's name, where the network alone does not tell.")
@click.option("--size", type=click.IntRange(min=1), help="Input height and width in pixels.  [default: the model's]")
@click.option(
    "--resize",
    type=click.Choice(["crop", "squash", "squash_crop"]),
    help="Scale the shorter side and crop the centre; scale both sides; or do that and crop.  [default: the model's]",
)
@click.option(
    "--crop-pct",
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Share of the resized picture that the crop keeps.  [default: the model's]",
)
@click.option(
    "--interpolation",
    type=click.Choice(["bilinear", "bicubic", "nearest"]),
    help="How pictures are resized.  [default: the model's]",
)
@click.option("--mean", metavar="M[,M,M]", help="Mean per channel, for values in 0..1.  [default: the model's]")
@click.option("--std", metavar="S[,S,S]", help="Standard deviation per channel.  [default: the model's]")
@click.option(
    "--channel-order",
    type=click.Choice(["rgb", "bgr"]),
    help="Order in which the network takes colours.  [default: the model's]",
)
@click.option(
    "--modality",
    type=click.Choice(choices.MODALITIES),
    help="What a sample is: a picture, a recording (the network gets its log-mel spectrogram), a text, or numbers.  "
    "[default: text for a language model of hf:, else image]",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=4),
    metavar="N",
    help=f"Most tokens of a text.  [default: {defaults.MAX_LENGTH}, or what the network takes]",
)
@click.option("--dynamic-length", is_flag=True, help="Texts keep their own length, instead of being filled up.")
@click.option("--input-shape", metavar="N[,N]", help="Of --modality array: the shape of one sample.")
@click.option(
    "--audio-arg",
    "audio",
    multiple=True,
    metavar="KEY=VALUE",
    help="Of --modality audio: sample_rate, seconds, n_fft, hop_length, mels, ... (docs/data.md). Repeatable.",
)
@click.option(
    "--task",
    type=click.Choice(list(choices.TASKS)),
    default="classification",
    show_default=True,
    help="One class each; any number of classes; or numbers.",
)
@click.option(
    "--loss",
    type=click.Choice(choices.LOSSES),
    help="What is minimised.  [default: the task's]",
)
@click.option("--force", is_flag=True, help="Replace a prepared directory at --out.")
@_json_option
def prepare(source: str, as_json: bool, **options: Any) -> None:
    """Make a trainable directory from a pretrained classifier (needs PyTorch).

    SOURCE is timm:NAME, torchvision:NAME[@WEIGHTS], hf:ID_OR_DIR, FILE.py:callable or
    module:callable returning an nn.Module, or a file MODEL.onnx, PROGRAM.pt2 or MODEL.keras.
    """
    labels, label_column = options.pop("labels"), options.pop("label_column")
    if sum(value is not None for value in (labels, options["labels_from"], options["classes"])) != 1:
        raise click.UsageError("Give exactly one of --labels, --labels-from and --classes.")
    names = ("size", "resize", "crop_pct", "interpolation", "mean", "std", "channel_order")
    preprocessing = {name: options.pop(name) for name in names}
    for name in ("mean", "std"):
        preprocessing[name] = _numbers(preprocessing[name], f"--{name}")
    options["model_args"] = dict(_key_value(item, "--model-arg") for item in options["model_args"])
    options["audio"] = dict(_key_value(item, "--audio-arg") for item in options["audio"])
    if options["input_shape"] is not None:
        options["input_shape"] = _numbers(options["input_shape"], "--input-shape", int)

    with _reporting(as_json) as display:
        import edgetl
        from edgetl.targets import OUTPUTS_ARE

        result = edgetl.prepare(
            source,
            labels=None if labels is None else labels.split(","),
            label_column=label_column,
            preprocessing=preprocessing,
            on_event=display,
            **options,
        )
    shapes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in result.features)
    _finish(
        as_json,
        result,
        f"{result.artifacts} is ready: {result.outputs} {OUTPUTS_ARE[result.task]}, "
        f"{result.size_mb:.1f} MB, in {result.seconds:.0f} s",
        f"  trains {result.trainable_parameters:,} parameters; {result.frozen_parameters:,} are frozen",
        f"  {result.trainable_macs / 1e6:,.1f} million multiply-accumulates behind the boundary, "
        f"{result.backbone_macs / 1e6:,.1f} before it",
        f"  features per sample: {shapes} ({result.feature_kb_per_image:.1f} kB)",
        f"next: edgetl finetune {result.artifacts} DATA --out runs/{Path(result.artifacts).name}",
    )


@main.command()
@click.argument("artifacts", type=click.Path())
@click.argument("data", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="Run directory to write.")
@click.option(
    "--val", type=click.Path(), metavar="DATA", help="Validation data; else val/ or test/ of DATA, else --val-fraction."
)
@click.option(
    "--val-fraction",
    type=click.FloatRange(min=0, max=1, max_open=True),
    default=defaults.VAL_FRACTION,
    show_default=True,
    help="Share of each class kept for validation.",
)
@click.option("--epochs", type=click.IntRange(min=0), default=defaults.EPOCHS, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=defaults.BATCH_SIZE, show_default=True)
@click.option(
    "--lr",
    default=f"{defaults.LEARNING_RATE:g}",
    show_default=True,
    metavar="RATE|auto",
    callback=lambda _, __, text: None if text == "auto" else _positive(text, "--lr"),
    help="Learning rate, the schedule's largest; auto tries several.",
)
@click.option(
    "--init",
    type=click.Choice(choices.INITIALIZATIONS),
    default=defaults.INIT,
    show_default=True,
    help="How a new head begins: at zero, or in closed form from the features.",
)
@click.option("--schedule", type=click.Choice(choices.SCHEDULES), default=defaults.SCHEDULE, show_default=True)
@click.option(
    "--warmup",
    type=click.FloatRange(0, 1),
    default=defaults.WARMUP,
    show_default=True,
    help="Share of all steps over which the rate rises.",
)
@click.option(
    "--metric",
    type=click.Choice(list(dict.fromkeys(name for task in choices.TASKS for name in metrics_of(task)))),
    help="By what the best epoch is chosen.  [default: accuracy, macro_f1 or r2, by the task]",
)
@click.option("--patience", type=click.IntRange(min=1), help="Stop after so many epochs without a better one.")
@click.option("--label-smoothing", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True)
@click.option("--class-weights", type=click.Choice(choices.CLASS_WEIGHTS), help="Let every class count alike.")
@click.option(
    "--augment",
    type=click.Choice(choices.STRENGTHS),
    help="Train on other views of each sample, too; they are cached.",
)
@click.option(
    "--views", type=click.IntRange(min=1), default=defaults.VIEWS, show_default=True, help="Views that --augment makes."
)
@click.option("--flip/--no-flip", default=True, show_default=True, help="Whether views of pictures may be mirrored.")
@click.option(
    "--cache-precision",
    type=click.Choice(choices.PRECISIONS),
    default="float32",
    show_default=True,
    help="float16 halves the cache and rounds the features.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
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
    type=click.FloatRange(min=0, max=1, max_open=True),
    default=defaults.SGD_MOMENTUM,
    show_default=True,
    help="Of --optimizer sgd.",
)
@click.option(
    "--weight-decay",
    type=click.FloatRange(min=0),
    default=defaults.WEIGHT_DECAY,
    show_default=True,
    help="Decoupled from the gradient, in both optimizers.",
)
@click.option(
    "--clip-norm",
    type=click.FloatRange(min=0, min_open=True),
    help="Largest norm of a step's gradients; longer ones are scaled down.  [default: no limit]",
)
@click.option(
    "--micro-batch",
    default="auto",
    show_default=True,
    metavar="auto|N",
    callback=lambda _, __, text: None if text == "auto" else _whole(text, "--micro-batch"),
    help="Samples computed at once; their gradients are added up over a batch, which is the same step in less memory.",
)
@_label_option
@_input_option
@_provider_options
@click.option(
    "--cache", type=click.Path(), metavar="DIR", help="Where features are kept.  [default: the user's cache folder]"
)
@_threads_option
@_json_option
def finetune(artifacts: str, data: str, as_json: bool, **options: Any) -> None:
    """Train ARTIFACTS on DATA: a folder with one folder per class, a table, or an .npz file (no PyTorch needed)."""
    if options["resume"] and options["force"]:
        raise click.UsageError("--resume continues a run and --force replaces it: give one of them.")
    with _reporting(as_json, interrupted=lambda display: _how_to_resume(options["out"], display)) as display:
        import edgetl
        from edgetl import outline

        result = edgetl.finetune(artifacts, data, on_event=display, **options)

    validated = f"validation {figure(result.metric, result.val_metric)}" if result.val_samples else "no validation data"
    speed = (
        "all from the cache" if result.feature_ms_per_image is None else f"{result.feature_ms_per_image:.1f} ms each"
    )
    _finish(
        as_json,
        result,
        f"{validated} (best epoch {result.best_epoch} of {result.epochs}), "
        f"in {result.seconds:.1f} s and {result.peak_rss_mb:.0f} MB",
        *outline.others(result.val_figures, result.metric),
        f"  {result.train_samples} samples to train and {result.val_samples} to validate, "
        f"{len(result.rejected)} left out",
        f"  features {result.feature_seconds:.1f} s ({speed}), training {result.training_seconds:.1f} s, "
        f"engine {result.engine}",
        *outline.placements(result.placement),
        f"  the run lies in {result.run}; look at its report.html",
        f"next: edgetl deploy {result.run} --out model.onnx",
    )


@main.command()
@click.argument("run", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="ONNX file to write.")
@click.option(
    "--artifacts",
    type=click.Path(),
    metavar="DIR",
    help="Where the prepared directory lies now.  [default: where it lay during training]",
)
@_threads_option
@_json_option
def deploy(run: str, as_json: bool, **options: Any) -> None:
    """Write RUN's best model as one ONNX file, from a sample to its probabilities or numbers, and verify it."""
    with _reporting(as_json) as display:
        import edgetl

        result = edgetl.deploy(run, on_event=display, **options)
    _finish(
        as_json,
        result,
        f"{result.model} is ready: {result.size_mb:.1f} MB, opset {result.opset}, IR {result.ir_version}",
        f"  verified on {result.verified_samples} samples: logits differ by {result.largest_difference:.1e} at most, "
        + ", ".join(figure(name, value) for name, value in list(result.figures.items())[:1]),
        f"next: edgetl predict {result.model} INPUT",
    )


@main.command()
@click.argument("model", type=click.Path())
@click.argument("data", type=click.Path())
@_label_option
@_input_option
@_provider_options
@_threads_option
@_json_option
def evaluate(model: str, data: str, as_json: bool, **options: Any) -> None:
    """Measure MODEL, a deployed file, on DATA: a folder with one folder per class, a table, or an .npz file."""
    with _reporting(as_json) as display:
        import edgetl
        from edgetl import outline

        result = edgetl.evaluate(model, data, on_event=display, **options)

    (metric, value), *_ = result.figures.items()
    counted = f"{result.samples} samples" if result.correct is None else f"{result.correct} of {result.samples} samples"
    _finish(
        as_json,
        result,
        f"{figure(metric, value)} ({counted} in {result.data})",
        *outline.others(result.figures, metric),
        *outline.per_label(result.per_label),
        f"  {result.ms_per_image:.1f} ms per sample with {result.threads} threads, "
        f"{result.peak_rss_mb:.0f} MB, {len(result.rejected)} left out",
        *outline.placements({"the model": result.placement}),
    )


@main.command()
@click.argument("model", type=click.Path())
@click.argument("inputs", nargs=-1, required=True, type=click.Path(), metavar="INPUT...")
@click.option(
    "--top", type=click.IntRange(min=1), default=defaults.TOP, show_default=True, help="Classes to show per sample."
)
@_input_option
@_provider_options
@_threads_option
@_json_option
def predict(model: str, inputs: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Tell what each INPUT is with MODEL, a deployed file: files, folders of them, tables, .npz files, or texts."""
    with _reporting(as_json) as display:
        import edgetl
        from edgetl import outline

        results = edgetl.predict(model, inputs, on_event=display, **options)
    _finish(
        as_json, {"model": model, "predictions": results}, *(f"{item.input}: {outline.told(item)}" for item in results)
    )


@main.command()
@click.argument("path", type=click.Path())
@_json_option
def inspect(path: str, as_json: bool) -> None:
    """Describe a prepared directory, a run, or a deployed model."""
    with _reporting(as_json):
        import edgetl
        from edgetl import outline

        found = edgetl.describe(path)
    _finish(as_json, found, *(outline.artifacts(found) if found["kind"] == "artifacts" else outline.plain(found)))


@main.command()
@click.argument("run", type=click.Path())
@_json_option
def report(run: str, as_json: bool) -> None:
    """Write RUN's report.html and plots anew (finetune writes them at its end)."""
    with _reporting(as_json) as display:
        import edgetl
        from edgetl import outline

        result = edgetl.write_report(run, on_event=display)
    _finish(as_json, result, *outline.report_lines(result))


@main.command()
@click.argument("directory", type=click.Path())
@click.option(
    "--sort",
    type=click.Choice(["metric", "loss", "epochs", "seconds", "name"]),
    default="metric",
    show_default=True,
    help="What to sort by, best first.",
)
@_json_option
def runs(directory: str, sort: str, as_json: bool) -> None:
    """Compare the runs at and below DIRECTORY in a table."""
    with _reporting(as_json) as display:
        import edgetl
        from edgetl import outline
        from edgetl.console import table

        found = edgetl.compare_runs(directory, sort=sort, on_event=display)
    _finish(as_json, {"directory": directory, "runs": found}, *table(*outline.runs_table(found)))


@main.command()
@_json_option
def doctor(as_json: bool) -> None:
    """Tell what this machine can do, and how to mend what it cannot."""
    with _reporting(as_json):
        from edgetl.doctor import examine

        found = examine()
    memory = "unknown" if found.memory_mb is None else f"{found.memory_mb / 1e3:.1f} GB"
    abilities = (("prepare", found.prepare), ("finetune", found.finetune), ("deploy", found.deploy))
    _finish(
        as_json,
        found,
        f"edgetl {found.edgetl_version}, Python {found.python}, {found.platform}",
        f"  {found.cores} cores, {memory} of memory, {found.machine}",
        f"  onnxruntime: {', '.join(f'{name} {v}' for name, v in found.distributions.items()) or 'none'}",
        f"  execution providers: {', '.join(found.providers) or 'none'}",
        f"  --engine auto takes: {found.engine or 'nothing'} ({found.engine_reason})",
        *(f"  {'can   ' if ability.works else 'cannot'} {name}: {ability.why}" for name, ability in abilities),
    )
    if found.problem is not None:
        raise SystemExit(1)


@main.command()
@click.option(
    "--out", type=click.Path(), help="Keep what the demo makes in this directory.  [default: a temporary one]"
)
@_json_option
def demo(out: str | None, as_json: bool) -> None:
    """The whole story in a minute, offline: learn handwritten digits from a few examples each."""
    with _reporting(as_json) as display:
        from edgetl.demo import draw, run_demo

        result = run_demo(out, on_event=display)
    if not as_json:
        draw(result)
    _finish(as_json, result)


def _numbers(text: str | None, option: str, kind: Callable[[str], Any] = float) -> tuple[Any, ...] | None:
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise click.BadParameter(f"{text!r} is not a list of {what}", param_hint=option) from None


def _positive(text: str, option: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise click.BadParameter(f"{text!r} is not a positive number", param_hint=option)
    return value


def _whole(text: str, option: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"{text!r} is neither auto nor a positive whole number", param_hint=option)
    return int(text)


def _text_pair(item: str, option: str) -> tuple[str, str]:
    key, separator, value = item.partition("=")
    if not separator or not key:
        raise click.BadParameter(f"{item!r} is not KEY=VALUE", param_hint=option)
    return key, value


def _key_value(item: str, option: str) -> tuple[str, Any]:
    import ast

    key, value = _text_pair(item, option)
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


@contextlib.contextmanager
def _reporting(as_json: bool, *, interrupted: Callable[[Display], str] | None = None) -> Iterator[Display]:
    """Draw events on stderr, and end errors that a user can cause with one sentence and status 1."""
    from edgetl.console import Display

    display = Display()
    try:
        with display:
            yield display
    except EdgetlError as error:
        _fail(str(error), as_json)
    except KeyboardInterrupt:
        _fail(interrupted(display) if interrupted else "interrupted", as_json)
    except OSError as error:
        _fail(_disk_error(error), as_json)


def _disk_error(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full{where}: make space and repeat the command; "
            "what was finished is kept (finetune: add --resume)"
        )
    return f"{error.strerror or error}{where}"


def _how_to_resume(out: str, display: Display) -> str:
    import shlex

    arguments = [argument for argument in sys.argv[1:] if argument not in ("--resume", "--force")]
    command = shlex.join(["edgetl", *arguments, "--resume"])
    done = (
        f"after epoch {display.finished_epochs}" if display.finished_epochs else "before the first epoch was finished"
    )
    return f"interrupted {done}; nothing finished is lost. Continue with: {command}"


def _fail(message: str, as_json: bool) -> None:
    click.echo(f"Error: {message}", err=True)
    if as_json:
        click.echo(json.dumps({"error": message}, ensure_ascii=False))
    raise SystemExit(1)


def _finish(as_json: bool, result: Any, *lines: str) -> None:
    if as_json:
        from edgetl.schema import to_json

        click.echo(json.dumps(to_json(result), ensure_ascii=False))
        return
    for line in lines:
        click.echo(line)


if __name__ == "__main__":
    main()
