"""The deployed file in use: evaluate() and predict() need it, onnxruntime and Pillow, and nothing else."""

from __future__ import annotations

import base64
import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl import defaults, metrics, runtime, schema, seal, storage
from edgetl.artifacts import AudioPreprocessing, Preprocessing, TensorSpec, TextPreprocessing, check_preprocessing
from edgetl.choices import DECODINGS, INPUTS, MODALITIES, TASKS, check_choice
from edgetl.data import Sample, Samples, Wanted, open_inputs, open_measured
from edgetl.data.audio import is_silent
from edgetl.data.checks import contradictions, missing
from edgetl.data.decode import AUDIO, Decoder, enough_pixels, open_decoder
from edgetl.data.depth import PixelRange
from edgetl.data.memory import Budget, decoding_bytes
from edgetl.data.sample import Reader
from edgetl.data.survey import survey, windows_of
from edgetl.errors import DataError, DeployError, EngineError
from edgetl.events import FeatureProgress, Note, OnEvent, Stage, ignore
from edgetl.kinds import MODEL, look_at, mistaken
from edgetl.providers import PlacedSession, Provider, open_placed, resolve_provider
from edgetl.targets import figures

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOGITS = "logits"
PROBABILITIES = "probabilities"
VALUES = "values"
"""Outputs: the network's own, and what they mean; numbers for regression, else probabilities."""
METADATA_NAMES = "names"
METADATA_EDGETL = "edgetl"
METADATA_TOKENIZER = "tokenizer.json"
METADATA_PREPROCESS = "preprocess.onnx"
_LARGE = 8_000_000
"""Bytes of inputs from which on the memory of a run is given back: of a picture that was decoded in full."""

_ARENA = 1.25
"""Times what preprocessing a picture holds, while it is a part of a larger graph."""

THRESHOLD = 0.5
"""From this probability on, a sample is said to have a label, where it may have several."""


@dataclass(frozen=True)
class _About:
    """What is needed of the metadata; see `edgetl.deployment.compose.describe`."""

    labels: tuple[str, ...]
    task: str
    modality: str
    inputs: tuple[TensorSpec, ...]
    input_kind: str
    batch: int | None
    audio: AudioPreprocessing | None
    text: TextPreprocessing | None
    tokenizer_file: str | None
    tokenizer_sha256: str | None
    input_columns: tuple[str, ...]
    label_columns: tuple[str, ...]
    pixel_range: PixelRange | None = None
    preprocessing: Preprocessing | None = None
    decode: str = "full"


def _answer(task: str) -> str:
    return VALUES if task == "regression" else PROBABILITIES


def _check(about: _About, session: PlacedSession) -> None:
    """Compare metadata with the choices that there are, and with the model itself.

    Raises:
        ValueError: it says what is wrong.
    """
    for value, some in (
        (about.task, TASKS),
        (about.modality, MODALITIES),
        (about.input_kind, INPUTS),
        (about.decode, DECODINGS),
    ):
        if value not in some:
            raise ValueError(f"{value!r} is none of {', '.join(some)}")
    if not about.inputs:
        raise ValueError("no inputs")
    if about.batch is not None and about.batch < 1:
        raise ValueError(f"a batch of {about.batch}")
    shapes = {value.name: value.shape for value in session.outputs}
    for name in (_answer(about.task), LOGITS):
        if name not in shapes or shapes[name][-1:] != [len(about.labels)]:
            raise ValueError(f"no output {name!r} of {len(about.labels)} numbers")
    check_preprocessing(about.audio, about.text)


class DeployedModel:
    """A model written by `deploy`: one sample in, probabilities (or numbers) and logits out.

        model = edgetl.DeployedModel("photos.onnx")
        probabilities, logits = model(pixels)  # [height, width, 3] uint8, RGB, upright
        print(model.labels[probabilities.argmax()])

    Args:
        path: the file.
        threads: how many cores compute.
        provider: an execution provider as `edgetl.providers.resolve_provider` returns it; default the CPU.
        on_event: receives `Note` where something is to be known.

    Attributes:
        path: the file.
        task, modality: as in `edgetl.artifacts.Manifest`.
        labels: names in the order of the outputs.
        audio: how recordings are prepared; None of other modalities.
        decode: makes the model's inputs of a sample's content; of texts it needs the library `tokenizers`. Pictures
            are decoded as in training, unless another way, `scaled` or `full`, was given.
        provenance: what `deploy` wrote about the model's making.
        batch: how many samples the file takes at once, if their number is fixed; here it is given copies of one.

    Raises:
        DeployError: the file is missing, none that edgetl deployed, or altered since.
        EngineError: onnxruntime is not installed, or the provider refuses the model.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int = 1,
        provider: Provider | None = None,
        decode: str | None = None,
        on_event: OnEvent = ignore,
    ) -> None:
        if decode is not None:
            check_choice("decode", decode, DECODINGS)
        self.path = Path(path)
        if not self.path.is_file() or look_at(self.path).what not in ("", MODEL):
            raise DeployError(mistaken(self.path, MODEL))
        try:
            seal.check_file(self.path)
        except seal.SealError as error:
            raise DeployError(
                f"{self.path} is no model as 'edgetl deploy' wrote it ({error}): if it was one, it has been altered "
                "or damaged, so copy or deploy it again; if not, 'edgetl benchmark' measures it"
            ) from None
        except OSError as error:
            raise DeployError(f"{self.path} cannot be read: {error.strerror}") from None
        provider = provider or Provider()
        self._session = open_placed(self.path, provider, threads=threads, what=str(self.path), on_event=on_event)
        metadata = self._session.metadata
        try:
            self.provenance: dict[str, Any] = json.loads(metadata[METADATA_EDGETL])
            self._about = schema.from_json(_About, self.provenance)
            _check(self._about, self._session)
            self._at_least = enough_pixels(self._about.preprocessing, decode or self._about.decode)
            self._preprocess = None
            if self._about.input_kind == "tensor":
                content = base64.b64decode(metadata[METADATA_PREPROCESS], validate=True)
                self._preprocess = open_placed(content, Provider(), threads=1, what="the preprocessing")
        except (KeyError, ValueError, RecursionError, EngineError) as error:
            raise DeployError(f"{self.path} has damaged metadata ({error}): deploy it again") from None
        self._tokenizer = metadata.get(METADATA_TOKENIZER)
        self._outputs = [_answer(self.task), LOGITS]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs, in their order."""
        return self._about.labels

    @property
    def task(self) -> str:
        """`classification` (one class each), `multilabel` (any number of them) or `regression` (numbers)."""
        return self._about.task

    @property
    def modality(self) -> str:
        """What a sample is: `image`, `audio`, `text` or `array`."""
        return self._about.modality

    @property
    def batch(self) -> int | None:
        """How many samples the file takes at once, if their number is fixed; None if any number, or one sample."""
        return self._about.batch

    @cached_property
    def decode(self) -> Decoder:
        """A function from a sample's content (bytes of a file, a text, an array) to the model's inputs by name.

        Raises:
            DeployError: the tokenizer that belongs beside the file is missing, or another.
            DataError: the library `tokenizers`, which texts need, is not installed.
        """
        tokenizer = self._tokenizer
        about = self._about
        if tokenizer is None and about.text is not None:
            tokenizer = self._tokenizer_beside()
        return open_decoder(
            *(about.modality, about.inputs, about.audio, about.text, tokenizer or ""),
            pixel_range=about.pixel_range,
            at_least=self._at_least,
        )

    def decoding_bytes(self, content: bytes) -> int:
        """Return the memory that decoding and preprocessing a sample's content take."""
        return int(_ARENA * decoding_bytes(content, self._about.preprocessing, self._at_least))

    def _tokenizer_beside(self) -> str:
        file = self.path.parent / Path(self._about.tokenizer_file or "").name
        if not file.is_file() or storage.sha256_file(file) != self._about.tokenizer_sha256:
            raise DeployError(
                f"{file}, the tokenizer of {self.path}, is missing or another: copy both files that "
                "'edgetl deploy' wrote"
            )
        return file.read_text(encoding="utf-8")

    @property
    def audio(self) -> AudioPreprocessing | None:
        """How recordings are prepared, with `sample_rate` in Hz and `seconds`; None of other modalities."""
        return self._about.audio

    @property
    def placement(self) -> dict[str, float]:
        """Each execution provider's share of the first sample's time; empty before it."""
        return self._session.placement or {}

    def __call__(self, raw: NDArray[Any] | Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Compute one sample.

        Args:
            raw: a picture `[height, width, 3]` uint8 RGB, a recording `[samples]` float32 at the model's
                rate, an array float32; or inputs by name, as `decode` gives them (of texts only so).

        Returns:
            Probabilities (of regression, the numbers) and logits, `[outputs]` float32 each.
        """
        answer, logits = self.run(self.feeds(raw))
        return (answer, logits) if self._preprocess is None else (answer[0], logits[0])

    def slide(
        self, recording: NDArray[np.float32], *, window: float | None = None, hop: float | None = None
    ) -> Iterator[tuple[float, float, NDArray[Any], NDArray[Any]]]:
        """Compute the windows of a recording one after the other.

        Args:
            recording: `[samples]` float32 at the model's rate (`audio.sample_rate`), full scale ±1.
            window: length of a window in seconds; default what the network hears (`audio.seconds`).
            hop: seconds from one window to the next; default `window`.

        Yields:
            Start and end in seconds, and what `__call__` returns.

        Raises:
            DataError: the model does not take recordings, or `window` is longer than what the network hears.
        """
        if self.audio is None:
            raise DataError(f"{self.path} does not take recordings: call it with one sample")
        cut = windows_of(self.audio, window or self.audio.seconds, hop)
        assert cut is not None, "a window was given"
        rate = self.audio.sample_rate
        for start, stop in cut.spans(len(recording)):
            yield start / rate, stop / rate, *self(np.asarray(recording[start:stop], np.float32))

    def feeds(self, raw: NDArray[Any] | Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the file's own inputs for one sample: what is given, or of a file for tensors a batch of it."""
        given = dict(raw) if isinstance(raw, Mapping) else {self.modality: raw}
        if self._preprocess is None:
            return given
        names = [value.name for value in self._preprocess.outputs]
        tensors = zip(names, self._preprocess.run(names, given), strict=True)
        return {name: np.repeat(tensor, self.batch or 1, axis=0) for name, tensor in tensors}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the outputs: probabilities (or numbers) and logits, `[outputs]`, of tensors `[batch, outputs]`."""
        large = sum(array.nbytes for array in feeds.values()) > _LARGE
        answer, logits = self._session.run(self._outputs, feeds, give_back=large)
        return answer, logits

    def wanted(self, input_column: Sequence[str] = (), label_column: Sequence[str] = ()) -> Wanted:
        """Return what data for this model must be; columns of a table default to those it was trained on."""
        return Wanted(
            modality=self.modality,
            task=self.task,
            labels=self.labels,
            outputs=len(self.labels),
            shape=self._about.inputs[0].shape if self.modality == "array" else None,
            input_columns=tuple(input_column) or self._about.input_columns,
            label_columns=tuple(label_column) or self._about.label_columns,
        )


@dataclass(frozen=True)
class Evaluation:
    """How a deployed model does on labelled samples.

    Attributes:
        figures: of the task, by name: `accuracy` and `macro_f1`; `macro_f1`, `micro_f1` and `exact_match`
            of several labels; `r2`, `mae` and `rmse` of numbers. See `edgetl.metrics`.
        accuracy, correct: of classification, else None.
        loss: mean cross-entropy (`edgetl.metrics.log_loss`); None of numbers.
        per_label: the figures of each class, label or number.
        ms_per_image: wall-clock milliseconds for each sample, decoding included, with `threads` threads.
        placement: each execution provider's share of the time, as seen at the first sample.
    """

    model: str
    data: str
    task: str
    figures: dict[str, float | None]
    accuracy: float | None
    correct: int | None
    samples: int
    per_label: dict[str, dict[str, float | None]]
    seconds: float
    ms_per_image: float
    peak_rss_mb: float
    threads: int
    placement: dict[str, float]
    rejected: tuple[tuple[str, str], ...]
    loss: float | None = None


@dataclass(frozen=True)
class Prediction:
    """What a model says of one sample, or of one window of a recording.

    Attributes:
        label: the most probable class or label; of regression None, as is its `probability`.
        labels: of several labels, those of at least `THRESHOLD`; of classification `label` alone.
        top: the most probable, best first.
        values: of regression, the numbers by name.
        start, end: of a window of a recording, in seconds; None of a whole sample.
        silent: whether what the network heard of a recording is silent (`edgetl.defaults.SILENCE_DB`).
    """

    input: str
    label: str | None
    probability: float | None
    labels: tuple[str, ...]
    top: tuple[tuple[str, float], ...]
    values: dict[str, float]
    start: float | None = None
    end: float | None = None
    silent: bool = False


@dataclass(frozen=True)
class _Outcome:
    answer: NDArray[np.float32] | None
    logits: NDArray[np.float32] | None
    digest: str
    reason: str
    silent: bool = False


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    input_column: Sequence[str] = (),
    label_column: Sequence[str] = (),
    window: float | None = None,
    hop: float | None = None,
    threads: int | None = None,
    provider: str | None = None,
    provider_options: Mapping[str, str] | None = None,
    allow_fallback: bool = False,
    decode: str | None = None,
    on_event: OnEvent = ignore,
) -> Evaluation:
    """Measure a deployed model on labelled data, in any of the forms of docs/data.md.

    Of data in parts `test` is measured, or else `val`. Columns default to those of the training;
    `window` and `hop` (each window counts as a sample), `provider`, `provider_options` and
    `allow_fallback` are as in `finetune`; `decode` is by default as in training.

    Raises:
        DataError, DeployError, EngineError: see the message.
    """
    started = time.monotonic()
    threads = runtime.usable_threads(threads, on_event)
    where = resolve_provider(provider, provider_options, allow_fallback=allow_fallback, on_event=on_event)
    deployed = DeployedModel(model, provider=where, decode=decode, on_event=on_event)
    cut = windows_of(deployed.audio, window, hop)
    dataset = open_measured(Path(data), deployed.wanted(input_column, label_column), on_event)
    if deployed.provenance.get("run_finished") is False:
        on_event(Note(f"{model} was deployed from a run that was not finished: from its best epoch until then"))
    on_event(Stage("evaluating"))
    samples = survey(dataset.samples, deployed.decode, cut, threads=threads, on_event=on_event).samples
    loop_started = time.monotonic()
    labels: list[Any] = []
    found: list[NDArray[np.float32]] = []
    losses: list[float] = []
    names: list[str] = []
    digests: list[bytes] = []
    rejected: list[tuple[str, str]] = []
    outcomes = _run_all(deployed, samples, threads)
    for done, (sample, outcome) in enumerate(zip(samples, outcomes, strict=True), start=1):
        if outcome.answer is None:
            rejected.append((sample.name, outcome.reason))
            on_event(Note(f"left out {sample.name}: {outcome.reason}"))
        else:
            labels.append(sample.label)
            names.append(sample.name)
            digests.append(bytes.fromhex(outcome.digest))
            found.append(outcome.answer)
            if deployed.task != "regression":
                losses.append(metrics.log_loss(np.array([sample.label]), np.array([outcome.logits])))
        on_event(FeatureProgress(done, len(samples), 0))
    seconds = time.monotonic() - loop_started
    if not found:
        raise DataError(f"no usable sample is left in {dataset.root}: replace those named above")
    truth, answers = np.array(labels), np.stack(found)
    sentences = [contradictions(digests, truth, deployed.labels, lambda index: names[index])]
    if deployed.task != "regression":
        sentences.append(missing(deployed.labels, truth, "sample"))
    for sentence in sentences:
        if sentence is not None:
            on_event(Note(sentence))
    is_classification = deployed.task == "classification"
    correct = int((answers.argmax(axis=1) == truth).sum()) if is_classification else None
    measured = figures(deployed.task, truth, answers)
    return Evaluation(
        model=str(model),
        data=str(dataset.root),
        task=deployed.task,
        figures=measured,
        accuracy=measured.get("accuracy"),
        correct=correct,
        samples=len(found),
        per_label=_per_label(deployed, truth, answers),
        seconds=time.monotonic() - started,
        ms_per_image=seconds / len(samples) * 1e3,
        peak_rss_mb=runtime.peak_rss_mb(),
        threads=threads,
        placement=deployed.placement,
        rejected=tuple(rejected),
        loss=float(np.mean(losses)) if losses else None,
    )


def _per_label(
    deployed: DeployedModel, truth: NDArray[Any], answers: NDArray[np.float32]
) -> dict[str, dict[str, float | None]]:
    each: tuple[metrics.LabelMetrics, ...] | tuple[metrics.TargetMetrics, ...]
    if deployed.task == "classification":
        each = metrics.classification(truth, answers.argmax(axis=1), answers.shape[1]).classes
    elif deployed.task == "multilabel":
        each = metrics.multilabel(truth, answers, threshold=THRESHOLD).labels
    else:
        each = metrics.regression(truth, answers).targets
    return dict(zip(deployed.labels, map(schema.to_json, each), strict=True))


def predict(
    model: str | Path,
    inputs: Sequence[str | Path],
    *,
    top: int = defaults.TOP,
    window: float | None = None,
    hop: float | None = None,
    input_column: Sequence[str] = (),
    threads: int | None = None,
    provider: str | None = None,
    provider_options: Mapping[str, str] | None = None,
    allow_fallback: bool = False,
    decode: str | None = None,
    on_event: OnEvent = ignore,
) -> list[Prediction]:
    """Let a deployed model tell what files are (or all files of a folder, lines of a table, rows of an archive).

    Of a model of texts, an input that is no file is a text itself.

    Args:
        window, hop: of recordings, give an answer for each window of `window` seconds, one every `hop` seconds; either
            may be left out (`edgetl.data.survey.windows_of`). Without both, the middle of a longer recording is heard.

    Raises:
        DataError: an input does not exist, or none can be read; single bad samples of several are
            reported as notes.
    """
    where = resolve_provider(provider, provider_options, allow_fallback=allow_fallback, on_event=on_event)
    deployed = DeployedModel(model, provider=where, decode=decode, on_event=on_event)
    wanted = deployed.wanted(input_column)
    threads = runtime.usable_threads(threads, on_event)
    cut = windows_of(deployed.audio, window, hop)
    found = [sample for item in inputs for sample in open_inputs(item, wanted)]
    given = Samples(found.__getitem__, range(len(found)))
    surveyed = survey(given, deployed.decode, cut, threads=threads, on_event=on_event, keep_silent=True)
    predictions: list[Prediction] = []
    reasons: list[str] = []
    outcomes = _run_all(deployed, surveyed.samples, threads)
    for sample, origin, outcome in zip(surveyed.samples, surveyed.origins, outcomes, strict=True):
        if outcome.answer is None:
            reasons.append(f"{sample.name} {outcome.reason}")
            on_event(Note(f"left out {sample.name}: {outcome.reason}"))
            continue
        said = _prediction(deployed, given[int(origin)].name, outcome.answer, top)
        if sample.span is not None and deployed.audio is not None:
            start, end = (place / deployed.audio.sample_rate for place in sample.span)
            said = replace(said, start=start, end=end)
        predictions.append(replace(said, silent=outcome.silent))
    if not predictions:
        raise DataError(reasons[0] if len(reasons) == 1 else f"none of the inputs is {_KINDS[deployed.modality]}")
    return predictions


_KINDS = {
    "image": "a picture that can be read",
    "audio": "a recording that can be read",
    "text": "a text that can be read",
    "array": "an array of finite numbers",
}


def _prediction(deployed: DeployedModel, name: str, answer: NDArray[np.float32], top: int) -> Prediction:
    if deployed.task == "regression":
        values = dict(zip(deployed.labels, map(float, answer), strict=True))
        return Prediction(name, None, None, (), (), values)
    order = np.argsort(-answer, kind="stable")
    ranked = [(deployed.labels[i], float(answer[i])) for i in order]
    several = deployed.task == "multilabel"
    labels = tuple(label for label, p in ranked if p >= THRESHOLD) if several else (ranked[0][0],)
    return Prediction(name, *ranked[0], labels, tuple(ranked[: max(top, 1)]), {})


def logits_of(
    deployed: DeployedModel, samples: Sequence[Sample], digests: Sequence[str], *, threads: int
) -> list[NDArray[np.float32]]:
    """Return a deployed model's logits, `[outputs]`, for each sample.

    Args:
        digests: the hashes that their contents must have, hexadecimal.

    Raises:
        DataError: a sample cannot be read, or is another than it was.
    """
    found = []
    for sample, digest, outcome in zip(samples, digests, _run_all(deployed, samples, threads), strict=True):
        if outcome.digest and outcome.digest != digest:
            raise DataError(f"{sample.name} has been changed")
        if outcome.logits is None:
            raise DataError(f"{sample.name} {outcome.reason}")
        found.append(outcome.logits)
    return found


def _run_all(deployed: DeployedModel, samples: Sequence[Sample], threads: int) -> Iterator[_Outcome]:
    decode, read, budget = deployed.decode, Reader(), Budget()

    def run(sample: Sample) -> _Outcome:
        digest = ""
        try:
            content, known_by = read(sample)
            digest = known_by.hex()
            needed = deployed.decoding_bytes(content)
            with budget.taken(needed + len(content) if needed else 0):
                decoded = decode(content, sample.span)
                answer, logits = deployed(decoded)
        except DataError as error:
            return _Outcome(None, None, digest, str(error))
        silent = decode.audio is not None and is_silent(decoded[AUDIO])
        return _Outcome(answer, logits, digest, "", silent)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield from runtime.map_in_order(run, samples, threads=threads)
