"""The command that makes a prepared directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgetl import choices, defaults
from edgetl.cli.options import device_option, json_option, key_value, label_option, memory_option, numbers, picture_size
from edgetl.cli.reporting import finish, reporting
from edgetl.errors import command

_PREPROCESSING = ("size", "channels", "resize", "crop_pct", "interpolation", "mean", "std", "channel_order")
"""Options that are fields of the preprocessing."""


@click.command()
@click.argument("source")
@click.option("--out", required=True, type=click.Path(), help="Directory to write.")
@click.option("--labels", help="Class names, separated by commas.")
@click.option("--labels-from", type=click.Path(), metavar="DATA", help="Data that name the classes.")
@label_option
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
    help="Share of the network that trains: head, last:K, all, bias, norm, or a glob over parameter names; repeatable. "
    "Or auto: the largest of head, last:K and all that fits --device.",
)
@click.option("--head", metavar="NAME", help="The classifier's name, where the network alone does not tell.")
@click.option(
    "--append-head",
    is_flag=True,
    help="Put the new head behind the network's output, which are features, instead of replacing the last layer.",
)
@click.option(
    "--size",
    metavar="PIXELS|H,W",
    callback=lambda _, __, text: None if text is None else picture_size(text),
    help="Input height and width in pixels, one number or two such as 48,192 or 48x192.  [default: the model's]",
)
@click.option(
    "--channels",
    type=click.IntRange(min=1),
    help="Channels that the network takes: 3, or 1 for grey, into which pictures are turned.  [default: the model's]",
)
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
    "[default: text for a language model of hf:, else what --labels-from holds, else image]",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=4),
    metavar="N",
    help=f"Most tokens of a text.  [default: {defaults.MAX_LENGTH}, or what the network takes]",
)
@click.option("--dynamic-length", is_flag=True, help="Texts keep their own length, instead of being filled up.")
@click.option("--input-shape", metavar="N[,N]", help="Shape of one array.  [default: that of --labels-from]")
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
@click.option(
    "--backbone",
    type=click.Choice(choices.BACKBONE_PRECISIONS),
    default="float32",
    show_default=True,
    help="int8 quantises the frozen part, so that the head is trained on the features it will be deployed with.",
)
@click.option(
    "--calibration",
    type=click.Path(),
    metavar="DATA",
    help="Of --backbone int8: samples, labelled or not, that show the ranges of activations.  [default: --labels-from]",
)
@device_option
@memory_option
@click.option("--force", is_flag=True, help="Replace a prepared directory at --out.")
@json_option
def prepare(source: str, as_json: bool, **options: Any) -> None:
    """Make a trainable directory from a pretrained classifier (needs PyTorch).

    SOURCE is timm:NAME, torchvision:NAME[@WEIGHTS], hf:ID_OR_DIR, FILE.py:callable or
    module:callable returning an nn.Module, or a file MODEL.onnx, PROGRAM.pt2 or MODEL.keras.
    """
    labels, label_column = options.pop("labels"), options.pop("label_column")
    if sum(value is not None for value in (labels, options["labels_from"], options["classes"])) != 1:
        raise click.UsageError("Give exactly one of --labels, --labels-from and --classes.")
    arguments = as_arguments(options)

    with reporting(as_json) as display:
        import edgetl
        from edgetl.tasks.targets import OUTPUTS_ARE

        result = edgetl.prepare(
            source,
            labels=None if labels is None else labels.split(","),
            label_column=label_column,
            on_event=display,
            **arguments,
        )
    shapes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in result.features)
    finish(
        as_json,
        result,
        f"{result.artifacts} is ready: {result.outputs} {OUTPUTS_ARE[result.task]}, "
        f"{result.size_mb:.1f} MB, in {result.seconds:.0f} s",
        f"  trains {result.trainable_parameters:,} parameters; {result.frozen_parameters:,} are frozen",
        f"  {result.trainable_macs / 1e6:,.1f} million multiply-accumulates behind the boundary, "
        f"{result.backbone_macs / 1e6:,.1f} before it",
        f"  features per sample: {shapes} ({result.feature_kb_per_image:.1f} kB)",
        f"next: {command('finetune', result.artifacts, 'DATA', '--out', f'runs/{Path(result.artifacts).name}')}",
    )


def as_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of `prepare` by name, all or some, as arguments of the function; others stay as they are."""
    arguments = {name: value for name, value in options.items() if name not in _PREPROCESSING}
    preprocessing = {name: options[name] for name in _PREPROCESSING if name in options}
    for name in ("mean", "std"):
        if name in preprocessing:
            preprocessing[name] = numbers(preprocessing[name], f"--{name}")
    if preprocessing:
        arguments["preprocessing"] = preprocessing
    for name, option in (("model_args", "--model-arg"), ("audio", "--audio-arg")):
        if name in options:
            arguments[name] = dict(key_value(item, option) for item in options[name])
    if options.get("input_shape") is not None:
        arguments["input_shape"] = numbers(options["input_shape"], "--input-shape", int)
    return arguments
