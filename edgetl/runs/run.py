"""A run on the disk: what was asked for, what happened, and the parameters that came out.

```
RUN/
  args.yaml        everything needed to repeat it
  samples.csv      which samples were used, by content hash, and how they were split
  results.csv      one line per finished epoch
  metrics.json     the summary, written when training ends, removed when it goes on
  validation.npz   the engine's own logits on the validation data with the weights to deploy
  weights/best.npz, weights/last.npz
  weights/final.npz  trained again on all samples, for as many epochs as were best; not in every run
  report.html      the page to look at; curves.png and confusion_matrix.png for slides and papers
```

Every file is written aside and renamed. An epoch is finished when `weights/last.npz` names it; a
process that dies at any other moment costs that epoch and nothing else.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgetl.data.pixel_range import PixelRange
from edgetl.declaration import check_choice, check_range, declarations
from edgetl.errors import EdgetlError, RunError
from edgetl.events import EpochEnd
from edgetl.files import schema, storage
from edgetl.files.kinds import ARGS as ARGS
from edgetl.files.kinds import RUN, mistaken
from edgetl.files.npz import read_npz
from edgetl.files.seal import check_file, seal_json, sealed_hash, unseal_json, write_sealed_npz
from edgetl.optimizers.registry import Optimizer
from edgetl.runs.settings import SCHEDULES, TrainingSettings
from edgetl.runtime.providers import CPU
from edgetl.shared_settings import DECODINGS, MODALITIES
from edgetl.tasks.figures import metrics_of
from edgetl.tasks.names import TASKS

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLES = "samples.csv"
RESULTS = "results.csv"
METRICS = "metrics.json"
VALIDATION = "validation.npz"
BEST = "weights/best.npz"
LAST = "weights/last.npz"
FINAL = "weights/final.npz"
ENGINE_STATE = "engine_state"
"""An array of both checkpoints."""
REPORT = "report.html"
CURVES = "curves.png"
CONFUSION = "confusion_matrix.png"
LOCK = ".lock"
FILES = (ARGS, SAMPLES, RESULTS, METRICS, VALIDATION, BEST, LAST, FINAL, REPORT, CURVES, CONFUSION, LOCK)
"""All that is ever written into a run."""


@dataclass(frozen=True, kw_only=True)
class RunArgs(TrainingSettings):
    """What `args.yaml` holds: the settings of a run, settled, and what is needed to repeat it.

    Settings that were open have the values that were chosen for them. The defaults are those of older runs, whose
    files lack a line.

    Attributes:
        labels: names of the outputs.
        input_columns: of a table of numbers, which ones it took.
        label_columns: as they were given.
        target_mean, target_std: of the training data's numbers; see `edgetl.tasks.targets.TargetEncoder`.
        pixel_range: None if there are no pictures of more than 8 bits.
        samples_sha256: of the file `samples.csv`.
    """

    edgetl_version: str
    artifacts: str
    artifacts_sha256: str
    data: str
    val: str | None
    labels: tuple[str, ...]
    # of the settings, what every run's file has: no default of today stands in for it
    val_fraction: float = field()
    epochs: int = field()
    batch_size: int = field()
    lr: float = field()
    seed: int = field()
    engine: str = field()
    init: str = "zero"
    schedule: str = "constant"
    warmup: float = 0.0
    views: int = 0
    cache_precision: str = "float32"
    decode: str = "full"
    optimizer: Optimizer = field(default_factory=Optimizer)
    provider: str = CPU
    provider_options: dict[str, str] = field(default_factory=dict)
    input_columns: tuple[str, ...] = ()
    label_columns: tuple[str, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()
    task: str = "classification"
    metric: str = "accuracy"
    modality: str = "image"
    device: str | None = None
    pixel_range: PixelRange | None = None
    refit: bool = False
    samples_sha256: str = ""


UNCHOSEN = 0.0
"""The learning rate of settings whose rate is yet to be chosen; no run has it."""


class UsedSample(NamedTuple):
    """A line of `samples.csv`: a sample that a run used.

    Attributes:
        part: `train` or `val`.
        digest: its content hash, hexadecimal.
        label: the name of its class; or numbers, with spaces between.
        name: what the run called it.
    """

    part: str
    digest: str
    label: str
    name: str


@dataclass(frozen=True)
class Checkpoint:
    """Parameters and optimizer state at the end of an epoch (0: before the first), and the history so far."""

    epoch: int
    parameters: dict[str, NDArray[np.float32]]
    engine_state: bytes
    history: tuple[EpochEnd, ...]


@dataclass(frozen=True)
class EpochResult:
    """A line of `results.csv`; what the run did not measure is None. Epoch 0 is the state before the first step."""

    epoch: int
    train_loss: float | None
    val_loss: float | None
    val_figures: dict[str, float | None]
    seconds: float | None


@dataclass(frozen=True)
class Validation:
    """What the engine itself computed with the weights to deploy.

    Attributes:
        paths: the files, absolute; or the names of samples that are none.
        digests: their content hashes.
        labels: `[N]` int64 for classification, `[N, K]` float64 for other tasks.
        logits: `[N, K]` float32; of regression, of the standardised numbers.
        held_out: the logits of the best epoch's weights, which the samples did not train; None where they
            are `logits`.
        spans: of windows of recordings, start and end of each in samples at the network's rate; else empty.
    """

    paths: tuple[str, ...]
    digests: tuple[str, ...]
    labels: NDArray[Any]
    logits: NDArray[np.float32]
    spans: tuple[tuple[int, int], ...] = ()
    held_out: NDArray[np.float32] | None = None

    @property
    def unseen(self) -> NDArray[np.float32]:
        """The logits that tell how good the network is on samples that it was not trained on."""
        return self.logits if self.held_out is None else self.held_out


@dataclass(frozen=True)
class Run:
    """A run directory."""

    path: Path

    def lock(self) -> Any:
        """Return a context manager that keeps other processes from writing to this run."""
        return storage.locked(self.path / LOCK, f"the run {self.path}")

    def write_args(self, args: RunArgs) -> None:
        """Write `args.yaml` (each value in JSON notation, which YAML contains)."""
        sealed = seal_json(schema.to_json(args))
        lines = [f"{name}: {schema.json_text(value)}" for name, value in sealed.items()]
        storage.write_text(self.path / ARGS, "\n".join(lines) + "\n")

    def read_settings(self) -> dict[str, Any]:
        """Read what `args.yaml` says, by name, as it stands there.

        Raises:
            RunError: it is missing or not readable.
        """
        file = self.path / ARGS
        if not file.is_file():
            raise RunError(mistaken(self.path, RUN))
        try:
            lines = [line.partition(": ") for line in file.read_text(encoding="utf-8").split("\n") if line]
            return unseal_json({name: json.loads(value) for name, _, value in lines})
        except (ValueError, RecursionError) as error:
            raise _damaged(file, error) from None

    def read_args(self) -> RunArgs:
        """Read `args.yaml` as `write_args` wrote it.

        Raises:
            RunError: it is missing or not readable.
        """
        file, record = self.path / ARGS, self.read_settings()
        try:
            args = schema.from_json(RunArgs, record)
            _check(args)
            return args
        except (ValueError, RecursionError, EdgetlError) as error:
            raise _damaged(file, error) from None

    def write_samples(self, samples: Iterable[UsedSample]) -> None:
        """Write `samples.csv`, line by line."""
        with (
            storage.written_aside(self.path / SAMPLES) as aside,
            open(aside, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
        ):
            # all is quoted: before Python 3.13 a carriage return alone would not be
            writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
            writer.writerow(UsedSample._fields)
            writer.writerows(samples)

    def read_samples(self) -> Iterator[UsedSample]:
        """Read `samples.csv`, line by line; nothing if the run was interrupted before it was written.

        Raises:
            RunError: it is damaged.
        """
        file = self.path / SAMPLES
        if not file.is_file():
            return
        try:
            with open(file, encoding="utf-8", errors="surrogateescape", newline="") as stream:
                lines = csv.reader(stream, strict=True)
                if tuple(next(lines, ())) != UsedSample._fields:
                    raise ValueError("its columns are others")
                for line in lines:
                    yield UsedSample(*line)
        except (TypeError, ValueError, csv.Error) as error:
            raise _damaged(file, error) from None

    def count_samples(self) -> Counter[str]:
        """How many samples train, and how many validate, by part; empty before `samples.csv` is written."""
        return Counter(sample.part for sample in self.read_samples())

    def write_checkpoint(self, name: str, checkpoint: Checkpoint) -> None:
        """Write one of the files in `weights` (name: `BEST`, `LAST` or `FINAL`)."""
        meta = {"epoch": checkpoint.epoch, "history": schema.to_json(checkpoint.history)}
        arrays: dict[str, NDArray[Any]] = {f"parameters/{key}": v for key, v in checkpoint.parameters.items()}
        arrays[ENGINE_STATE] = np.frombuffer(checkpoint.engine_state, dtype=np.uint8)
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
        _write_npz(self.path / name, arrays)

    def read_checkpoint(self, name: str, *, engine_state: bool = True) -> Checkpoint | None:
        """Read a checkpoint; None if there is none yet.

        Args:
            engine_state: whether it is read, too, which takes three times the parameters' memory; else it is empty.

        Raises:
            RunError: it is damaged (the archive's checksums do not match, or parts are missing).
        """
        file = self.path / name
        if not file.is_file():
            return None
        arrays = _read_npz(file, keep=lambda name: engine_state or name != ENGINE_STATE)
        try:
            meta = json.loads(arrays["meta"].tobytes())
            return Checkpoint(
                epoch=int(meta["epoch"]),
                parameters={
                    key.removeprefix("parameters/"): value
                    for key, value in arrays.items()
                    if key.startswith("parameters/")
                },
                engine_state=arrays.pop(ENGINE_STATE).tobytes() if engine_state else b"",
                history=tuple(schema.from_json(EpochEnd, record) for record in meta["history"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(file, error) from None

    def read_best(self) -> Checkpoint:
        """Read the best epoch, without the engine's state.

        Raises:
            RunError: there is none yet, or it is damaged.
        """
        best = self.read_checkpoint(BEST, engine_state=False)
        if best is None:
            raise RunError(f"{self.path} holds no {BEST}: continue the run with 'edgetl finetune … --resume'")
        return best

    def deployed_weights(self) -> str:
        """Which file holds the weights to deploy: `FINAL` where that is complete, or else `BEST`.

        A run that went on and found a better epoch has yet to train on all samples for that many.

        Raises:
            RunError: a file is damaged.
        """
        if not (self.path / FINAL).is_file() or not (self.path / BEST).is_file():
            return BEST
        (best, _), (final, target) = self._epochs(BEST), self._epochs(FINAL)
        return FINAL if final == target == best else BEST

    def deployed_parameters(self) -> dict[str, NDArray[np.float32]]:
        """Return the weights to deploy.

        Raises:
            RunError: there are none yet, or they are damaged.
        """
        self.read_best()
        found = self.read_checkpoint(self.deployed_weights(), engine_state=False)
        assert found is not None, "it is there"
        return found.parameters

    def _epochs(self, name: str) -> tuple[int, int]:
        """The epoch of a checkpoint, and how many it was to be trained for."""
        file = self.path / name
        try:
            meta = json.loads(_read_npz(file, keep=lambda part: part == "meta")["meta"].tobytes())
            return int(meta["epoch"]), int(meta["history"][-1]["epochs"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise _damaged(file, error) from None

    def write_results(self, history: tuple[EpochEnd, ...]) -> None:
        """Write `results.csv`, one line per finished epoch."""
        storage.write_text(self.path / RESULTS, _results_csv(history))

    def has_results_of(self, history: tuple[EpochEnd, ...]) -> bool:
        """Whether `results.csv` is what `write_results` writes of this history."""
        file = self.path / RESULTS
        return file.is_file() and file.read_bytes() == _results_csv(history).encode("utf-8")

    def read_results(self) -> tuple[EpochResult, ...]:
        """Read `results.csv`; empty if no epoch has been finished.

        Columns are known by their names, those of figures by `val_`; others are passed over.

        Raises:
            RunError: it is damaged.
        """
        file = self.path / RESULTS
        if not file.is_file():
            return ()
        try:
            with open(file, encoding="utf-8", newline="") as stream:
                return tuple(_epoch_result(row) for row in csv.DictReader(stream))
        except (KeyError, ValueError, csv.Error) as error:
            raise _damaged(file, error) from None

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write `metrics.json`, whose presence says that training ended."""
        storage.write_text(self.path / METRICS, schema.json_text(seal_json(metrics), indent=2) + "\n")

    def read_metrics(self) -> dict[str, Any] | None:
        """Read `metrics.json`; None while training has not ended.

        Raises:
            RunError: it is damaged.
        """
        file = self.path / METRICS
        if not file.is_file():
            return None
        try:
            return unseal_json(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            raise _damaged(file, error) from None

    def write_validation(self, validation: Validation) -> None:
        """Write `validation.npz`, which names the weights that it is of."""
        names = json.dumps(
            {"paths": validation.paths, "digests": validation.digests, "spans": validation.spans}
        ).encode()
        _write_npz(
            self.path / VALIDATION,
            {
                "labels": validation.labels,
                "logits": validation.logits,
                "files": np.frombuffer(names, dtype=np.uint8),
                "weights": np.frombuffer(self._deployed_hash(), dtype=np.uint8),
                **({} if validation.held_out is None else {"held_out": validation.held_out}),
            },
        )

    def is_proven(self) -> bool:
        """Whether `validation.npz` is there, and of the weights that would be deployed now.

        A run that goes on may have better ones since.

        Raises:
            RunError: it is damaged.
        """
        file = self.path / VALIDATION
        if not file.is_file():
            return False
        weights = _read_npz(file, keep=lambda name: name == "weights").get("weights")
        return weights is not None and weights.tobytes() == self._deployed_hash()

    def _deployed_hash(self) -> bytes:
        """The hash at the end of the file of weights to deploy; nothing where there is none."""
        return sealed_hash(self.path / self.deployed_weights()) if (self.path / BEST).is_file() else b""

    def read_validation(self) -> Validation:
        """Read `validation.npz`.

        Raises:
            RunError: it is missing or damaged.
        """
        file = self.path / VALIDATION
        if not file.is_file():
            raise RunError(f"{self.path} has not finished training: continue it with 'edgetl finetune … --resume'")
        arrays = _read_npz(file)
        try:
            names = json.loads(arrays["files"].tobytes())
            spans = tuple((int(start), int(stop)) for start, stop in names.get("spans", ()))
            if len(spans) not in (0, len(names["paths"])):
                raise ValueError("its spans are not as many as its paths")
            return Validation(
                paths=tuple(names["paths"]),
                digests=tuple(names["digests"]),
                labels=arrays["labels"],
                logits=arrays["logits"],
                spans=spans,
                held_out=arrays.get("held_out"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(file, error) from None


def _check(args: RunArgs) -> None:
    """Refuse settings that no run has.

    Raises:
        ValueError: it names one.
    """
    for name, value, some in (
        ("task", args.task, TASKS),
        ("modality", args.modality, MODALITIES),
        ("schedule", args.schedule, SCHEDULES),
        ("metric", args.metric, metrics_of(args.task) if args.task in TASKS else ()),
    ):
        if value not in some:
            raise ValueError(f"{name} is {value!r}")
    if not args.labels or not len(args.target_mean) == len(args.target_std) in (0, len(args.labels)):
        raise ValueError("labels, target_mean and target_std do not go together")
    if args.augment is None and args.views != 0:
        raise ValueError("there are views without augment")
    check_choice("decoding", args.decode, DECODINGS)
    for each, known in declarations(TrainingSettings):
        value = getattr(args, each.name)
        if known.range is not None and value is not None and (each.name != "views" or args.augment):
            check_range(each.name, value, known.range)
    args.optimizer.check()


def _results_csv(history: tuple[EpochEnd, ...]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = dict.fromkeys(name for end in history for name in end.val_figures)
    writer.writerow(["epoch", "train_loss", "val_loss", *(f"val_{name}" for name in names), "seconds"])
    for end in history:
        values = (end.train_loss, end.val_loss, *map(end.val_figures.get, names), end.seconds)
        writer.writerow([end.epoch, *("" if value is None else f"{value:.6g}" for value in values)])
    return text.getvalue()


def _epoch_result(row: dict[str, str | None]) -> EpochResult:
    values = {name: float(text) if text else None for name, text in row.items() if _is_figure(name)}
    train_loss, val_loss, seconds = (values.pop(name, None) for name in ("train_loss", "val_loss", "seconds"))
    figures = {name.removeprefix("val_"): value for name, value in values.items()}
    return EpochResult(int(row["epoch"] or ""), train_loss, val_loss, figures, seconds)


def _is_figure(column: str | None) -> bool:
    return column in ("train_loss", "seconds") or str(column).startswith("val_")


def _write_npz(file: Path, arrays: dict[str, NDArray[Any]]) -> None:
    with storage.written_aside(file) as aside:
        write_sealed_npz(aside, arrays.items())


def _read_npz(file: Path, keep: Callable[[str], bool] = lambda name: True) -> dict[str, NDArray[Any]]:
    try:
        check_file(file)
        with open(file, "rb") as stream:
            return read_npz(stream, keep=keep)
    except storage.UNREADABLE_NPZ as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> RunError:
    if file.name in (RESULTS, METRICS, VALIDATION):  # which follow from the others
        return RunError(f"{file} is damaged ({error}): repeat its finetune command with --resume, which writes it anew")
    return RunError(f"{file} is damaged ({error}): start the run anew with --force")
