"""verify(): does everything that a directory or a file says of itself hold?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgetl.artifacts import MANIFEST, Artifacts, load_artifacts
from edgetl.deployment.compose import run_hash, samples_hash
from edgetl.deployment.deployed import DeployedModel
from edgetl.errors import ArtifactsError, EdgetlError, RunError
from edgetl.files import storage
from edgetl.files.kinds import MADE_BY_EDGETL, mistaken
from edgetl.files.seal import is_sealed_model
from edgetl.runs.compare import is_finished
from edgetl.runs.run import ARGS, BEST, FINAL, LAST, METRICS, RESULTS, SAMPLES, VALIDATION, Run


@dataclass(frozen=True)
class Verified:
    """What was verified.

    Attributes:
        kind: `artifacts`, `run` or `model`.
        checked: what agreed, a phrase each.
        unchecked: what could not be compared, and why.
    """

    path: str
    kind: str
    checked: tuple[str, ...]
    unchecked: tuple[str, ...]


def verify(path: str | Path, *, artifacts: str | Path | None = None, run: str | Path | None = None) -> Verified:
    """Check every hash of a prepared directory, a run or a deployed model.

    Args:
        artifacts: the prepared directory that a run or a model should have come from; default, of a run, where it
            lay then.
        run: the run that a model should have come from.

    Raises:
        EdgetlError: something differs, is damaged or missing; the message says what.
    """
    target = Path(path)
    prepared = None if artifacts is None else load_artifacts(Path(artifacts))
    if (target / MANIFEST).is_file():
        return _artifacts(target)
    if (target / ARGS).is_file():
        return _run(target, prepared)
    if target.suffix.lower() in (".onnx", ".ort") or (target.is_file() and is_sealed_model(target)):
        return _model(target, prepared, None if run is None else Run(Path(run)))
    raise EdgetlError(mistaken(target, MADE_BY_EDGETL))


def _artifacts(path: Path) -> Verified:
    prepared = load_artifacts(path)
    count = len(prepared.manifest.files)
    return Verified(str(path), "artifacts", (f"{count} files have the SHA-256 that {MANIFEST} lists",), ())


def _run(path: Path, prepared: Artifacts | None) -> Verified:
    run = Run(path)
    args = run.read_args()
    checked, unchecked = [f"{ARGS} has the SHA-256 that it holds"], []
    if (path / SAMPLES).is_file() and storage.sha256_file(path / SAMPLES) != args.samples_sha256:
        raise RunError(f"{path / SAMPLES} is not the one that {ARGS} names: start the run anew with --force")
    checked.append(f"{SAMPLES}, of {sum(run.count_samples().values())} samples, has the SHA-256 that {ARGS} holds")
    for name in (BEST, LAST, FINAL):
        found = run.read_checkpoint(name)
        if found is None and name == FINAL:
            continue
        if found is None:
            unchecked.append(f"{name} is not there: the run has not begun")
            continue
        checked.append(f"{name} (epoch {found.epoch}) has the SHA-256 at its end")
        if name == LAST:
            if not run.has_results_of(found.history):
                raise RunError(f"{path / RESULTS} differs from {LAST}: repeat the first command with --resume")
            checked.append(f"{RESULTS} has the {len(found.history)} lines of {LAST}")
    if run.read_metrics() is not None:
        checked.append(f"{METRICS} has the SHA-256 that it holds")
    if (path / VALIDATION).is_file():
        checked.append(f"the logits of {len(run.read_validation().paths)} samples have the SHA-256 at their end")
        if not is_finished(run.read_metrics(), run.read_results()) and not run.is_proven():
            unchecked.append(
                f"{VALIDATION} is not of the weights in {run.deployed_weights()}: the run went on and is not finished"
            )
    else:
        unchecked.append(f"{VALIDATION} is not there: the run is not finished")
    if prepared is None and (Path(args.artifacts) / MANIFEST).is_file():
        prepared = load_artifacts(Path(args.artifacts))
    if prepared is None:
        unchecked.append(f"its prepared directory, {args.artifacts}, is gone: give --artifacts DIR")
    elif prepared.sha256 != args.artifacts_sha256:
        raise ArtifactsError(f"{prepared.path} is not the prepared directory that {path} was trained from")
    else:
        checked.append(f"{prepared.path} is the prepared directory it was trained from")
    return Verified(str(path), "run", tuple(checked), tuple(unchecked))


def _model(path: Path, prepared: Artifacts | None, run: Run | None) -> Verified:
    provenance = DeployedModel(path).provenance
    checked, unchecked = ["its content has the SHA-256 at its end"], []
    if prepared is None:
        unchecked.append("where it came from: give --artifacts DIR")
    elif prepared.sha256 != provenance.get("artifacts_sha256"):
        raise ArtifactsError(f"{path} was not made from the prepared directory {prepared.path}")
    else:
        checked.append(f"it was made from {prepared.path}")
    if run is None:
        unchecked.append("which run it came from: give --run RUN")
    elif (run_hash(run), samples_hash(run)) != (provenance.get("run_sha256"), provenance.get("samples_sha256")):
        raise RunError(f"{path} was not made from the run {run.path} as it is now")
    else:
        checked.append(f"its weights, settings and samples are those of {run.path}")
    return Verified(str(path), "model", tuple(checked), tuple(unchecked))


__all__ = ["Verified", "verify"]
