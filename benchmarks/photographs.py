"""How long does a photograph take from its file to features, and how near are they to those of a full decode?

    python benchmarks/photographs.py ARTIFACTS PICTURES [--count 12] [--size 4032x3024] [--as-they-are] [--times 2]

PICTURES is a folder of JPEGs. They are enlarged, given texture and noise, and written as a camera would, or taken as
they are. Prints the median processor time on one core of each step, decoded in full and at a part of the size in turns,
beside plain decoding with Pillow; and how far the features differ in norm from those of a full decode: after a scaled
one, after a full one without its first row and column, and after up to half a grey level of noise on what the network
takes, which is as much as rounding to 8 bits changes.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from edgetl.artifacts import BACKBONE, PREPROCESS, load_artifacts
from edgetl.data import read_rgb
from edgetl.data.decode import IMAGE, enough_pixels
from edgetl.runtime import open_session


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


def plainly(content: bytes) -> None:
    with Image.open(io.BytesIO(content)) as opened:
        opened.load()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--size", default="4032x3024")
    parser.add_argument("--as-they-are", action="store_true", help="PICTURES are photographs from a camera")
    parser.add_argument("--times", type=float, default=2, help="how much larger a scaled decode must be than resized")
    given = parser.parse_args()
    prepared = load_artifacts(given.artifacts)
    manifest = prepared.manifest
    preprocess, backbone = (open_session(prepared.file(name)) for name in (PREPROCESS, BACKBONE))
    (name,) = (spec.name for spec in manifest.inputs)
    width, height = map(int, given.size.split("x"))
    spec = manifest.preprocessing
    assert spec is not None
    step = np.reshape([1 / (255 * std) for std in spec.std], (1, -1, 1, 1)).astype(np.float32)
    rng = np.random.default_rng(0)

    def features(tensor: np.ndarray) -> np.ndarray:
        return np.concatenate([array.ravel() for array in backbone.run(None, {name: tensor})])

    if given.as_they_are:
        chosen = sorted(given.pictures.rglob("*.jpg"))[: given.count]
        contents = (file.read_bytes() for file in chosen)
    else:
        contents = photographs(given.pictures, given.count, (width, height))
    times: dict[str, list[list[float]]] = {"full": [], "scaled": []}
    plain = []
    differences: dict[str, list[float]] = {"a scaled decode": [], "one pixel less": [], "half a grey level": []}
    for content in contents:
        start = time.process_time()
        plainly(content)
        plain.append(time.process_time() - start)
        found = {}
        for decode, taken in times.items():
            marks = [time.process_time()]
            enough = enough_pixels(spec, decode)
            pixels = read_rgb(content, at_least=None if enough is None else int(enough * given.times / 2))
            marks.append(time.process_time())
            (tensor,) = preprocess.run(None, {IMAGE: pixels})
            marks.append(time.process_time())
            found[decode] = features(tensor)
            marks.append(time.process_time())
            taken.append(np.diff(marks).tolist())
            if decode == "full":
                found["half a grey level"] = features(
                    tensor + step * rng.uniform(-0.5, 0.5, tensor.shape).astype(np.float32)
                )
                (moved,) = preprocess.run(None, {IMAGE: np.ascontiguousarray(pixels[1:, 1:])})
                found["one pixel less"] = features(moved)
        found["a scaled decode"] = found["scaled"]
        for what, each in differences.items():
            each.append(float(np.linalg.norm(found[what] - found["full"]) / np.linalg.norm(found["full"])))
    decoded = np.median(plain) * 1e3
    print("| decoded | decoding ms | preprocess.onnx ms | network ms | together ms | × plain decoding |")
    print("|---|---:|---:|---:|---:|---:|")
    for decode, taken in times.items():
        steps = np.median(taken, axis=0) * 1e3
        cells = " | ".join(f"{each:.1f}" for each in (*steps, steps.sum()))
        print(f"| {decode} | {cells} | {steps.sum() / decoded:.2f} |")
    print(f"\nplain decoding with Pillow: {decoded:.1f} ms\n")
    for what, each in differences.items():
        print(
            f"{what}: features differ by {np.mean(each):.1%} on average, {np.quantile(each, 0.95):.1%} in one of twenty"
        )


if __name__ == "__main__":
    main()
