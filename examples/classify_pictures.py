"""Fine-tune, deploy and use a picture classifier from Python, with progress; runs without torch.

    python examples/classify_pictures.py [ARTIFACTS DATA]

Without arguments it takes the prepared directory that comes with edgetl and the demo's digits.
"""

import sys
import tempfile
from pathlib import Path

import edgetl
from edgetl.demo.digits import write_pictures
from edgetl.demo.story import committed_artifacts
from edgetl.events import EpochEnd, Event


def on_event(event: Event) -> None:
    if isinstance(event, EpochEnd) and event.epoch % 10 == 0:
        print(f"epoch {event.epoch}: validation loss {event.val_loss:.3f}, accuracy {event.val_accuracy:.1%}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if len(sys.argv) == 3:
            artifacts, data = Path(sys.argv[1]), Path(sys.argv[2])
        else:
            write_pictures(work / "digits")
            artifacts, data = committed_artifacts(), work / "digits" / "train"
        result = edgetl.finetune(artifacts, data, out=work / "run", epochs=50, lr=1e-2, on_event=on_event)
        print(f"best validation accuracy {result.val_accuracy:.1%} after epoch {result.best_epoch}")
        edgetl.deploy(result.run, out=work / "model.onnx")
        picture = next(path for path in sorted(data.rglob("*")) if path.suffix in (".png", ".jpg"))
        (prediction,) = edgetl.predict(work / "model.onnx", [picture])
        print(f"{picture.parent.name}/{picture.name} is {prediction.label} ({prediction.probability:.1%})")


if __name__ == "__main__":
    main()
