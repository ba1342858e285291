"""What less precision costs and saves: float32, float16, int8 afterwards, and an int8 backbone before training.

    python benchmarks/precision.py PHOTOS PHOTOS_INT8 TRAIN TEST [--rounds 60] [--seeds 3]

PHOTOS is a prepared directory, PHOTOS_INT8 the same prepared with `--backbone int8`; TRAIN and TEST are folders of
pictures. Heads are trained for 10 epochs with several seeds, a fifth of TRAIN validating; accuracy is on TEST,
where the deployed files are evaluated. Times are of the network alone, from a tensor to logits: all forms in turns,
each `--rounds` times, the median, and the median of each round's ratio to float32. With one thread it is CPU time,
which other work on the machine changes least; with two it is elapsed time. The error of the features is that of the
int8 backbone's on TEST, relative to their norm.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

import edgetl
import edgetl.benchmarking
from edgetl import quantization, runtime
from edgetl.artifacts import BACKBONE, PREPROCESS, load_artifacts
from edgetl.data import Wanted, open_inputs
from edgetl.features import decoder_of

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
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    accuracies: dict[str, list[float]] = {form: [] for form in FORMS}
    extraction: dict[str, list[float]] = {"whole": [], "int8": []}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for seed in range(given.seeds):
            for run, artifacts in (("whole", given.photos), ("int8", given.photos_int8)):
                options = {"seed": seed, "out": work / f"{run}-{seed}", "cache": work / "cache", "threads": 1}
                result = edgetl.finetune(artifacts, given.train, **options)  # type: ignore[arg-type]
                if result.feature_ms_per_image:
                    extraction[run].append(result.feature_ms_per_image)
            for form, (run, options) in FORMS.items():
                file = work / f"{form}.onnx"
                edgetl.deploy(work / f"{run}-{seed}", out=file, max_drop=100, **options)  # type: ignore[arg-type]
                accuracies[form].append(edgetl.evaluate(file, given.test).accuracy or 0.0)
        for form, (run, options) in FORMS.items():
            options = {**options, "input": "tensor", "batch": 1, "max_drop": 100}
            edgetl.deploy(work / f"{run}-0", out=work / f"tensor {form}.onnx", **options)  # type: ignore[arg-type]
        files = {form: work / f"tensor {form}.onnx" for form in FORMS}
        times = {threads: timed(files, threads, given.rounds) for threads in (1, 2)}
        print("| | accuracy | size MB | ms, one thread | × float32 | ms, two threads | × float32 | peak MB |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        for form, values in accuracies.items():
            measured = edgetl.benchmark(files[form], threads=1, seconds=1)
            spread = f" ± {statistics.stdev(values):.1%}" if len(values) > 1 else ""
            cells = [f"{statistics.mean(values):.1%}{spread}", f"{measured.size_mb:.1f}"]
            for found in times.values():
                ratios = [own / base for own, base in zip(found[form], found["float32"], strict=True)]
                cells += [f"{statistics.median(found[form]):.2f}", f"{statistics.median(ratios):.2f}"]
            print(f"| {form} | {' | '.join(cells)} | {measured.peak_rss_mb:.0f} |")
    for run, milliseconds in extraction.items():
        print(f"\nfeatures, {run}: {statistics.median(milliseconds):.1f} ms for each picture with one thread")
    print(f"\nerror of the int8 backbone's features: {feature_error(given.photos, given.photos_int8, given.test):.1%}")
    print(f"onnxruntime {runtime.import_onnxruntime().__version__}")


def timed(files: dict[str, Path], threads: int, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of one call of each file, round after round: of CPU with one thread, else elapsed."""
    now = time.thread_time if threads == 1 else time.perf_counter
    sessions = {form: runtime.open_session(file, threads=threads) for form, file in files.items()}
    first = next(iter(sessions.values())).get_inputs()[0]
    feed = np.random.default_rng(0).uniform(-1, 1, first.shape).astype(np.float32)
    found: dict[str, list[float]] = {form: [] for form in files}
    for number, (form, session) in itertools.product(range(rounds + 3), sessions.items()):
        started = now()
        session.run(None, {session.get_inputs()[0].name: feed})
        if number >= 3:  # the first calls set things up
            found[form].append((now() - started) * 1e3)
    return found


def feature_error(whole: Path, int8: Path, pictures: Path) -> float:
    """Return how far the features of the int8 backbone are from float32's, relative to their norm."""
    prepared = load_artifacts(whole)
    samples = open_inputs(pictures, Wanted("image", "classification"))
    names = [spec.name for spec in prepared.manifest.inputs]
    feeds = partial(quantization.calibration, samples, decoder_of(prepared), prepared.file(PREPROCESS), names, seed=0)
    features = []
    for artifacts in (prepared, load_artifacts(int8)):
        session = runtime.open_session(artifacts.file(BACKBONE))
        features.append([np.concatenate([session.run(None, dict(feed))[0] for feed in feeds()])])
    return quantization.difference(features[1], features[0])


if __name__ == "__main__":
    main()
