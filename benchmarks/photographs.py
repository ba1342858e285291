"""How long does a photograph take from its file to features, and how near are they to those of a full decode?

    python benchmarks/photographs.py ARTIFACTS PICTURES [--count 12] [--size 4032x3024]

PICTURES is a folder of small JPEGs, which are enlarged, given texture and noise, and written as a camera would. Prints
the median processor time on one core of each step, decoded in full and at a part of the size in turns, and how far the
features differ in norm.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from edgetl.artifacts import BACKBONE, IMAGE, PREPROCESS, load_artifacts
from edgetl.data.dataset import read_rgb
from edgetl.data.decode import enough_pixels
from edgetl.runtime.sessions import open_session


def photographs(directory: Path, count: int, size: tuple[int, int]) -> Iterator[bytes]:
    files = sorted(directory.rglob("*.jpg"))
    rng = np.random.default_rng(0)
    for index in range(count):
        with Image.open(files[index * len(files) // count]) as opened:
            large = np.asarray(opened.convert("RGB").resize(size, Image.Resampling.LANCZOS)).astype(np.float32)
        for factor in (8, 4, 2, 1):  # texture of all sizes, and the sensor's noise
            noise = rng.standard_normal((size[1] // factor, size[0] // factor)).astype(np.float32)
            large += 3 * np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))[:, :, None]
        encoded = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6  # turned, as telephones write them
        Image.fromarray(large.clip(0, 255).astype(np.uint8)).save(encoded, "JPEG", quality=92, exif=exif)
        yield encoded.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--size", default="4032x3024")
    given = parser.parse_args()
    prepared = load_artifacts(given.artifacts)
    manifest = prepared.manifest
    preprocess, backbone = (open_session(prepared.file(name)) for name in (PREPROCESS, BACKBONE))
    (name,) = (spec.name for spec in manifest.inputs)
    width, height = map(int, given.size.split("x"))
    times: dict[str, list[list[float]]] = {"full": [], "scaled": []}
    differences = []
    for content in photographs(given.pictures, given.count, (width, height)):
        features = {}
        for decode, taken in times.items():
            marks = [time.process_time()]
            pixels = read_rgb(content, at_least=enough_pixels(manifest.preprocessing, decode))
            marks.append(time.process_time())
            (tensor,) = preprocess.run(None, {IMAGE: pixels})
            marks.append(time.process_time())
            features[decode] = np.concatenate([array.ravel() for array in backbone.run(None, {name: tensor})])
            marks.append(time.process_time())
            taken.append(np.diff(marks).tolist())
        differences.append(np.linalg.norm(features["scaled"] - features["full"]) / np.linalg.norm(features["full"]))
    print("| decoded | decoding ms | preprocess.onnx ms | network ms | together ms |\n|---|---:|---:|---:|---:|")
    for decode, taken in times.items():
        steps = np.median(taken, axis=0) * 1e3
        print(f"| {decode} | {' | '.join(f'{step:.1f}' for step in steps)} | {steps.sum():.1f} |")
    print(f"features differ by {np.mean(differences):.2%} in norm on average, {max(differences):.2%} at most")


if __name__ == "__main__":
    main()
