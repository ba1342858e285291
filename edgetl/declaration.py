"""Settings that are declared once: type, default, what they may be, help. Options, checks and docs derive from it.

A settings class is a frozen dataclass whose fields are made by `declared`. `takes` turns a function of such an object
into one of its fields as keyword arguments, which a type checker sees; `edgetl.cli.options` turns them into options.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, ParamSpec, TypeVar

from edgetl.errors import EdgetlError
from edgetl.suggest import did_you_mean

P = ParamSpec("P")
S = TypeVar("S")
R = TypeVar("R")

_KEY = "declared"

Kind = Literal[
    "",
    "auto",
    "path",
    "columns",
    "repeated",
    "names",
    "numbers",
    "whole numbers",
    "pairs",
    "literals",
    "values",
    "height and width",
    "width and height",
]
"""How a text of the command line is read (`edgetl.cli.options`)."""


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, without `high` itself if they lie `below` it; whole ones if both are ints."""

    low: float
    high: float
    below: bool = False

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, Integral if self.whole else Real):
            return False
        return bool(self.low <= value < self.high if self.below else self.low <= value <= self.high)  # type: ignore[operator]

    def __str__(self) -> str:
        low, high = (f"{end}" if isinstance(end, int) else f"{end:.6g}" for end in (self.low, self.high))
        return f"{low} and {'just below ' if self.below else ''}{high}"


# engines compute in float32; smaller numbers are zero there, and larger ones infinite
SMALLEST, LARGEST = 2.0**-126, (2.0 - 2.0**-23) * 2.0**127
MOST = 2**53
"""Whole numbers up to here are numbers of JSON for every program."""


@dataclass(frozen=True)
class Declared:
    """What is known of a setting besides its name, type and default.

    Attributes:
        help: what it does, in one or two sentences.
        group: the section of a command's help that it belongs to.
        range: which numbers it may be.
        choices: which words it may be; beside a range, instead of a number.
        kind: how its text is read on the command line (`edgetl.cli.options`), where the type alone does not tell.
        metavar: what stands for its value in a command's help.
        default_text: what happens without it, where the default is None.
        option: the option's name, where it is not the field's.
        negative: a flag's other option, such as `--no-flip`.
        check: raises `EdgetlError` for what is neither of a range nor of choices.
        may_change: whether a run may be resumed with another value.
    """

    help: str
    group: str = ""
    range: Range | None = None
    choices: tuple[str, ...] = ()
    kind: Kind = ""
    metavar: str | None = None
    default_text: str | None = None
    option: str | None = None
    negative: str | None = None
    check: Callable[[Any], object] | None = None
    may_change: bool = False


REQUIRED = dataclasses.MISSING


def declared(
    default: Any,
    help: str,
    *,
    group: str = "",
    range: Range | None = None,
    choices: tuple[str, ...] = (),
    kind: Kind = "",
    metavar: str | None = None,
    default_text: str | None = None,
    option: str | None = None,
    negative: str | None = None,
    check: Callable[[Any], object] | None = None,
    may_change: bool = False,
) -> Any:
    """Return a dataclass field that is a setting; see `Declared`."""
    known = Declared(help, group, range, choices, kind, metavar, default_text, option, negative, check, may_change)
    return dataclasses.field(default=default, metadata={_KEY: known})


def declarations(settings: type[Any]) -> Iterator[tuple[dataclasses.Field[Any], Declared]]:
    """Yield the declared fields of a settings class, in their order."""
    for each in dataclasses.fields(settings):
        if _KEY in each.metadata:
            yield each, each.metadata[_KEY]


def check(settings: Any) -> None:
    """Refuse values that their declarations do not allow; None is allowed where it is the default.

    A settings class may have a method `check_together`, which refuses values that do not go together.

    Raises:
        EdgetlError: it names the setting, the value, and what it may be.
    """
    for each, known in declarations(type(settings)):
        value = getattr(settings, each.name)
        if value is not None or each.default is not None:
            check_value(each.name, value, known)
    if (together := getattr(settings, "check_together", None)) is not None:
        together()


def plain(settings: S) -> S:
    """Return settings whose values are Python's own: numbers of other libraries, one word where a list is meant.

    Raises:
        EdgetlError: a flag is not one.
    """
    changed = {}
    for each, known in declarations(type(settings)):
        value = getattr(settings, each.name)
        if value is not None:
            changed[each.name] = _plain(each, known, value)
    return dataclasses.replace(settings, **changed)  # type: ignore[type-var]


def _plain(field: dataclasses.Field[Any], known: Declared, value: Any) -> Any:
    if isinstance(field.default, bool) or known.negative:
        if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
            return bool(value)
        raise EdgetlError(f"{field.name} must be True or False, not {_shown(value)}")
    if known.range is not None and value in known.range:
        return int(value) if known.range.whole else float(value)
    if known.kind in ("columns", "repeated") and isinstance(value, str):
        return (value,)
    if known.kind == "names" and isinstance(value, str):
        return tuple(value.split(","))
    if known.kind == "path" and not str(value):
        raise EdgetlError(f"{field.name} is empty: give a path")
    return value


def check_value(name: str, value: Any, known: Declared) -> None:
    """Refuse a value that is not None; see `check`."""
    if known.check is not None:
        known.check(value)
    if known.range is None or (known.choices and isinstance(value, str)):
        if known.choices:
            check_choice(name, value, known.choices)
    else:
        check_range(name, value, known.range)


def check_range(name: str, value: object, among: Range) -> None:
    """Refuse what is not in a range.

    Raises:
        EdgetlError: it names the setting, the range and the value.
    """
    if value not in among:
        kind = " and be a whole number" if among.whole and not isinstance(value, Integral) else ""
        raise EdgetlError(f"{name} must lie between {among}{kind}, not be {_shown(value)}")


def _shown(value: object) -> str:
    try:
        return f"{value!r:.60}"
    except ValueError:  # Python does not write whole numbers of thousands of digits
        return "one of thousands of digits"


def check_choice(what: str, value: object, choices: Collection[str]) -> None:
    """Refuse what is none of the choices.

    Raises:
        EdgetlError: it names `what`, the value and the choices.
    """
    if value not in choices:
        hint = did_you_mean(str(value), choices) or f": choose one of {', '.join(choices)}"
        raise EdgetlError(f"there is no {what} {value!r}{hint}")


def shared_fields(settings: S, base: type[S], *, besides: Collection[str] = ()) -> dict[str, Any]:
    """Return the values of the settings that a base class declares, by name, for another class with that base."""
    names = [each.name for each, _ in declarations(base) if each.name not in besides]
    return {name: getattr(settings, name) for name in names}


def takes(settings: Callable[P, S]) -> Callable[[Callable[[S], R]], Callable[P, R]]:
    """Let a function take the fields of a settings class as arguments, in the place of an object of it.

    The values are checked before the function is called. Its docstring gets a section on them.
    """
    assert isinstance(settings, type)
    signature = inspect.signature(settings)

    def wrap(function: Callable[[S], R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                given = settings(*args, **kwargs)
            except TypeError as error:  # an unknown argument, or one that is missing
                raise TypeError(str(error).replace(f"{settings.__name__}.__init__", function.__name__)) from None
            given = plain(given)
            check(given)
            return function(given)

        returned = inspect.signature(function).return_annotation
        call.__annotations__ = {**{p.name: p.annotation for p in signature.parameters.values()}, "return": returned}
        call.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]
        call.__doc__ = _documented(function.__doc__ or "", settings)
        return call

    return wrap


def _documented(text: str, settings: type[Any]) -> str:
    """Put a section on arguments into a docstring, before the one on errors."""
    lines: list[str] = []
    for each_class in settings.__mro__:
        _, _, told = (each_class.__dict__.get("__doc__") or "").partition("    Attributes:\n")
        lines += [line for line in told.split("\n") if line.strip()]
    for each, known in declarations(settings):
        default = f" Default: {known.default_text}." if known.default_text else ""
        lines += textwrap.wrap(
            f"{each.name}: {known.help}{default}", 112, initial_indent=" " * 8, subsequent_indent=" " * 12
        )
    section = "\n".join(["    Args:", *lines, ""])
    head, raises, rest = text.partition("    Raises:")
    return f"{head}{section}\n{raises}{rest}" if raises else f"{text.rstrip()}\n\n{section}"
