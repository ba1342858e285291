"""Does a run's memory grow with its data? Peak memory of fine-tuning on 1,000 and on 100,000 pictures.

    python benchmarks/many_samples.py [--small 1000] [--large 100000]

Pictures of noise, 8×8, in the demo's four classes; the demo's prepared directory. Each run is a process of
its own: once with an empty cache, and once more, when all features come from it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from edgetl.demo.story import committed_artifacts


def write(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for label in "6789":
        (folder / label).mkdir(parents=True)
    for number in range(count):
        pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "6789"[number % 4] / f"{number}.png")


def run(data: Path, work: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "edgetl", "finetune", str(committed_artifacts()), str(data)]
    command += ["--out", str(work / "run"), "--force", "--epochs", "2", "--cache", str(work / "cache"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=1000)
    parser.add_argument("--large", type=int, default=100_000)
    given = parser.parse_args()
    print("| pictures | cache | peak MB | feature seconds | training seconds |\n|---:|---|---:|---:|---:|")
    for count in (given.small, given.large):
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            write(work / "data", count)
            for cache in ("empty", "full"):
                found = run(work / "data", work)
                figures = (found["peak_rss_mb"], found["feature_seconds"], found["training_seconds"])
                print(f"| {count:,} | {cache} | {' | '.join(f'{figure:.0f}' for figure in figures)} |", flush=True)


if __name__ == "__main__":
    main()
