"""What an option may be, where it is one of a few words: for the command line and for functions alike."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from numbers import Integral, Real

from edgetl.errors import EdgetlError
from edgetl.suggest import did_you_mean

TASKS = {
    "classification": ("cross_entropy",),
    "multilabel": ("binary_cross_entropy",),
    "regression": ("mean_squared_error", "l1"),
}
"""Each task and the losses it can be trained with, the default first."""

LOSSES = tuple(loss for losses in TASKS.values() for loss in losses)
MODALITIES = ("image", "audio", "text", "array")
ENGINES = ("auto", "ort-training", "portable")
OPTIMIZERS = ("adamw", "sgd")
RATES = ("auto", "search")
SCHEDULES = ("constant", "linear", "cosine")
AUTO_SCHEDULES = ("auto", *SCHEDULES)
INITIALIZATIONS = ("auto", "zero", "prototype", "ridge")
CLASS_WEIGHTS = ("balanced",)
STRENGTHS = ("light", "strong")
DECODINGS = ("scaled", "full")
CACHE_PRECISIONS = ("float32", "float16")
PRECISIONS = ("float32", "float16", "int8")
BACKBONE_PRECISIONS = ("float32", "int8")
INPUTS = ("raw", "tensor")
FORMATS = ("onnx", "ort")


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, but for `high` itself if they lie `below` it; whole ones if both are ints."""

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
_SMALLEST, _LARGEST = 2.0**-126, (2.0 - 2.0**-23) * 2.0**127
_MOST = 2**53  # whole numbers up to there are numbers of JSON for every program

RANGES = {
    "val_fraction": Range(0.0, 1.0, below=True),
    "epochs": Range(0, _MOST),
    "batch_size": Range(1, _MOST),
    "lr": Range(_SMALLEST, _LARGEST),
    "momentum": Range(0.0, 1.0, below=True),
    "weight_decay": Range(0.0, _LARGEST),
    "clip_norm": Range(_SMALLEST, _LARGEST),
    "warmup": Range(0.0, 1.0),
    "label_smoothing": Range(0.0, 1.0, below=True),
    "patience": Range(1, _MOST),
    "micro_batch": Range(1, _MOST),
    "memory_mb": Range(1.0, 1e12),
    "views": Range(1, 10_000),
    "window": Range(_SMALLEST, 1e6),  # seconds
    "hop": Range(_SMALLEST, 1e6),
    "seed": Range(0, 2**64 - 1),  # as many as `date +%s%N` and 64 random bits need
    "threads": Range(1, 2**16),
}
"""Which numbers the arguments of `finetune` may be: when they are given and when they are read back."""


def check_number(name: str, value: object) -> None:
    """Refuse what is not in the range of `RANGES` of that name.

    Raises:
        EdgetlError: it names the argument, the range and the value.
    """
    among = RANGES[name]
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


def check_range(what: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside of `low ≤ value ≤ high`, and what is no number.

    Raises:
        EdgetlError: it names `what`, the value and the bounds.
    """
    if not low <= value <= high:
        raise EdgetlError(f"{what} must lie between {low:g} and {high:g}, not be {value!r}")
