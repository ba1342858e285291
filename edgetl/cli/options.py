"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from edgetl import choices
from edgetl.choices import RANGES

F = TypeVar("F", bound=Callable[..., Any])


def number(name: str) -> click.ParamType[Any]:
    """The type of an option whose range is in `edgetl.choices.RANGES`, which the function it goes to checks, too."""
    among = RANGES[name]
    if among.whole:
        return click.IntRange(min=int(among.low))
    # numbers above zero end at the smallest that engines know, which help need not tell
    above = 0 < among.low < 1e-6
    low = 0 if above else among.low
    return click.FloatRange(
        min=int(low) if low == int(low) else low,
        max=1 if among.high == 1 else None,
        min_open=above,
        max_open=among.below,
    )


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
threads_option = click.option(
    "--threads", type=number("threads"), default=None, help="Cores to use.  [default: all available]"
)


def column_option(name: str, what: str) -> Callable[[F], F]:
    """The option `--NAME-column`, which takes names, repeated or separated by commas."""
    return click.option(
        f"--{name}-column",
        multiple=True,
        metavar="NAME[,NAME]",
        callback=lambda _, __, items: tuple(name.strip() for item in items for name in item.split(",") if name.strip()),
        help=f"Of a table: the column of {what}, where it has another name than usual. Repeatable.",
    )


device_option = click.option(
    "--device",
    metavar="NAME|FILE",
    help="A device of `edgetl devices`, or a profile of your own: what is not given here is chosen for it.",
)

memory_option = click.option(
    "--memory",
    "memory_mb",
    type=number("memory_mb"),
    metavar="MB",
    help="What the training process may take, 10^6 bytes; batches are computed in parts that fit.  "
    "[default: the device's]",
)


def window_options(command: F) -> F:
    """Add `--window` and `--hop` to a command."""
    for option in reversed(
        (
            click.option(
                "--window",
                type=number("window"),
                metavar="SECONDS",
                help="Cut recordings into windows of this length, each of which is a sample.  "
                "[default: what the network hears, if --hop is given; else whole recordings, of which the middle is "
                "heard]",
            ),
            click.option(
                "--hop",
                type=number("hop"),
                metavar="SECONDS",
                help="Time from the start of a window to the start of the next.  [default: --window]",
            ),
        )
    ):
        command = option(command)
    return command


def decode_option(default: str | None) -> Callable[[F], F]:
    """The option `--decode`; without a default it is as in training."""
    return click.option(
        "--decode",
        type=click.Choice(choices.DECODINGS),
        default=default,
        show_default=default is not None,
        help="scaled decodes a JPEG at a part of its size where that is large enough, full all of it."
        + ("" if default else "  [default: as in training]"),
    )


label_option = column_option("label", "the labels or numbers to learn")
input_option = column_option("input", "paths, texts or numbers")


def provider_options(command: F) -> F:
    """Add `--provider`, `--provider-option` and `--allow-fallback` to a command."""
    for option in reversed(
        (
            click.option(
                "--provider",
                metavar="NAME",
                help="ONNX Runtime's execution provider: cpu, openvino, cuda, webgpu, coreml, qnn, ...  [default: cpu]",
            ),
            click.option(
                "--provider-option",
                "provider_options",
                multiple=True,
                metavar="KEY=VALUE",
                callback=lambda _, option, items: dict(text_pair(item, option.opts[0]) for item in items),
                help="Option of the provider. Repeatable.",
            ),
            click.option(
                "--allow-fallback", is_flag=True, help="Use the CPU where the provider is missing or refuses."
            ),
        )
    ):
        command = option(command)
    return command


def numbers(text: str | None, option: str, kind: Callable[[str], Any] = float) -> tuple[Any, ...] | None:
    """Return the numbers of a list such as `0.5,0.5,0.5`; None for None."""
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise click.BadParameter(f"{text!r} is not a list of {what}", param_hint=option) from None


def picture_size(text: str) -> tuple[int, int]:
    """Return height and width of `224`, `48,192` or `48x192`."""
    parts = [part.strip() for part in text.lower().replace("×", "x").replace(",", "x").split("x")]
    if len(parts) > 2 or not all(part.isdecimal() and 0 < int(part[:9]) < 10**6 for part in parts):
        raise click.BadParameter(
            f"{text!r} is not a size: give one number of pixels, or height and width such as 48,192",
            param_hint="--size",
        )
    return int(parts[0]), int(parts[-1])


def number_or(name: str, words: Mapping[str, Any]) -> Callable[[click.Context, click.Parameter, str], Any]:
    """The callback of such an option that may be a word, too, which is given as what it stands for."""

    def read(_: click.Context, parameter: click.Parameter, text: str) -> Any:
        if text in words:
            return words[text]
        try:
            value = int(text) if RANGES[name].whole else float(text)
        except ValueError:
            value = None
        if value not in RANGES[name]:
            kind = "whole number" if RANGES[name].whole else "number"
            message = f"{text[:60]!r} is neither {', '.join(words)} nor a {kind} between {RANGES[name]}"
            raise click.BadParameter(message, param_hint=parameter.opts[0])
        return value

    return read


def size(text: str, option: str) -> tuple[int, int]:
    """Return width and height of a text such as `4032x3024`."""
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise click.BadParameter(f"{text!r} is not a width and a height such as 4032x3024", param_hint=option)
    return int(sides[0]), int(sides[1])


def text_pair(item: str, option: str) -> tuple[str, str]:
    """Return the two sides of `KEY=VALUE`."""
    key, separator, value = item.partition("=")
    if not separator or not key:
        raise click.BadParameter(f"{item!r} is not KEY=VALUE", param_hint=option)
    return key, value


def key_value(item: str, option: str) -> tuple[str, Any]:
    """Return the two sides of `KEY=VALUE`, the value as a Python literal if it is one."""
    import ast

    key, value = text_pair(item, option)
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value
