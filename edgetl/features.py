"""The feature cache: what the frozen part makes of each sample, computed once and kept on the disk.

A cache belongs to one preprocessing and backbone (its folder is named by their hash and by the
runtime that computes them). A sample is known by the hash of its content, so renamed, moved or copied
files are found again and only what is new is computed.

Format, in `<cache>/<key>/`: `features.bin`, one record per sample, the feature tensors of the
manifest one after the other, little-endian; `index.bin`, 24 bytes per sample: 16 bytes of the
sample's BLAKE2b, the CRC-32 of the record, the CRC-32 of the 20 bytes before. Records are flushed
before their index entries: what the index names is complete, whatever happened to the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import time
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl import runtime
from edgetl.artifacts import BACKBONE, PREPROCESS, TOKENIZER, Artifacts, TensorSpec
from edgetl.data import Sample, content_digest
from edgetl.data.augment import Views
from edgetl.data.decode import open_decoder
from edgetl.errors import DataError
from edgetl.events import FeatureProgress, Note, OnEvent, ignore
from edgetl.providers import Provider, open_placed
from edgetl.storage import locked

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ENTRY = struct.Struct("<16sII")
_FLUSH_EVERY_SECONDS = 2.0


@dataclass(frozen=True)
class Rejected:
    """A sample that was left out, by its name, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class FeatureSet:
    """Features of the usable samples.

    Attributes:
        samples: the samples that could be read, in their given order.
        positions: `[len(samples)]` int64, the place of each among those given.
        digests: the content hash of each, hexadecimal.
        rows: `[len(samples)]` int64, the row of each in `tensors`.
        view_rows: `[len(samples), K]` int64, the rows of K other views of each.
        tensors: one memory map per feature tensor, `[rows of the cache, *shape]`.
        rejected: what was left out.
        computed, reused: how many were new and how many came from the cache.
        seconds: what it took.
        placement: each execution provider's share of the backbone's time; empty if it did not run.
    """

    samples: tuple[Sample, ...]
    positions: NDArray[np.int64]
    digests: tuple[str, ...]
    rows: NDArray[np.int64]
    view_rows: NDArray[np.int64]
    tensors: tuple[NDArray[Any], ...]
    rejected: tuple[Rejected, ...]
    computed: int
    reused: int
    seconds: float
    placement: dict[str, float]
    source: _Source

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None = None) -> tuple[NDArray[Any], ...]:
        """Return the features of the samples at `indices`, one `[len(indices), *shape]` array per tensor.

        Args:
            rng: draws one view of each, or the sample itself; None takes the samples.
        """
        rows = self.rows[indices]
        count = self.view_rows.shape[1]
        if rng is not None and count:
            drawn = rng.integers(0, count + 1, len(indices))
            rows = np.where(drawn == count, rows, self.view_rows[indices, np.minimum(drawn, count - 1)])
        specs = self.source.artifacts.manifest.features
        return tuple(
            np.ascontiguousarray(tensor[rows], dtype=spec.dtype)
            for tensor, spec in zip(self.tensors, specs, strict=True)
        )


def default_cache_directory() -> Path:
    """Return where features are kept unless told otherwise: `$EDGETL_CACHE`, or the user's cache folder."""
    if configured := os.environ.get("EDGETL_CACHE"):
        return Path(configured)
    base = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgetl" / "features"


def extract_features(
    artifacts: Artifacts,
    samples: Sequence[Sample],
    *,
    cache: Path | None = None,
    threads: int | None = None,
    provider: Provider | None = None,
    precision: str = "float32",
    on_event: OnEvent = ignore,
) -> FeatureSet:
    """Put every sample through preprocessing and backbone, or take its features from the cache.

    Each sample is computed on its own by one single-threaded session called from `threads` threads:
    on two cores that is as fast as larger batches, needs a fifth of their memory, and makes a
    sample's features independent of its neighbours.

    Args:
        precision: `float32`, or `float16`, which halves the cache and rounds its values.

    Raises:
        RunError, OSError: the cache cannot be written.
    """
    source = _Source(artifacts, cache, threads or runtime.available_cores(), provider or Provider(), precision)
    found = _extract(source, [(sample, None) for sample in samples], None, on_event)
    kept = [position for position, result in enumerate(found.results) if not isinstance(result, Rejected)]
    return FeatureSet(
        samples=tuple(samples[position] for position in kept),
        positions=np.array(kept, dtype=np.int64),
        digests=tuple(result.hex() for result in found.results if not isinstance(result, Rejected)),
        rows=found.rows[kept],
        view_rows=np.empty((len(kept), 0), np.int64),
        tensors=found.tensors,
        rejected=tuple(result for result in found.results if isinstance(result, Rejected)),
        computed=found.computed,
        reused=len(kept) - found.computed,
        seconds=found.seconds,
        placement=found.placement,
        source=source,
    )


def extract_views(
    features: FeatureSet, indices: NDArray[np.int64], views: Views, on_event: OnEvent = ignore
) -> FeatureSet:
    """Return the features with `views` of the samples at `indices`, which `FeatureSet.batch` can draw from.

    Raises:
        DataError: there are no views of this modality.
        RunError, OSError: the cache cannot be written.
    """
    items = [(features.samples[index], number) for index in indices for number in range(views.count)]
    found = _extract(features.source, items, views, on_event)
    for result in found.results:
        if isinstance(result, Rejected):
            raise DataError(f"{result.name}: {result.reason}")
    # samples without views stand for their own
    view_rows = np.repeat(features.rows[:, None], views.count, axis=1)
    view_rows[indices] = found.rows.reshape(len(indices), views.count)
    return replace(
        features,
        view_rows=view_rows,
        tensors=found.tensors,
        computed=features.computed + found.computed,
        reused=features.reused + len(items) - found.computed,
        seconds=features.seconds + found.seconds,
        placement=features.placement or found.placement,
    )


@dataclass(frozen=True)
class _Source:
    """What computes features, and where they are kept."""

    artifacts: Artifacts
    cache: Path | None
    threads: int
    provider: Provider
    precision: str

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The features as they are stored."""
        stored = {"float32": self.precision}
        return tuple(replace(s, dtype=stored.get(s.dtype, s.dtype)) for s in self.artifacts.manifest.features)

    @property
    def directory(self) -> Path:
        """The cache of this source."""
        key = _cache_key(self.artifacts, self.provider, self.precision)
        return (self.cache or default_cache_directory()) / key


@dataclass(frozen=True)
class _Found:
    """For each item its digest or why not, and its row (-1 if rejected)."""

    results: list[bytes | Rejected]
    rows: NDArray[np.int64]
    tensors: tuple[NDArray[Any], ...]
    computed: int
    seconds: float
    placement: dict[str, float]


def _extract(
    source: _Source, items: Sequence[tuple[Sample, int | None]], views: Views | None, on_event: OnEvent
) -> _Found:
    """Compute, or find in the cache, samples (None) or views of them by number."""
    started = time.monotonic()
    with FeatureCache(source.directory, source.specs, on_event) as store:
        extractor = _Extractor(source, store, views, on_event)
        found: list[bytes | Rejected] = []
        computed = 0
        with warnings.catch_warnings():
            # decoding checks sizes itself and says so in its own words
            warnings.filterwarnings("ignore", module=r"PIL\.")
            for result in runtime.map_in_order(extractor, items, threads=source.threads):
                if isinstance(result, _Extracted) and result.record is not None and result.digest not in store:
                    store.append(result.digest, result.record)
                    computed += 1
                found.append(result if isinstance(result, Rejected) else result.digest)
                on_event(FeatureProgress(len(found), len(items), len(found) - computed))
        store.flush()
        rows = [-1 if isinstance(result, Rejected) else store.row(result) for result in found]
        tensors = store.tensors()
    seconds = time.monotonic() - started
    return _Found(found, np.array(rows, dtype=np.int64), tensors, computed, seconds, extractor.placement)


class FeatureCache:
    """The append-only store described at the top of this file; use it in a `with` statement.

    Entering waits for the lock, drops what an interrupted writer left unfinished, and passes over
    records that fail their checksum, so that they are computed again.
    """

    def __init__(self, directory: Path, specs: Sequence[TensorSpec], on_event: OnEvent = ignore) -> None:
        self._record = np.dtype([(f"{i}", np.dtype(s.dtype).newbyteorder("<"), s.shape) for i, s in enumerate(specs)])
        self._directory = directory
        self._features_file = directory / "features.bin"
        self._index_file = directory / "index.bin"
        self._lock = locked(
            directory / "lock", f"the feature cache {directory}", on_wait=lambda text: on_event(Note(text))
        )
        self._on_event = on_event
        self._rows: dict[bytes, int] = {}
        self._count = 0
        self._pending: list[bytes] = []
        self._flushed = time.monotonic()

    def __enter__(self) -> FeatureCache:
        self._lock.__enter__()
        try:
            self._open()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # each in turn, even if the disk is full and those before fail
        with contextlib.ExitStack() as stack:
            stack.push(self._lock)
            stack.callback(self._index.close)
            stack.callback(self._features.close)
            self.flush()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._rows

    def row(self, digest: bytes) -> int:
        """Return the row of a sample that is in the cache."""
        return self._rows[digest]

    def append(self, digest: bytes, record: bytes) -> None:
        """Add a sample's features (the bytes of one record)."""
        assert len(record) == self._record.itemsize, "a record has the size the manifest declares"
        self._features.write(record)
        head = _ENTRY.pack(digest, zlib.crc32(record), 0)[:20]
        self._pending.append(head + struct.pack("<I", zlib.crc32(head)))
        self._rows[digest] = self._count
        self._count += 1
        if time.monotonic() - self._flushed > _FLUSH_EVERY_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Make everything appended so far survive a loss of power."""
        if self._pending:
            self._features.flush()
            os.fsync(self._features.fileno())
            self._index.write(b"".join(self._pending))
            self._pending.clear()
            self._index.flush()
            os.fsync(self._index.fileno())
        self._flushed = time.monotonic()

    def tensors(self) -> tuple[NDArray[Any], ...]:
        """Return one read-only memory map per feature tensor, `[rows, *shape]`; flushed rows only."""
        if self._count == 0:
            return tuple(np.empty((0, *self._record[i].shape), self._record[i].base) for i in self._record.names or ())
        records = np.memmap(self._features_file, dtype=self._record, mode="r", shape=(self._count,))
        return tuple(records[name] for name in self._record.names or ())

    def _open(self) -> None:
        self._features = open(self._features_file, "a+b")  # noqa: SIM115 - closed in __exit__
        self._index = open(self._index_file, "a+b")  # noqa: SIM115
        self._index.seek(0)
        entries = self._index.read()
        size = self._record.itemsize
        self._features.seek(0, os.SEEK_END)
        self._count = min(len(entries) // _ENTRY.size, self._features.tell() // size)
        self._index.truncate(self._count * _ENTRY.size)
        self._features.truncate(self._count * size)
        damaged = 0
        self._features.seek(0)
        for row in range(self._count):
            record = self._features.read(size)
            entry = entries[row * _ENTRY.size : (row + 1) * _ENTRY.size]
            digest, record_crc, entry_crc = _ENTRY.unpack(entry)
            if zlib.crc32(entry[:20]) == entry_crc and zlib.crc32(record) == record_crc:
                self._rows[digest] = row
            else:
                damaged += 1
        if damaged:
            self._on_event(Note(f"{damaged} damaged records in {self._directory} are computed again"))


@dataclass(frozen=True)
class _Extracted:
    digest: bytes
    record: bytes | None


class _Extractor:
    """Callable from several threads: a sample, or a view of it, to its record, or to the reason why not."""

    def __init__(self, source: _Source, store: FeatureCache, views: Views | None, on_event: OnEvent) -> None:
        artifacts = source.artifacts
        manifest = artifacts.manifest
        self._store = store
        self._views = views
        self._specs = source.specs
        self._names = [spec.name for spec in manifest.features]
        self._inputs = [spec.name for spec in manifest.inputs]
        tokenizer = artifacts.file(TOKENIZER).read_text(encoding="utf-8") if manifest.text is not None else ""
        self._decode = open_decoder(manifest.modality, manifest.inputs, manifest.audio, manifest.text, tokenizer)
        self._preprocess = runtime.open_session(artifacts.file(PREPROCESS))
        self._backbone = None
        if artifacts.has_backbone:
            file = artifacts.file(BACKBONE)
            self._backbone = open_placed(file, source.provider, threads=1, what="the backbone", on_event=on_event)

    @property
    def placement(self) -> dict[str, float]:
        """Each execution provider's share of the backbone's time; empty if it has not run."""
        return (self._backbone.placement or {}) if self._backbone is not None else {}

    def __call__(self, item: tuple[Sample, int | None]) -> _Extracted | Rejected:
        sample, number = item
        try:
            content = sample.read()
            digest = content_digest(content)
            if self._views is not None and number is not None:
                digest = self._views.digest(digest, number)
            if digest in self._store:
                return _Extracted(digest, None)
            decoded = self._decode(content)
            if self._views is not None:
                decoded = self._views.make(decoded, digest)
        except DataError as error:
            return Rejected(sample.name, str(error))
        inputs = dict(zip(self._inputs, self._preprocess.run(self._inputs, decoded), strict=True))
        if self._backbone is not None:
            tensors = self._backbone.run(self._names, inputs)
        else:
            tensors = [inputs[name] for name in self._names]
        stored = [np.ascontiguousarray(t, dtype=spec.dtype) for t, spec in zip(tensors, self._specs, strict=True)]
        return _Extracted(digest, b"".join(tensor.tobytes() for tensor in stored))


def _cache_key(artifacts: Artifacts, provider: Provider, precision: str) -> str:
    version = runtime.import_onnxruntime().__version__
    files = artifacts.manifest.files
    names = ",".join(spec.name for spec in artifacts.manifest.features)
    text = f"{files[PREPROCESS]} {files.get(BACKBONE)} {names} {version}"
    if artifacts.manifest.audio is not None:
        text += f" {artifacts.manifest.audio.sample_rate}"
    if artifacts.manifest.text is not None:
        text += f" {artifacts.manifest.text} {files[TOKENIZER]}"
    if precision != "float32":
        text += f" {precision}"
    if not provider.is_cpu:
        text += f" {provider.name} {provider.options}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]
