from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.files.schema import SchemaError, from_json, to_json


@dataclass(frozen=True)
class Inner:
    name: str
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Outer:
    inner: Inner
    ratio: float
    flag: bool
    many: dict[str, Inner]
    pair: tuple[float, float]
    note: str | None = None


inners = st.builds(Inner, st.text(), st.lists(st.integers()).map(tuple))
outers = st.builds(
    Outer,
    inners,
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.dictionaries(st.text(), inners, max_size=3),
    st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)),
    st.none() | st.text(),
)


@given(outers)
def test_what_is_written_is_read(value: Outer) -> None:
    assert from_json(Outer, to_json(value)) == value


GOOD = {"inner": {"name": "a", "sizes": [1]}, "ratio": 1, "flag": True, "many": {}, "pair": [0.5, 1]}


def test_a_field_with_a_default_may_be_missing_and_unknown_ones_are_ignored() -> None:
    value = from_json(Outer, {**GOOD, "later": 1})
    assert value.note is None
    assert value.ratio == 1.0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"inner": None}, "inner"),
        ({"inner": {"name": "a", "sizes": [1, "b"]}}, "inner.sizes"),
        ({"inner": {"name": "a"}}, "inner.sizes"),
        ({"ratio": "1"}, "ratio"),
        ({"ratio": True}, "ratio"),
        ({"flag": 1}, "flag"),
        ({"many": {"x": 3}}, "many.x"),
        ({"pair": [1.0]}, "pair"),
        ({"note": 3}, "note"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], field: str) -> None:
    with pytest.raises(SchemaError, match=field.replace(".", r"\.")):
        from_json(Outer, {**GOOD, **change})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
        max_leaves=8,
    )
)
def test_anything_else_is_a_schema_error(value: object) -> None:
    with pytest.raises(SchemaError):
        from_json(Outer, value)
