"""adapt(): prepare, fine-tune, deploy and evaluate in one call, for one machine, with names and places chosen.

Beside the deployed file `NAME.onnx` lies the folder `NAME.edgetl`, in which everything is kept for later use:

```
NAME.edgetl/
  artifacts/   the prepared directory; used again while source, options and labels stay the same
  run/         the run and its report
  run-before/  the run of the call before, if there was one
  adapt.json   what they were made from, and what was deployed
```
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import edgetl
from edgetl import metrics, runtime, schema, storage
from edgetl.artifacts import load_artifacts
from edgetl.belongings import refuse_others
from edgetl.data import has_test, label_names, open_measured, task_of, wanted_by
from edgetl.data.decode import ARRAY
from edgetl.data.kind import kind_of
from edgetl.deployed import Evaluation, evaluate
from edgetl.deployment import DeployResult, check_form, deploy
from edgetl.deployment.compose import run_hash
from edgetl.errors import ArtifactsError, DataError, DeployError, EdgetlError, RunError
from edgetl.events import Event, Note, OnEvent, ignore
from edgetl.external_data import external_files
from edgetl.kinds import ARGS, DATA, MANIFEST, mistaken
from edgetl.preparation import PrepareResult, prepare
from edgetl.run import LOCK, REPORT, Run
from edgetl.seal import seal_json, unseal_json
from edgetl.settings import check_options
from edgetl.storage import sha256_file
from edgetl.train import FinetuneResult, finetune

STATE = "adapt.json"
STEPS: Mapping[str, Callable[..., Any]] = {
    "prepare": prepare,
    "finetune": finetune,
    "deploy": deploy,
    "evaluate": evaluate,
}
"""What `adapt` stands for, in this order."""

_CHOSEN = {
    *("source", "data", "artifacts", "run", "model", "out", "labels", "labels_from", "classes", "keep_test"),
    *("resume", "force", "on_event"),
}
"""Arguments of the steps that `adapt` chooses itself."""


@dataclass(frozen=True)
class Adaptation:
    """What `adapt` made, and how good it is.

    Attributes:
        model: the deployed file.
        artifacts, run, report: where the prepared directory, the run and its page lie.
        prepared: None if the prepared directory was there already.
        evaluated: the deployed file on test data; None if there are none.
        validation: figures of the run's validation samples, and their `loss`, as in `evaluated`; with the weights of
            the best epoch, which these samples did not train. Empty without validation data.
    """

    model: str
    artifacts: str
    run: str
    report: str
    prepared: PrepareResult | None
    finetuned: FinetuneResult
    deployed: DeployResult
    evaluated: Evaluation | None
    validation: dict[str, float | None]
    seconds: float
    peak_rss_mb: float


@dataclass(frozen=True)
class _State:
    """The content of `adapt.json`.

    Attributes:
        origin: hash of what the prepared directory was made from (`_origin`).
        artifacts_sha256: of that directory; empty before it is finished.
        run_sha256, model_sha256: of the run that was deployed last, and of the file; empty before.
    """

    edgetl_version: str
    origin: str = ""
    artifacts_sha256: str = ""
    run_sha256: str = ""
    model_sha256: str = ""


def kept_beside(out: str | Path) -> Path:
    """Return the folder in which `adapt` keeps what it makes on the way to the deployed file `out`."""
    out = Path(out)
    return out.with_name(f"{out.stem}.edgetl")


def adapt(
    source: str,
    data: str | Path,
    *,
    out: str | Path,
    test: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    on_event: OnEvent = ignore,
    **options: Any,
) -> Adaptation:
    """Make one ONNX file of a pretrained classifier and labelled data: `prepare`, `finetune`, `deploy`, `evaluate`.

    What the steps make is kept in `kept_beside(out)`. A second call makes another run, replaces the deployed file, and
    uses the prepared directory again if source, options and labels are the same; features of samples that it knows
    come from the cache.

    Args:
        source: as in `prepare`; or a prepared directory, and then neither PyTorch nor onnx is needed to prepare.
        data: labelled data in any of the forms of docs/data.md. They name the labels, and `task_of` reads the task
            from them.
        out: the file to write.
        test: data to evaluate the file on at the end; default the part `test` of `data`, which is left alone until
            then. Without both, only the validation figures tell how good the file is.
        resume: go on after an interruption, at whatever stage it came, with the result of an undisturbed call.
        force: begin anew: replace the file at `out`, whatever it is, prepared directory and run, finished or not.
        options: those of `prepare`, `finetune`, `deploy` and `evaluate`, by their names there; each goes to every
            step that has it.

    Raises:
        EdgetlError: with one sentence for each thing a user can cause.
        TypeError: no step has such an option.
    """
    started = time.monotonic()
    on_event = _once(on_event)
    target, folder = Path(out), kept_beside(out)
    artifacts, run = folder / "artifacts", Run(folder / "run")
    given = _divided(options)
    is_prepared = (Path(source) / MANIFEST).is_file()
    if is_prepared:
        artifacts = Path(source)
    _check(given, source if is_prepared else None, Path(data), test, target, folder)
    storage.refuse_existing(folder, force=True, marker=STATE, besides=LOCK)
    with storage.locked(folder / LOCK, f"the folder {folder}"), _tidied(folder):
        if force:
            here = sha256_file(target) if target.is_file() else ""
            state = _State(edgetl.__version__, run_sha256=_hash_of_finished(run) or "", model_sha256=here)
        else:
            state = _read(folder)
            _refuse_to_replace(target, run, state, resume=resume)
        _write(folder, state)  # from now on the folder is known as ours
        with _moved_aside(run.path, folder / "run-before", resume=resume):
            prepared = None
            if not is_prepared:
                asked = given["prepare"]
                if "task" not in asked:
                    asked["task"] = task_of(Path(data), tuple(options.get("label_column", ())), on_event)
                origin = _origin(source, Path(data), asked)
                if _is_intact(artifacts, state, origin):
                    on_event(Note(f"{artifacts} is used again: source, options and labels are the same"))
                else:
                    if resume:
                        _refuse_another_network(run, artifacts)
                    prepared = prepare(source, out=artifacts, labels_from=data, force=True, on_event=on_event, **asked)
                    state = replace(state, origin=origin, artifacts_sha256=load_artifacts(artifacts).sha256)
                    _write(folder, state)

            manifest = load_artifacts(artifacts).manifest
            columns = options.get("input_column", ()), options.get("label_column", ())
            wanted = wanted_by(manifest, manifest.labels, *columns)
            keeps_test = test is None and has_test(Path(data), wanted)
            measured = test if test is not None else data if keeps_test else None
            if measured is not None and manifest.modality != ARRAY:  # whose columns are known after training
                open_measured(Path(measured), wanted)  # what is wrong with them is told before anything is computed
            finetuned = finetune(
                artifacts,
                data,
                out=run.path,
                keep_test=keeps_test,
                resume=resume,
                on_event=on_event,
                **given["finetune"],
            )
            deployed = deploy(run.path, out=target, on_event=on_event, **given["deploy"])
            _write(folder, replace(state, run_sha256=run_hash(run), model_sha256=sha256_file(target)))
            evaluated = None
            if measured is not None:
                evaluated = evaluate(target, measured, on_event=on_event, **given["evaluate"])
    return Adaptation(
        model=str(target),
        artifacts=str(artifacts),
        run=str(run.path),
        report=str(run.path / REPORT),
        prepared=prepared,
        finetuned=finetuned,
        deployed=deployed,
        evaluated=evaluated,
        validation=_validated(run, finetuned),
        seconds=time.monotonic() - started,
        peak_rss_mb=runtime.peak_rss_mb(),
    )


def options_of(step: str) -> set[str]:
    """Return the names of a step's options that `adapt` takes and gives to it."""
    return set(inspect.signature(STEPS[step]).parameters) - _CHOSEN


def _divided(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give each step those of the options that it has."""
    known = {step: options_of(step) for step in STEPS}
    if foreign := options.keys() - set().union(*known.values()):
        raise TypeError(f"adapt() got an unexpected keyword argument {min(foreign)!r}")
    return {step: {name: value for name, value in options.items() if name in names} for step, names in known.items()}


def _check(
    given: Mapping[str, Mapping[str, Any]],
    prepared: str | None,
    data: Path,
    test: str | Path | None,
    target: Path,
    folder: Path,
) -> None:
    """Refuse, before anything is computed, what a later step would refuse.

    Args:
        prepared: the source, if that is a prepared directory.
    """
    defaults = inspect.signature(finetune).parameters
    check_options({**{name: parameter.default for name, parameter in defaults.items()}, **given["finetune"]})
    check_form(**{name: value for name, value in given["deploy"].items() if name != "threads"})
    others = options_of("finetune") | options_of("deploy")
    if prepared is not None and (foreign := sorted(given["prepare"].keys() - others)):
        raise EdgetlError(
            f"{prepared} is prepared already, so options of prepare ({', '.join(foreign)}) have no effect: leave them "
            "out, or give the network itself as SOURCE"
        )
    for path in (data, test):
        if path is not None and not Path(path).exists():
            raise DataError(mistaken(path, DATA))
    if target.is_dir():
        raise DeployError(f"{target} is a folder: give --out the name of a file, such as {target / 'model.onnx'}")
    if data.is_dir() and folder.resolve().is_relative_to(data.resolve()):
        raise DataError(
            f"{folder} would lie within {data}, and be taken for a class: give --out a place outside of the data"
        )


def _refuse_to_replace(target: Path, run: Run, state: _State, *, resume: bool) -> None:
    """Refuse to lose a file that `adapt` did not write here, or a run that is not deployed yet."""
    is_new = not (run.path / ARGS).is_file()
    if not is_new and not resume and _hash_of_finished(run) != state.run_sha256:
        raise RunError(f"{run.path} is not finished: add --resume to go on, or --force to start anew")
    if target.exists() and (is_new or not resume) and sha256_file(target) != state.model_sha256:
        raise EdgetlError(f"{target} exists already, and not from here: choose another --out, or add --force")


def _refuse_another_network(run: Run, artifacts: Path) -> None:
    if (run.path / ARGS).is_file():
        raise RunError(
            f"{run.path} cannot be resumed, because source, options or labels are not those that {artifacts} was "
            "prepared with, or that was altered: repeat the first command with --resume, or start anew with --force"
        )


def _hash_of_finished(run: Run) -> str | None:
    """Return `run_hash` of a run that is finished; None of others."""
    try:
        return run_hash(run) if run.is_proven() else None
    except (OSError, RunError):
        return None


@contextlib.contextmanager
def _tidied(folder: Path) -> Iterator[None]:
    """Remove the folder where the block ends with a mistake of the caller's before there is anything in it."""
    try:
        yield
    except EdgetlError:
        if all(entry.name in (LOCK, STATE) for entry in folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextlib.contextmanager
def _moved_aside(run: Path, before: Path, *, resume: bool) -> Iterator[None]:
    """Move a run out of the way of a new one, so that what lies at its place is always of the call to be resumed.

    It comes back where the block ends with a mistake of the caller's before a new run begins.
    """
    if not resume and (run / ARGS).is_file():
        for place in (run, before):
            refuse_others(place)
        shutil.rmtree(before, ignore_errors=True)
        run.rename(before)
    try:
        yield
    except EdgetlError:
        if not resume and not (run / ARGS).is_file() and (before / ARGS).is_file():
            shutil.rmtree(run, ignore_errors=True)  # no more than its lock
            before.rename(run)
        raise


def _is_intact(artifacts: Path, state: _State, origin: str) -> bool:
    """Whether a prepared directory is the one that the state tells of."""
    if state.origin != origin or not (artifacts / MANIFEST).is_file():
        return False
    try:
        return load_artifacts(artifacts).sha256 == state.artifacts_sha256
    except ArtifactsError:
        return False


def _origin(source: str, data: Path, options: Mapping[str, Any]) -> str:
    """Return a hash of everything that a prepared directory depends on, as far as files and options tell.

    What else a Python function or a library reads is not seen.
    """
    train = tuple(options.get("train", ()))
    # a device only limits what may be prepared, unless the share that trains is chosen for it
    ignored = () if train == ("auto",) else ("device", "memory_mb")
    chosen = {name: value for name, value in options.items() if name not in ignored and value is not None}
    columns = tuple(options.get("label_column", ()))
    kind = kind_of(data, columns)
    parts = {
        "edgetl": edgetl.__version__,
        "source": source,
        "files": [sha256_file(file) for file in _files(source)],
        "weights": sha256_file(Path(chosen["weights"])) if Path(chosen.get("weights", "")).is_file() else None,
        "options": chosen,
        "labels": label_names(data, options["task"], columns),
        "kind": [kind.modality, kind.shape],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _files(source: str) -> list[Path]:
    """Return the files that a source names, as far as they lie here."""
    prefix, _, name = source.rpartition(":")
    if source.startswith("hf:"):
        return sorted(file for file in Path(source.removeprefix("hf:")).rglob("*") if file.is_file())
    if Path(source).is_file():
        return [Path(source), *(external_files(Path(source)) if source.endswith(".onnx") else ())]
    if Path(prefix).is_file():
        return [Path(prefix)]
    try:
        found = importlib.util.find_spec(prefix) if prefix and name else None
    except Exception:  # whatever a package raises when it is imported, prepare will tell
        found = None
    return [Path(found.origin)] if found is not None and found.origin and Path(found.origin).is_file() else []


def _read(folder: Path) -> _State:
    file = folder / STATE
    if not file.is_file():
        return _State(edgetl.__version__)
    try:
        return schema.from_json(_State, unseal_json(json.loads(file.read_text(encoding="utf-8"))))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file} is damaged ({error}): start anew with --force") from None


def _write(folder: Path, state: _State) -> None:
    content = seal_json(schema.to_json(replace(state, edgetl_version=edgetl.__version__)))
    storage.write_text(folder / STATE, schema.json_text(content, indent=2) + "\n")


def _validated(run: Run, finetuned: FinetuneResult) -> dict[str, float | None]:
    if not finetuned.val_figures:
        return {}
    proof = run.read_validation()
    loss = None if finetuned.task == "regression" else metrics.log_loss(proof.labels, proof.unseen)
    return {**finetuned.val_figures, "loss": loss}


def _once(on_event: OnEvent) -> OnEvent:
    """Pass events on, but no note a second time: several steps look at the same data."""
    told: set[str] = set()

    def pass_on(event: Event) -> None:
        if not isinstance(event, Note):
            on_event(event)
        elif event.text not in told:
            told.add(event.text)
            on_event(event)

    return pass_on
