"""Options from declared settings, and how their texts are read."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field
from typing import Any, TypeVar

import click

from edgetl.declaration import Declared, Range, declarations
from edgetl.shared_settings import MACHINE

F = TypeVar("F", bound=Callable[..., Any])
Callback = Callable[[click.Context, click.Parameter, Any], Any]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


class Option(click.Option):
    """An option that knows the section of the help that it belongs to."""

    def __init__(self, *names: Any, group: str = "", **more: Any) -> None:
        super().__init__(*names, **more)
        self.group = group


class Sections(click.Command):
    """A command whose help has its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write those without a section first, and those about the machine last."""
        sections: dict[str, list[tuple[str, str]]] = {"": []}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(param, "group", ""), []).append(record)
        machine = sections.pop(MACHINE, [])  # what most users leave alone comes last
        for title, records in [*sections.items(), (MACHINE, machine)]:
            if records:
                with formatter.section(title or "Options"):
                    formatter.write_dl(records)


def options_of(settings: type[Any], *, besides: Collection[str] = ()) -> Callable[[F], F]:
    """Give a command an option for each declared setting of a class, under the setting's name."""

    def add(command: F) -> F:
        for field, known in reversed(list(declarations(settings))):
            if field.name not in besides:
                command = _option(field, known)(command)
        return command

    return add


def _option(field: Field[Any], known: Declared) -> Callable[[F], F]:
    name = known.option or f"--{field.name.replace('_', '-')}"
    default = None if field.default is MISSING else field.default
    text = known.help
    if known.kind in _PAIRS or known.kind in _LISTS:
        text += " Repeatable."
    elif known.kind == "names":
        text += " Separated by commas."
    if known.default_text:
        text += f"  [default: {known.default_text}]"
    names = [name, field.name]
    more: dict[str, Any] = {"help": text, "metavar": known.metavar, "required": field.default is MISSING}
    if known.negative is not None or default is False:
        names[0] = f"{name}/{known.negative}" if known.negative else name
        more = {"help": text, "is_flag": True, "default": default, "show_default": bool(default)}
    elif known.kind in _PAIRS:
        more.update(multiple=True, metavar="KEY=VALUE", callback=_merged(_PAIRS[known.kind]))
    elif known.kind in _LISTS:
        more.update(multiple=True, metavar=known.metavar or "NAME[,NAME]", callback=_joined(_LISTS[known.kind]))
        more.update(default=default, show_default=bool(default))
    elif known.kind in _READERS:
        more.update(callback=_once(_READERS[known.kind]))
    elif known.kind == "path":
        more.update(type=click.Path())
    else:
        more.update(default=default, show_default=default is not None)
        if known.range is not None and (known.choices or known.kind == "auto"):
            words = known.choices or ("auto",)
            more["metavar"] = "|".join((known.metavar or "N", *words))
            more["callback"] = number_or(known.range, words, none="auto" if known.kind == "auto" else None)
        elif known.range is not None:
            more["type"] = number(known.range)
        elif known.choices:
            more["type"] = click.Choice(known.choices)
    return click.option(*names, cls=Option, group=known.group, **more)


def number(among: Range) -> click.ParamType[Any]:
    """Return the type of an option for the numbers of a range, which the function it goes to checks, too."""
    if among.whole:
        return click.IntRange(min=int(among.low))
    # numbers above zero end at the smallest that engines know, which help need not tell
    above = 0 < among.low < 1e-6
    low = 0 if above else among.low
    high = int(among.high) if among.high <= 1e4 else None
    return click.FloatRange(min=int(low) if low == int(low) else low, max=high, min_open=above, max_open=among.below)


def number_or(among: Range, words: Collection[str], *, none: str | None = None) -> Callback:
    """Return the callback of an option that is a number of a range or one of some words; the word `none` is None."""

    def read(_: click.Context, parameter: click.Parameter, text: str | None) -> Any:
        if text is None or text in words:
            return None if text == none else text
        try:
            value = int(text) if among.whole else float(text)
        except ValueError:
            value = None
        if value not in among:
            kind = "whole number" if among.whole else "number"
            message = f"{text[:60]!r} is neither {', '.join(words)} nor a {kind} between {among}"
            raise click.BadParameter(message, param_hint=parameter.opts[0])
        return value

    return read


def _once(read: Callable[[str, str], Any]) -> Callback:
    return lambda _, parameter, text: None if text is None else read(text, parameter.opts[0])


def _merged(read: Callable[[str, str], dict[str, Any]]) -> Callback:
    """Of an option that is repeated for each of several names."""

    def merge(_: click.Context, parameter: click.Parameter, items: tuple[str, ...]) -> dict[str, Any] | None:
        pairs = [read(item, parameter.opts[0]) for item in items]
        return {key: value for pair in pairs for key, value in pair.items()} or None

    return merge


def _joined(read: Callable[[str, str], list[str]]) -> Callback:
    """Of an option that is repeated for each of several values."""
    return lambda _, parameter, items: tuple(value for item in items for value in read(item, parameter.opts[0]))


def _columns(text: str, option: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(kind: Callable[[str], Any], what: str) -> Callable[[str, str], tuple[Any, ...]]:
    def read(text: str, option: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(part) for part in text.split(","))
        except ValueError:
            raise click.BadParameter(f"{text!r} is not a list of {what}", param_hint=option) from None

    return read


def _height_and_width(text: str, option: str) -> tuple[int, int]:
    parts = [part.strip() for part in text.lower().replace("×", "x").replace(",", "x").split("x")]
    if len(parts) > 2 or not all(part.isdecimal() and 0 < int(part[:9]) < 10**6 for part in parts):
        raise click.BadParameter(
            f"{text!r} is not a size: give one number of pixels, or height and width such as 48,192",
            param_hint=option,
        )
    return int(parts[0]), int(parts[-1])


def _width_and_height(text: str, option: str) -> tuple[int, int]:
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise click.BadParameter(f"{text!r} is not a width and a height such as 4032x3024", param_hint=option)
    return int(sides[0]), int(sides[1])


def pair(text: str, option: str) -> dict[str, str]:
    """Return `KEY=VALUE` as a dictionary of one item."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint=option)
    return {key: value}


def _literal(text: str, option: str) -> dict[str, Any]:
    """Return KEY=VALUE, the value as a Python literal if it is one."""
    ((key, value),) = pair(text, option).items()
    try:
        return {key: ast.literal_eval(value)}
    except (ValueError, SyntaxError):
        return {key: value}


def _value(text: str, option: str) -> dict[str, float]:
    ((key, value),) = pair(text, option).items()
    try:
        return {key: float(value)}
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a number", param_hint=option) from None


_PAIRS = {"pairs": pair, "literals": _literal, "values": _value}
_LISTS: dict[str, Callable[[str, str], list[str]]] = {"columns": _columns, "repeated": lambda text, _: [text]}
_READERS: dict[str, Callable[[str, str], Any]] = {
    "names": lambda text, _: text.split(","),
    "numbers": _numbers(float, "numbers"),
    "whole numbers": _numbers(int, "whole numbers"),
    "height and width": _height_and_width,
    "width and height": _width_and_height,
}
"""How the text of an option is read, by `Declared.kind`: of repeated options in the first two tables."""
