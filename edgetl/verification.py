"""verify(): does everything that a directory or a file says of itself hold?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgetl.artifacts import MANIFEST, Artifacts, load_artifacts
from edgetl.deployed import DeployedModel
from edgetl.deployment.compose import content_hash, run_hash, samples_hash
from edgetl.errors import ArtifactsError, DeployError, EdgetlError, RunError
from edgetl.run import ARGS, BEST, LAST, VALIDATION, Run


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
    if target.is_file():
        return _model(target, prepared, None if run is None else Run(Path(run)))
    if not target.exists():
        raise EdgetlError(f"{target} does not exist: give a prepared directory, a run, or a deployed model")
    raise EdgetlError(f"{target} is no prepared directory, no run and no deployed model")


def _artifacts(path: Path) -> Verified:
    prepared = load_artifacts(path)
    count = len(prepared.manifest.files)
    return Verified(str(path), "artifacts", (f"{count} files have the SHA-256 that {MANIFEST} lists",), ())


def _run(path: Path, prepared: Artifacts | None) -> Verified:
    run = Run(path)
    args = run.read_args()
    checked, unchecked = [f"{ARGS} is whole"], []
    for name in (LAST, BEST):
        found = run.read_checkpoint(name)
        if found is None:
            unchecked.append(f"{name} is not there: the run has not begun")
        else:
            checked.append(f"{name} (epoch {found.epoch}) has the checksums of its arrays")
    samples = sum(run.count_samples().values())
    epochs = len(run.read_results())
    checked.append(f"the list of {samples} samples, the results of {epochs} epochs and the metrics can be read")
    run.read_metrics()
    if (path / VALIDATION).is_file():
        checked.append(f"the logits of {len(run.read_validation().paths)} samples have their checksums")
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
    checked, unchecked = [], []
    recorded, found = provenance.get("content_sha256"), content_hash(path)
    if recorded is None or found is None:
        unchecked.append("its content: the format ort, and edgetl before 0.1, hold no hash of it")
    elif found != recorded:
        raise DeployError(f"{path} has been altered: its content has not the SHA-256 it was deployed with")
    else:
        checked.append("its content has the SHA-256 it was deployed with")
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
