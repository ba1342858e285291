"""benchmark(): how long a model takes to load and to answer here, and in how much memory.

It is measured in a process of its own, so that nothing that the caller has loaded counts.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.declaration import takes
from edgetl.deployment.settings import BenchmarkSettings
from edgetl.errors import DeployError, EdgetlError
from edgetl.files import schema
from edgetl.files.kinds import ONNX, mistaken
from edgetl.runtime import process, sessions
from edgetl.runtime.providers import Provider, open_placed, resolve_provider

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgetl.runtime.providers import PlacedSession

Feeds = Mapping[str, "NDArray[Any]"]

PICTURE = (480, 640)
"""Height and width of the picture that a model of pictures of any size is measured with."""
_BATCH = 16
_FEWEST = 10
_DTYPES = {
    **{f"tensor({name})": name for name in ("uint8", "int8", "int32", "int64", "bool", "float16")},
    **{"tensor(float)": "float32", "tensor(double)": "float64"},
}


@dataclass(frozen=True)
class Timing:
    """Answers to `batch` samples at once.

    Attributes:
        how: `one call`, or `concurrent calls` where the model takes one sample a call.
        calls: how many were timed.
        median_ms, p95_ms: of the time from samples to answers, milliseconds.
        per_second: samples.
    """

    batch: int
    how: str
    calls: int
    median_ms: float
    p95_ms: float
    per_second: float


@dataclass(frozen=True)
class Benchmark:
    """What was measured.

    Attributes:
        inputs: what the model was given, `name dtype [shape]`.
        load_ms: from the file to a session that can be called.
        first_ms: of the first call, which may still set things up.
        peak_rss_mb: largest resident memory of the process while it answered single samples, 10^6 bytes;
            `base_rss_mb` before the model was loaded.
        placement: each execution provider's share of the first call's time.
    """

    model: str
    size_mb: float
    inputs: tuple[str, ...]
    load_ms: float
    first_ms: float
    timings: tuple[Timing, ...]
    base_rss_mb: float
    peak_rss_mb: float
    threads: int
    onnxruntime: str
    placement: dict[str, float]


@takes(BenchmarkSettings)
def benchmark(settings: BenchmarkSettings) -> Benchmark:
    """Measure an ONNX model, deployed by edgetl or not, with made-up samples.

    Raises:
        DeployError, EngineError: it is not a model, or the provider refuses it.
    """
    model, options = settings.model, dict(settings.provider_options or {})
    if not Path(model).is_file() or Path(model).suffix.lower() not in (".onnx", ".ort"):
        raise DeployError(mistaken(model, ONNX))
    resolve_provider(settings.provider, options, allow_fallback=settings.allow_fallback)
    job = {
        "model": str(model),
        "threads": settings.threads or process.available_cores(),
        "seconds": settings.seconds,
        "provider": settings.provider,
        "provider_options": options,
        "allow_fallback": settings.allow_fallback,
    }
    command = [sys.executable, "-m", "edgetl.deployment.benchmarking", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2]
        raise DeployError(f"{model} ended the process that measured it (status {done.returncode}): {last}") from None
    if "error" in answer:
        raise DeployError(answer["error"])
    return schema.from_json(Benchmark, answer)


def _measure(
    model: str,
    threads: int,
    seconds: float,
    provider: str | None,
    provider_options: Mapping[str, str],
    allow_fallback: bool,
) -> Benchmark:
    where = resolve_provider(provider, provider_options, allow_fallback=allow_fallback)
    base = process.peak_rss_mb()
    started = time.monotonic()
    session = open_placed(Path(model), where, threads=threads, what=model)
    load_ms = (time.monotonic() - started) * 1e3
    feeds, batch = _samples(session, 1)
    started = time.monotonic()
    session.run(None, feeds)
    first_ms = (time.monotonic() - started) * 1e3
    timings = [_timing(partial(session.run, None, feeds), batch or 1, "one call", seconds)]
    peak = process.peak_rss_mb()
    timings.extend(_several(session, model, where, batch, threads, seconds))
    found = (f"{name} {importlib.metadata.version(name)}" for name in sessions.installed_distributions())
    return Benchmark(
        model=model,
        size_mb=Path(model).stat().st_size / 1e6,
        inputs=tuple(f"{name} {value.dtype} {list(value.shape)}" for name, value in feeds.items()),
        load_ms=load_ms,
        first_ms=first_ms,
        timings=tuple(timings),
        base_rss_mb=base,
        peak_rss_mb=peak,
        threads=threads,
        onnxruntime=", ".join(found),
        placement=session.placement or {},
    )


def _several(
    session: PlacedSession, model: str, where: Provider, batch: int | None, threads: int, seconds: float
) -> Iterator[Timing]:
    """Measure sixteen samples at once, where the model does not have a batch of its own."""
    if batch is None:
        single = open_placed(Path(model), where, threads=1, what=model)
        feeds, _ = _samples(single, 1)

        def concurrently() -> None:
            for _ in process.map_in_order(lambda _: single.run(None, feeds), range(_BATCH), threads=threads):
                pass

        yield _timing(concurrently, _BATCH, "concurrent calls", seconds)
    elif batch == 1:
        feeds, found = _samples(session, _BATCH)
        if found == _BATCH:
            yield _timing(partial(session.run, None, feeds), _BATCH, "one call", seconds)


def _timing(call: Callable[[], Any], batch: int, how: str, seconds: float) -> Timing:
    call()
    times: list[float] = []
    started = time.monotonic()
    while len(times) < _FEWEST or time.monotonic() - started < seconds:
        before = time.monotonic()
        call()
        times.append(time.monotonic() - before)
    median, p95 = np.percentile(np.array(times) * 1e3, (50, 95))
    return Timing(batch, how, len(times), float(median), float(p95), batch * len(times) / sum(times))


def _samples(session: PlacedSession, batch: int) -> tuple[dict[str, NDArray[Any]], int | None]:
    """Make inputs for so many samples; return the number that a call really takes, None if it has no batch axis."""
    about = _provenance(session)
    raw = about is not None and about.get("input_kind", "raw") == "raw"
    rng = np.random.default_rng(0)
    feeds: dict[str, NDArray[Any]] = {}
    found: int | None = None
    for value in session.inputs:
        shape = list(value.shape)
        if not raw and shape and not isinstance(shape[0], int):
            shape[0], found = batch, batch
        elif not raw and shape:
            found = shape[0]
        sizes = [size if isinstance(size, int) else _size(about, value.name, axis) for axis, size in enumerate(shape)]
        if value.type not in _DTYPES:
            raise DeployError(
                f"the model takes {value.type}, which cannot be made up: measure it with a program of yours"
            )
        feeds[value.name] = _values(rng, _DTYPES[value.type], sizes)
    return feeds, found


def _provenance(session: PlacedSession) -> dict[str, Any] | None:
    from edgetl.deployment.deployed import METADATA_EDGETL

    try:
        about = json.loads(session.metadata[METADATA_EDGETL])
    except (KeyError, ValueError):
        return None
    return about if isinstance(about, dict) else None


def _size(about: dict[str, Any] | None, name: str, axis: int) -> int:
    """A size that differs from sample to sample, as a typical sample has it."""
    about = about or {}
    if name == "image" and axis < 2:
        return int(PICTURE[axis])
    if about.get("audio"):
        return round(float(about["audio"]["seconds"]) * float(about["audio"]["sample_rate"]))
    if about.get("text"):
        return int(about["text"]["max_length"])
    return 1


def _values(rng: np.random.Generator, dtype: str, shape: list[int]) -> NDArray[Any]:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.standard_normal(shape).astype(kind)
    # ids of tokens and masks: 1 is in every vocabulary
    return rng.integers(0, 256, shape).astype(kind) if kind == np.uint8 else np.ones(shape, kind)


def _main(job: str) -> None:
    try:
        answer = schema.to_json(_measure(**json.loads(job)))
    except EdgetlError as error:
        answer = {"error": str(error)}
    except Exception as error:  # a model that onnxruntime loads and cannot run
        answer = {"error": f"{json.loads(job)['model']} cannot be run: {str(error).strip().partition(chr(10))[0]}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    _main(sys.argv[1])
