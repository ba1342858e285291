"""Frozen dataclasses to JSON and back, checked field by field.

The files that travel between machines (manifest, run arguments) are read through this module, so a
damaged or foreign file ends in one sentence that names the field.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from numbers import Integral, Real
from typing import Any, TypeVar

T = TypeVar("T")


class SchemaError(ValueError):
    """A value does not have the declared type; the message names the field."""


def to_json(value: Any) -> Any:
    """Return `value` (dataclasses, tuples, dicts, scalars) as plain JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):  # NumPy's numbers, too, which JSON does not take
        return int(value)
    return float(value) if isinstance(value, Real) else value


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return plain JSON types as text that people can read: letters of every script stay, whatever shows nothing,
    breaks lines or turns the reading direction is escaped. So every line of the text is one of JSON's own.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def from_json(cls: type[T], value: Any, where: str = "") -> T:
    """Build the dataclass `cls` from plain JSON types.

    Fields with a default may be missing; unknown fields are ignored, so that a newer minor version
    may add some. A class may have a static method `upgraded` that brings records of older versions into
    today's form.

    Raises:
        SchemaError: a field is missing or has the wrong type.
    """
    if not isinstance(value, dict):
        raise SchemaError(f"{where or 'the top level'} is not an object")
    if (upgraded := getattr(cls, "upgraded", None)) is not None:
        value = upgraded(value)
    hints = _hints(cls)  # type: ignore[arg-type]
    arguments = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        path = f"{where}.{field.name}" if where else field.name
        if field.name in value:
            arguments[field.name] = _convert(hints[field.name], value[field.name], path)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SchemaError(f"field '{path}' is missing")
    return cls(**arguments)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """The types of a class's fields; Python compiles each of them anew whenever it is asked."""
    return typing.get_type_hints(cls)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            if option is type(None):
                if value is None:
                    return None
                continue
            try:
                return _convert(option, value, where)
            except SchemaError:
                continue
        raise SchemaError(f"field '{where}' has the wrong type")
    if origin is tuple and isinstance(value, list):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if len(arguments) == len(value):
            return tuple(_convert(hint, item, where) for hint, item in zip(arguments, value, strict=True))
    if origin is dict and isinstance(value, dict):
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value, where)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise SchemaError(f"field '{where}' is too large") from None
    # Python 3.10 calls dict[str, str] a type, too
    if (
        origin is None
        and isinstance(hint, type)
        and isinstance(value, hint)
        and (hint is bool or not isinstance(value, bool))
    ):
        return value
    raise SchemaError(f"field '{where}' has the wrong type")
