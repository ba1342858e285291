"""What less precision costs and saves: float32, float16, int8 afterwards, and an int8 backbone before training.

    python benchmarks/precision.py PHOTOS PHOTOS_INT8 TRAIN TEST [--repeat 3] [--seeds 3]

PHOTOS is a prepared directory, PHOTOS_INT8 the same prepared with `--backbone int8`; TRAIN and TEST are folders of
pictures. Heads are trained for 10 epochs with several seeds, a fifth of TRAIN validating; accuracy is on TEST,
where the deployed files are evaluated. Times are of `edgetl benchmark`, in turns, the median of --repeat.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import edgetl
import edgetl.benchmarking

FORMS = {
    "float32": ("whole", {}),
    "float16": ("whole", {"precision": "float16"}),
    "int8, afterwards": ("whole", {"precision": "int8"}),
    "int8, classifier too": ("whole", {"precision": "int8", "quantize_head": True}),
    "int8 backbone, then trained": ("int8", {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("photos", "photos_int8", "train", "test"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    accuracies: dict[str, list[float]] = {form: [] for form in FORMS}
    extraction: dict[str, list[float]] = {"whole": [], "int8": []}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for seed in range(given.seeds):
            for run, artifacts in (("whole", given.photos), ("int8", given.photos_int8)):
                options = {"seed": seed, "out": work / f"{run}-{seed}", "cache": work / f"cache-{seed}", "threads": 1}
                result = edgetl.finetune(artifacts, given.train, **options)  # type: ignore[arg-type]
                assert result.feature_ms_per_image is not None
                extraction[run].append(result.feature_ms_per_image)
            for form, (run, options) in FORMS.items():
                file = work / f"{form}.onnx"
                edgetl.deploy(work / f"{run}-{seed}", out=file, max_drop=100, **options)  # type: ignore[arg-type]
                accuracies[form].append(edgetl.evaluate(file, given.test).accuracy or 0.0)
        times: dict[str, list[edgetl.benchmarking.Benchmark]] = {form: [] for form in FORMS}
        for _ in range(given.repeat):
            for form in FORMS:
                times[form].append(edgetl.benchmark(work / f"{form}.onnx", threads=1))
    print("| | accuracy | size MB | ms for one, one thread | peak MB |\n|---|---:|---:|---:|---:|")
    for form, found in times.items():
        ms = statistics.median(item.timings[0].median_ms for item in found)
        peak = statistics.median(item.peak_rss_mb for item in found)
        values = accuracies[form]
        spread = f" ± {statistics.stdev(values):.1%}" if len(values) > 1 else ""
        print(f"| {form} | {statistics.mean(values):.1%}{spread} | {found[0].size_mb:.1f} | {ms:.1f} | {peak:.0f} |")
    for run, seconds in extraction.items():
        print(f"\nfeatures, {run}: {statistics.median(seconds):.1f} ms for each picture with one thread")


if __name__ == "__main__":
    main()
