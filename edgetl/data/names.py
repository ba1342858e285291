"""Names by which people call the parts of a data set."""

from __future__ import annotations

import re
from collections.abc import Iterable

_EVAL = "eval"
_FORMS = {
    "train": ("train", "training", "trn", "trainval", "trainvalidation"),
    "val": ("val", "valid", "validation", "validate", "validating", "dev", "development"),
    "test": ("test", "testing", "tst", "holdout", "heldout"),
    # validation beside a test part, or else the test itself
    _EVAL: ("eval", "evaluation", "evaluate", "evaluating"),
}
_PART_OF = {form: part for part, forms in _FORMS.items() for form in forms}
_WITH = (
    "set|sets|data|dataset|datasets|split|splits|part|folder|dir|files?|samples?|images?|imgs?|pictures?|pics?|photos?|"
    "jpe?gs?|pngs?|audio|sounds?|recordings?|wavs?|clips?|texts?|sentences?|windows?|arrays?|csvs?"
)
_NAME = re.compile(f"(?:{_WITH})*?({'|'.join(sorted(_PART_OF, key=len, reverse=True))})(?:{_WITH})*")
_BETWEEN = re.compile(r"[\W\d_]+")
_WORD = re.compile(r"[^\W\d_]+|\d+")


def part_of(name: str) -> str | None:
    """Return the part, `train`, `val` or `test`, that a name says: in any letter case, as `test_set`, `Val-Images`.

    None if it says none. What evaluates is taken for the test; see `parts_of`.
    """
    found = _found(name)
    return "test" if found == _EVAL else found


def parts_of(names: Iterable[str]) -> dict[str, str]:
    """Return the part of each of the names that stand beside each other, where they have one.

    Other words in them do not matter if they are the same in all, as in `seg_train` and `seg_test`. What evaluates
    validates if there is a test beside it, and no validation.
    """
    names = list(names)
    found = {name: part for name in names if (part := _found(name)) is not None} or _beside_equal_words(names)
    others = set(found.values())
    evaluates = "val" if "test" in others and "val" not in others else "test"
    return {name: evaluates if part == _EVAL else part for name, part in found.items()}


def _beside_equal_words(names: Iterable[str]) -> dict[str, str]:
    """Return what trains and what belongs to it, where their names differ in the word for the part alone."""
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for name in names:
        words = _WORD.findall(name.lower())
        parts = [_PART_OF[word] for word in words if word in _PART_OF]
        if len(parts) == 1:
            groups.setdefault(tuple(word for word in words if word not in _PART_OF), {})[name] = parts[0]
    return next((group for group in groups.values() if {"train"} < set(group.values())), {})


def _found(name: str) -> str | None:
    match = _NAME.fullmatch(_BETWEEN.sub("", name).lower())
    return _PART_OF[match[1]] if match else None
