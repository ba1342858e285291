"""What an option may be, where it is one of a few words: for the command line and for functions alike."""

from __future__ import annotations

from collections.abc import Collection

from edgetl.errors import EdgetlError

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
SCHEDULES = ("constant", "linear", "cosine")
INITIALIZATIONS = ("auto", "zero", "prototype", "ridge")
CLASS_WEIGHTS = ("balanced",)
STRENGTHS = ("light", "strong")
CACHE_PRECISIONS = ("float32", "float16")
PRECISIONS = ("float32", "float16", "int8")
BACKBONE_PRECISIONS = ("float32", "int8")
INPUTS = ("raw", "tensor")
FORMATS = ("onnx", "ort")


def check_choice(what: str, value: object, choices: Collection[str]) -> None:
    """Refuse what is none of the choices.

    Raises:
        EdgetlError: it names `what`, the value and the choices.
    """
    if value not in choices:
        raise EdgetlError(f"there is no {what} {value!r}: choose one of {', '.join(choices)}")


def check_range(what: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside of `low ≤ value ≤ high`, and what is no number.

    Raises:
        EdgetlError: it names `what`, the value and the bounds.
    """
    if not low <= value <= high:
        raise EdgetlError(f"{what} must lie between {low:g} and {high:g}, not be {value!r}")
