"""The settings of a run that decide its result; `args.yaml` keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetl import defaults
from edgetl.data.pixel_range import check_pixel_range
from edgetl.declaration import LARGEST, MOST, SMALLEST, Range, declared
from edgetl.shared_settings import (
    BATCH_SIZE,
    CACHE_PRECISIONS,
    DATA,
    ENGINES,
    MACHINE,
    TRAINING,
    WindowSettings,
    decode_setting,
)
from edgetl.tasks.figures import ALL_METRICS

SCHEDULES = ("constant", "linear", "cosine")
INITIALIZATIONS = ("auto", "zero", "prototype", "ridge")
STRENGTHS = ("light", "strong")
RATE_WORDS = ("auto", "search")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(WindowSettings):
    """What a run was asked to do, where the data alone do not say it.

    What is None or `auto` is chosen for the data, the network and the machine; `edgetl.runs.run.RunArgs` has what it
    became.
    """

    val_fraction: float = declared(
        defaults.VAL_FRACTION,
        "Share of each class that is kept for validation, where the data have no part for it.",
        group=DATA,
        range=Range(0.0, 1.0, below=True),
    )
    keep_test: bool = declared(
        False,
        "Leave test/ of DATA alone, for `edgetl evaluate`; without val/, --val-fraction validates.",
        group=DATA,
    )
    decode: str = decode_setting(defaults.DECODE)
    pixel_range: Sequence[float] | None = declared(
        None,
        "Values that become black and white in pictures of more than 8 bits, such as 0,1023.",
        group=DATA,
        kind="numbers",
        metavar="LOW,HIGH",
        default_text="found in the training samples",
        check=check_pixel_range,
    )
    augment: str | None = declared(
        None,
        "Train on other views of each sample as well. They are kept in the feature cache.",
        group=DATA,
        choices=STRENGTHS,
    )
    views: int = declared(defaults.VIEWS, "Number of views that --augment makes.", group=DATA, range=Range(1, 10_000))
    flip: bool = declared(True, "Whether views of pictures may be mirrored.", group=DATA, negative="--no-flip")
    epochs: int = declared(
        defaults.EPOCHS,
        "Number of passes over the training samples; 0 keeps what --init gives.",
        group=TRAINING,
        range=Range(0, MOST),
        may_change=True,
    )
    batch_size: int | None = declared(
        None,
        "Samples per step.",
        group=TRAINING,
        range=BATCH_SIZE,
        default_text=f"{defaults.BATCH_SIZE}, or the device's",
    )
    lr: float | str = declared(
        defaults.RATE,
        "Largest learning rate of the schedule. auto chooses it for what trains: a head alone, or pretrained layers as "
        "well. search tries several on the training samples.",
        group=TRAINING,
        range=Range(SMALLEST, LARGEST),
        choices=RATE_WORDS,
        metavar="RATE",
    )
    init: str = declared(
        defaults.INIT,
        "Start of a new head: zero, or in closed form from the features. auto is ridge regression for a linear head.",
        group=TRAINING,
        choices=INITIALIZATIONS,
    )
    schedule: str = declared(
        defaults.SCHEDULE,
        "How the learning rate changes. auto is constant for a head alone, and linear where pretrained layers train.",
        group=TRAINING,
        choices=("auto", *SCHEDULES),
    )
    warmup: float | None = declared(
        None,
        "Share of all steps over which the learning rate rises.",
        group=TRAINING,
        range=Range(0.0, 1.0),
        default_text="0.1 where pretrained layers train, otherwise 0",
    )
    metric: str | None = declared(
        None,
        "Metric that selects the best epoch.",
        group=TRAINING,
        choices=ALL_METRICS,
        default_text="accuracy, macro_f1 or r2, by the task",
    )
    refit: bool | None = declared(
        None,
        "Train again on all samples at the end, validation samples included, for as many epochs as were best; that is "
        "what is deployed.",
        group=TRAINING,
        negative="--no-refit",
        default_text=f"for a head alone or below {defaults.REFIT_BELOW} samples, unless validation data are given",
    )
    patience: int | None = declared(
        None, "Stop after this many epochs without a better one.", group=TRAINING, range=Range(1, MOST)
    )
    label_smoothing: float = declared(
        0.0,
        "Share of each target that is spread over all classes.",
        group=TRAINING,
        range=Range(0.0, 1.0, below=True),
    )
    class_weights: str | None = declared(
        None,
        "balanced gives every class the same weight in the loss, however many samples it has.",
        group=TRAINING,
        choices=("balanced",),
    )
    seed: int = declared(
        defaults.SEED,
        "Random seed for the split and the sample order.",
        group=TRAINING,
        range=Range(0, 2**64 - 1),  # as many as `date +%s%N` and 64 random bits need
    )
    engine: str = declared(
        "auto",
        "What computes training steps. auto is onnxruntime-training where it is installed, otherwise portable.",
        group=MACHINE,
        choices=ENGINES,
    )
    micro_batch: int | None = declared(
        None,
        "Samples computed at once. Their gradients are added up over a batch, which is the same step in less memory.",
        group=MACHINE,
        range=Range(1, MOST),
        kind="auto",
        metavar="N",
        default_text="auto, what suits the network and the memory",
    )
    cache_precision: str | None = declared(
        None,
        "Precision of cached features; float16 halves the cache and rounds the features.",
        group=MACHINE,
        choices=CACHE_PRECISIONS,
        default_text="float32, or the device's",
    )
