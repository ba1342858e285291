"""Competitors "ort-training" and "portable" of train_step.py: `step_edgetl.py ENGINE JOB`. Runs without torch.

The engine trains on features, which edgetl computes once per picture and keeps. What that takes is
measured too, as edgetl does it: one picture at a time, a single-threaded session called from each thread.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from step_job import Job, report

from edgetl.artifacts import BACKBONE, Artifacts, load_artifacts
from edgetl.engines.registry import choose_micro_batch, open_engine
from edgetl.runtime import process, sessions
from edgetl.runtime.process import peak_rss_mb
from edgetl.tasks.targets import TargetEncoder

EXTRACTION = "extraction"


def main() -> None:
    name, job = sys.argv[1], Job.load(sys.argv[2])
    artifacts = load_artifacts(Path(job.artifacts))
    if name == EXTRACTION:
        print(extraction_ms(artifacts, job.threads))
        return
    sessions.import_onnxruntime()
    baseline = peak_rss_mb()
    micro_batch = choose_micro_batch(artifacts.manifest, job.batch_size)
    engine = open_engine(name, artifacts, threads=job.threads, micro_batch=micro_batch)
    rng = np.random.default_rng(0)
    features = [
        rng.standard_normal((job.batch_size, *spec.shape)).astype(np.float32) for spec in artifacts.manifest.features
    ]
    targets, weights = TargetEncoder("classification", artifacts.manifest.outputs)(
        rng.integers(0, artifacts.manifest.outputs, job.batch_size)
    )
    # in a process of its own, so that its memory does not count
    command = [sys.executable, __file__, EXTRACTION, sys.argv[2]]
    extraction = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    report(
        job, lambda: engine.train_step(features, targets, weights, 1e-4), baseline_mb=baseline, extraction_ms=extraction
    )


def extraction_ms(artifacts: Artifacts, threads: int) -> float:
    """Return the milliseconds per picture that the frozen part takes; 0 where there is none."""
    if not artifacts.has_backbone:
        return 0.0
    session = sessions.open_session(artifacts.file(BACKBONE))
    spec = artifacts.manifest.inputs[0]
    picture = np.random.default_rng(0).standard_normal((1, *spec.shape)).astype(np.float32)
    count = 32

    def run() -> float:
        started = time.perf_counter()
        for _ in process.map_in_order(lambda _: session.run(None, {spec.name: picture}), range(count), threads=threads):
            pass
        return (time.perf_counter() - started) * 1e3 / count

    return sorted(run() for _ in range(3))[1]


if __name__ == "__main__":
    main()
