"""Fine-tune the demo's digits, deploy every variant, and write what each has to answer; needs edgetl.

    python make.py DIRECTORY

writes `*.onnx`, `cases.json`, the cases' inputs as raw little-endian `*.bin`, and `picture.png`.
"""

from __future__ import annotations

import io
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

import edgetl
from edgetl.demo.digits import NEW, write_pictures
from edgetl.demo.story import committed_artifacts
from edgetl.deployment.deployed import DeployedModel


@dataclass(frozen=True)
class Variant:
    """A way to deploy the run.

    Attributes:
        file: its name; onnxruntime goes by the suffix.
        options: of `edgetl.deploy`.
        tolerances: by output, how far another runtime may be from what edgetl computes here.
    """

    file: str
    options: Mapping[str, Any]
    tolerances: Mapping[str, float]


# the page classifies with the first, whose input is the picture
VARIANTS = (
    Variant("float32.onnx", {}, {"logits": 5e-5, "probabilities": 1e-5}),
    Variant("tensor.onnx", {"input": "tensor"}, {"logits": 5e-5, "probabilities": 1e-5}),
    Variant("batch4.onnx", {"input": "tensor", "batch": 4}, {"logits": 5e-5, "probabilities": 1e-5}),
    Variant("float16.onnx", {"precision": "float16"}, {"logits": 5e-2, "probabilities": 1e-2}),
    Variant("int8.onnx", {"precision": "int8", "max_drop": 5}, {"logits": 5e-1, "probabilities": 5e-2}),
    Variant("mobile.ort", {}, {"logits": 5e-5, "probabilities": 1e-5}),
    Variant("mobile8.ort", {"precision": "int8", "max_drop": 5}, {"logits": 5e-1, "probabilities": 5e-2}),
)  # fmt: skip

PICTURE = "picture.png"
LABEL, DRAWN = "9", "0099.png"
"""The page's picture: which digit it is, and which of the test part; the model must read it right."""
SIDE = 240
"""How large the picture is; the network takes 24×24."""
PER_DIGIT = 3


def contents(test: Path) -> Iterator[tuple[str, bytes]]:
    """Name the cases and encode them: the page's picture, digits as drawn, and pictures of other sizes."""
    yield PICTURE, png(Image.open(test / LABEL / DRAWN).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    for digit in NEW:
        for file in sorted((test / str(digit)).glob("*.png"))[:PER_DIGIT]:
            yield f"{digit}-{file.name}", file.read_bytes()
    rng = np.random.default_rng(0)
    for width, height in ((1, 1), (5, 3), (24, 24), (131, 47), (37, 90), (640, 480)):
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        yield f"noise-{width}x{height}.png", png(Image.fromarray(noise))


def png(image: Image.Image) -> bytes:
    """Encode a picture."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def described(name: str, values: NDArray[Any]) -> dict[str, Any]:
    """Say what a tensor is."""
    return {"name": name, "dtype": str(values.dtype), "shape": list(values.shape)}


def write_case(directory: Path, model: DeployedModel, name: str, content: bytes) -> dict[str, Any]:
    """Write a case's inputs, and say what they are and what the model answers."""
    inputs = []
    feeds = model.feeds(model.decode(content))
    for key, values in feeds.items():
        file = f"{model.path.name}.{name}.{key}.bin"
        (directory / file).write_bytes(values.astype(values.dtype.newbyteorder("<")).tobytes())
        inputs.append({**described(key, values), "file": file})
    probabilities, logits = model.run(feeds)
    if name == PICTURE and (said := model.labels[probabilities.reshape(-1, len(model.labels))[0].argmax()]) != LABEL:
        raise SystemExit(f"{model.path.name} takes the page's picture, a {LABEL}, for a {said}: name another")
    outputs = [
        {**described(key, values), "values": values.reshape(-1).tolist()}
        for key, values in (("probabilities", probabilities), ("logits", logits))
    ]
    return {"name": name, "inputs": inputs, "outputs": outputs}


def distribution() -> str:
    """Name what the module onnxruntime belongs to."""
    names = metadata.packages_distributions()["onnxruntime"]
    return f"{'+'.join(sorted(set(names)))} {onnxruntime.__version__}"


def main(directory: Path) -> None:
    """Write everything."""
    directory.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_pictures(work)
        run, cache = work / "run", work / "cache"
        edgetl.finetune(committed_artifacts(), work / "train", out=run, cache=cache, val_fraction=0, epochs=80, lr=0.01)
        cases = dict(contents(work / "test"))
        models = []
        for variant in VARIANTS:
            edgetl.deploy(run, out=directory / variant.file, **variant.options)
            model = DeployedModel(directory / variant.file)
            models.append(
                {
                    "file": variant.file,
                    "labels": model.labels,
                    "tolerances": dict(variant.tolerances),
                    "cases": [write_case(directory, model, *case) for case in cases.items()],
                }
            )
        (directory / PICTURE).write_bytes(cases[PICTURE])
    written = {
        "made_by": f"edgetl {edgetl.__version__}, {distribution()}, Python {platform.python_version()}",
        "picture": {"file": PICTURE, "case": PICTURE, "label": LABEL},
        "models": models,
    }
    (directory / "cases.json").write_text(json.dumps(written, indent=1))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    main(target)
