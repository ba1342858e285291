"""describe(): what a prepared directory, a run or a deployed model is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetl.artifacts import MANIFEST, load_artifacts
from edgetl.deployment.deployed import DeployedModel
from edgetl.errors import EdgetlError
from edgetl.files import schema
from edgetl.files.kinds import MADE_BY_EDGETL, mistaken
from edgetl.files.seal import is_sealed_model
from edgetl.runs.compare import is_finished
from edgetl.runs.run import ARGS, LAST, Run
from edgetl.tasks.figures import best_epoch


def describe(path: str | Path) -> dict[str, Any]:
    """Return a description of `path` as plain JSON types; `kind` is artifacts, run or model.

    Raises:
        EdgetlError: it is none of the three, or damaged.
    """
    target = Path(path)
    if (target / MANIFEST).is_file():
        artifacts = load_artifacts(target)
        manifest = schema.to_json(artifacts.manifest)
        manifest["files"] = {
            name: {"sha256": digest, "bytes": artifacts.file(name).stat().st_size}
            for name, digest in artifacts.manifest.files.items()
        }
        return {"kind": "artifacts", "path": str(target), "sha256": artifacts.sha256, **manifest}
    if (target / ARGS).is_file():
        run = Run(target)
        last = run.read_checkpoint(LAST, engine_state=False)
        args, metrics = run.read_args(), run.read_metrics()
        return {
            "kind": "run",
            "path": str(target),
            "finished": is_finished(metrics, run.read_results()),
            "args": schema.to_json(args),
            "finished_epochs": last.epoch if last else 0,
            "best_epoch": best_epoch(last.history, args.metric).epoch if last else None,
            "history": schema.to_json(last.history if last else ()),
            "metrics": metrics,
        }
    if target.suffix.lower() in (".onnx", ".ort") or (target.is_file() and is_sealed_model(target)):
        model = DeployedModel(target)
        return {"kind": "model", "path": str(target), "bytes": target.stat().st_size, **model.provenance}
    raise EdgetlError(mistaken(target, MADE_BY_EDGETL))
