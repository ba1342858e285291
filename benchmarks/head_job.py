"""The job of finetune_head.py: what every competitor is given, and how it reports back to the parent."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgetl.artifacts import MANIFEST, Preprocessing
from edgetl.runtime import peak_rss_mb

MODEL = "mobilenetv2_100"
MODEL_ARGS: dict[str, Any] = {"num_classes": 1001, "pad_type": "same", "bn_eps": 1e-3}


@dataclass(frozen=True)
class Job:
    """Fine-tune the head of `MODEL` on one folder of pictures, measure its accuracy on another.

    Attributes:
        weights: the pretrained weights, safetensors under timm's names.
        train, test: folders with one folder of pictures per class.
        artifacts: edgetl's prepared directory; its manifest holds the preprocessing of all competitors.
        artifacts_int8: the same with an int8 backbone; None where nothing is asked of it.
        unsplit: onnxruntime-training's artifacts of the whole network.
        litert_models: a folder with LiteRT's files, whose preprocessing all have then; None where it takes no part.
    """

    weights: str
    train: str
    test: str
    artifacts: str
    artifacts_int8: str | None
    unsplit: str
    epochs: int
    litert_models: str | None = None
    batch_size: int = 16
    lr: float = 1e-3
    seed: int = 0

    @staticmethod
    def load(file: str | Path) -> Job:
        """Read what `save` wrote."""
        return Job(**json.loads(Path(file).read_text(encoding="utf-8")))

    def save(self, file: Path) -> None:
        """Write the job for the processes that do it."""
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")

    def preprocessing(self) -> Preprocessing:
        """Return how `edgetl prepare` says that pictures enter the network."""
        manifest = json.loads((Path(self.artifacts) / MANIFEST).read_text(encoding="utf-8"))
        return Preprocessing(**manifest["preprocessing"])


def report_trained() -> None:
    """Tell the parent, which has the clock, that the last step is done, and the peak memory so far."""
    print(json.dumps({"peak_rss_mb": peak_rss_mb()}), flush=True)


def report_accuracy(correct: int, samples: int) -> None:
    """Tell the parent what the trained network is worth; not part of what is timed."""
    print(json.dumps({"accuracy": correct / samples}), flush=True)
