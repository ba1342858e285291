"""What train_step.py does before the clock runs: `step_prepare.py JOB` on the workstation, with torch."""

from __future__ import annotations

import sys

import timm
import torch
from safetensors.torch import save_file
from step_job import CLASSES, NETWORKS, Job

import edgetl


def main() -> None:
    job = Job.load(sys.argv[1])
    name = NETWORKS[job.network]
    if not job.weights.exists():
        torch.manual_seed(0)
        save_file(timm.create_model(name).state_dict(), job.weights)
    edgetl.prepare(
        f"timm:{name}", out=job.artifacts, classes=CLASSES, weights=job.weights, train=[job.policy], force=True
    )


if __name__ == "__main__":
    main()
