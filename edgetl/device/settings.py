"""The settings of `plan`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from edgetl import defaults
from edgetl.declaration import Range, declared
from edgetl.shared_settings import BATCH_SIZE, CACHE_PRECISIONS, ENGINES, THIS, DeviceSettings, decode_setting


@dataclass(frozen=True)
class PlanSettings(DeviceSettings):
    """What `plan` takes.

    Attributes:
        artifacts: a prepared directory.
    """

    artifacts: str | Path
    _: KW_ONLY
    device: str = declared(
        THIS,
        "Device profile: a name that `edgetl devices` lists, or a file such as ./mine.toml.",
        metavar="NAME|FILE",
    )
    images: int | None = declared(
        None,
        "Number of samples, for the disk space that their features take. With --augment, multiply it by one more than "
        "--views.",
        range=Range(1, 10**12),
        metavar="N",
    )
    pictures: tuple[int, int] | None = declared(
        None,
        "Width and height of the photographs (JPEG), such as 4032x3024, for the memory that decoding takes.",
        kind="width and height",
        metavar="WxH",
    )
    decode: str = decode_setting(defaults.DECODE)
    engine: str | None = declared(
        None, "What computes training steps.", choices=ENGINES[1:], default_text="the device's"
    )
    batch_size: int | None = declared(None, "Samples per step.", range=BATCH_SIZE, default_text="the device's")
    cache_precision: str | None = declared(
        None, "Precision of cached features.", choices=CACHE_PRECISIONS, default_text="the device's"
    )
