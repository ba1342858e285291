"""The job of train_step.py: what every competitor is given, and how it is timed and reports back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from edgetl.runtime.process import peak_rss_mb

CLASSES = 10
NETWORKS = {
    "mobilenetv3-small": "mobilenetv3_small_100",
    "mobilenetv2": "mobilenetv2_100",
    "resnet18": "resnet18",
    "vit-tiny": "vit_tiny_patch16_224",
}
"""timm's names."""


@dataclass(frozen=True)
class Job:
    """Train one share of one network on random pictures.

    Attributes:
        network: a key of `NETWORKS`; its weights are random, drawn with seed 0.
        policy: what trains, as `edgetl prepare --train` takes it.
        artifacts: edgetl's prepared directory.
        batch_size: pictures per step.
        steps: steps that are timed; `WARM_UP` more come before.
    """

    network: str
    policy: str
    artifacts: str
    batch_size: int
    steps: int
    threads: int

    @staticmethod
    def load(text: str) -> Job:
        """Read what `save` wrote."""
        return Job(**json.loads(text))

    def save(self) -> str:
        """Write the job as an argument for the processes that do it."""
        return json.dumps(asdict(self))

    @property
    def weights(self) -> Path:
        """Where step_prepare.py writes the network's weights."""
        return Path(self.artifacts).parent / f"{self.network}.safetensors"


WARM_UP = 2


def report(job: Job, step: Callable[[], object], **also: float) -> None:
    """Time the steps and tell the parent; call this when all imports are done.

    Wall and CPU time are medians of the steps, in milliseconds per picture; memory is in 10^6 bytes.
    """
    for _ in range(WARM_UP):
        step()
    wall, cpu = [], []
    for _ in range(job.steps):
        started = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - started[0])
        cpu.append(time.process_time() - started[1])
    middle = job.steps // 2
    per_image = 1e3 / job.batch_size
    found = {
        "wall_ms": sorted(wall)[middle] * per_image,
        "cpu_ms": sorted(cpu)[middle] * per_image,
        "peak_rss_mb": peak_rss_mb(),
        **also,
    }
    print(json.dumps(found), flush=True)
