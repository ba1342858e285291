"""Answer the cases that `make.py` wrote, with the onnxruntime of this Python; without edgetl.

python answer.py CASES RESULT.json
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


def answer(directory: Path, model: dict[str, Any]) -> dict[str, Any]:
    """Return the model's labels, as its metadata have them, and its answers by case and output."""
    session = onnxruntime.InferenceSession(str(directory / model["file"]), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    answers = {}
    for case in model["cases"]:
        inputs = {
            item["name"]: np.fromfile(directory / item["file"], np.dtype(item["dtype"]).newbyteorder("<")).reshape(
                item["shape"]
            )
            for item in case["inputs"]
        }
        answers[case["name"]] = {
            name: {"dtype": str(values.dtype), "shape": list(values.shape), "values": values.ravel().tolist()}
            for name, values in zip(names, session.run(names, inputs), strict=True)
        }
    labels = json.loads(session.get_modelmeta().custom_metadata_map["edgetl"])["labels"]
    return {"labels": labels, "answers": answers}


def main(directory: Path, result: Path) -> None:
    """Write what this runtime is and what it answered; a model that it refuses does not hide the others."""
    models: dict[str, Any] = {}
    for model in json.loads((directory / "cases.json").read_text())["models"]:
        try:
            models[model["file"]] = answer(directory, model)
        except Exception as error:
            models[model["file"]] = {"error": f"{type(error).__name__}: {error}"}
    written = {
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "on": f"Python {platform.python_version()}, numpy {np.__version__}",
        "models": models,
    }
    result.write_text(json.dumps(written))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
