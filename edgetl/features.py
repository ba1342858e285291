"""The feature cache: what the frozen part makes of each sample, computed once and kept on the disk.

A cache belongs to one preprocessing and backbone (its folder is named by their hash and by the
runtime that computes them). A sample is known by the hash of its content, so renamed, moved or copied
files are found again and only what is new is computed.

Format, in `<cache>/<key>/`: `features.bin`, one record per sample, the feature tensors of the
manifest one after the other, little-endian; `index.bin`, 24 bytes per sample: 16 bytes of the
sample's BLAKE2b, the CRC-32 of the record, the CRC-32 of the 20 bytes before. Records are flushed
before their index entries: what the index names is complete, whatever happened to the process.
A damaged record's place is marked as free in the index, and the next new record takes it.

Records are read through the descriptor that they were found with, and never mapped: a run goes on where
the cache is deleted meanwhile, and says so in a sentence where it is cut or changed.
"""

from __future__ import annotations

import array
import contextlib
import errno
import hashlib
import os
import struct
import threading
import time
import warnings
import weakref
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from edgetl import defaults, runtime
from edgetl.artifacts import BACKBONE, PREPROCESS, TOKENIZER, Artifacts, TensorSpec
from edgetl.data import Sample, Samples, content_digest
from edgetl.data.augment import Views
from edgetl.data.checks import groups_at_odds
from edgetl.data.decode import Decoder, Span, enough_pixels, open_decoder
from edgetl.data.depth import FULL_RANGE, PixelRange
from edgetl.data.memory import Budget, decoding_bytes
from edgetl.data.sample import Reader
from edgetl.errors import DataError, EngineError, RunError
from edgetl.events import FeatureProgress, Note, OnEvent, ignore
from edgetl.providers import PlacedSession, Provider, open_placed
from edgetl.storage import locked, naming

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ENTRY = struct.Struct("<16sII")
_FREE = b"\xff" * _ENTRY.size
"""The entry of a place that was damaged and holds nothing; its checksum is not that of such bytes."""

_ANOTHER_CACHE = "name a folder for them in the environment variable EDGETL_CACHE (finetune also takes --cache DIR)"

_DIGEST = 16
_VIEW = 2
"""Times what decoding a picture takes, to make another view of it."""

_FLUSH_EVERY_SECONDS = 2.0
_CHUNK_BYTES = 8_000_000
_COMPARED_BYTES = 64_000_000


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
        digests: `[len(samples), 16]` uint8, the content hash of each.
        rows: `[len(samples)]` int64, the row of each in `records`.
        view_rows: `[len(samples), K]` int64, the rows of K other views of each, in `view_records`; -1 for the
            sample itself.
        records: what the cache holds.
        rejected: what was left out.
        computed, reused: how many were new and how many came from the cache.
        seconds: what it took.
        placement: each execution provider's share of the backbone's time; empty if it did not run.
    """

    samples: Samples
    positions: NDArray[np.int64]
    digests: NDArray[np.uint8]
    rows: NDArray[np.int64]
    view_rows: NDArray[np.int64]
    records: Records
    view_records: Records
    rejected: tuple[Rejected, ...]
    computed: int
    reused: int
    seconds: float
    placement: dict[str, float]
    source: _Source

    @property
    def tensors(self) -> tuple[StoredTensor, ...]:
        """Each feature tensor of the samples, by rows, as it is stored."""
        return self.records.tensors()

    def digest(self, index: int) -> str:
        """Return the content hash of a sample, hexadecimal."""
        return bytes(self.digests[index]).hex()

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator | None = None) -> tuple[NDArray[Any], ...]:
        """Return the features of the samples at `indices`, one `[len(indices), *shape]` array per tensor.

        Args:
            rng: draws one view of each, or the sample itself; None takes the samples.
        """
        rows = self.rows[indices]
        count = self.view_rows.shape[1]
        if rng is not None and count:
            drawn = rng.integers(0, count + 1, len(indices))
            views = np.where(drawn == count, -1, self.view_rows[indices, np.minimum(drawn, count - 1)])
            found = np.empty(len(rows), self.records.dtype)
            found[views < 0] = self.records.read(rows[views < 0])
            found[views >= 0] = self.view_records.read(views[views >= 0])
        else:
            found = self.records.read(rows)
        specs = self.source.artifacts.manifest.features
        return tuple(np.ascontiguousarray(found[f"{i}"], dtype=spec.dtype) for i, spec in enumerate(specs))


def default_cache_directory() -> Path:
    """Return where features are kept unless told otherwise: `$EDGETL_CACHE`, or the user's cache folder.

    Raises:
        RunError: this user has no home directory.
    """
    if configured := os.environ.get("EDGETL_CACHE"):
        return Path(configured)
    base = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "edgetl" / "features"
    except RuntimeError:  # no HOME, and no entry for the user
        raise RunError(f"this user has no home directory in which features could be kept: {_ANOTHER_CACHE}") from None


def decoder_of(artifacts: Artifacts, pixel_range: PixelRange | None = None, at_least: int | None = None) -> Decoder:
    """Return how the samples of a prepared directory are decoded; see `edgetl.data.decode.open_decoder`."""
    manifest = artifacts.manifest
    tokenizer = artifacts.file(TOKENIZER).read_text(encoding="utf-8") if manifest.text is not None else ""
    kind = (manifest.modality, manifest.inputs, manifest.audio, manifest.text)
    return open_decoder(*kind, tokenizer, pixel_range, at_least)


def extract_features(
    artifacts: Artifacts,
    samples: Samples,
    *,
    cache: Path | None = None,
    threads: int | None = None,
    provider: Provider | None = None,
    precision: str = "float32",
    pixel_range: PixelRange | None = None,
    decode: str = defaults.DECODE,
    decoding_mb: float | None = None,
    on_event: OnEvent = ignore,
) -> FeatureSet:
    """Put every sample through preprocessing and backbone, or take its features from the cache.

    Each sample is computed on its own by one single-threaded session called from `threads` threads:
    on two cores that is as fast as larger batches, needs a fifth of their memory, and makes a
    sample's features independent of its neighbours.

    Args:
        precision: `float32`, or `float16`, which halves the cache and rounds its values.
        pixel_range: of pictures of more than 8 bits; see `edgetl.data.depth`.
        decode: `scaled`, JPEGs at a part of their size where that is large enough, or `full`.
        decoding_mb: what decoding may take, 10^6 bytes; a picture that takes more is left out. None takes what
            is free.

    Raises:
        RunError, OSError: the cache cannot be written.
    """
    threads, provider = threads or runtime.available_cores(), provider or Provider()
    source = _Source(artifacts, cache, threads, provider, precision, pixel_range, decode, decoding_mb)
    found = _extract(source, ((sample, None) for sample in samples), len(samples), None, on_event)
    kept = np.flatnonzero(found.rows >= 0)
    return FeatureSet(
        samples=samples.take(kept),
        positions=kept,
        digests=found.digests[kept],
        rows=found.rows[kept],
        view_rows=np.empty((len(kept), 0), np.int64),
        records=found.records,
        view_records=found.records,
        rejected=found.rejected,
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
    items = ((features.samples[index], number) for index in indices for number in range(views.count))
    found = _extract(features.source, items, len(indices) * views.count, views, on_event)
    for item in found.rejected:
        raise DataError(f"{item.name}: {item.reason}")
    # samples without views stand for their own
    view_rows = np.full((len(features.rows), views.count), -1, np.int64)
    view_rows[indices] = found.rows.reshape(len(indices), views.count)
    return replace(
        features,
        view_rows=view_rows,
        view_records=found.records,
        computed=features.computed + found.computed,
        reused=features.reused + len(found.rows) - found.computed,
        seconds=features.seconds + found.seconds,
        placement=features.placement or found.placement,
    )


def alike(features: FeatureSet, rows: NDArray[np.int64], labels: NDArray[Any]) -> str | None:
    """Say whether samples look the same to the network though they are others; None if there is nothing to say.

    Only features of up to `_COMPARED_BYTES` are compared with each other; whether all are the same is always found.

    Args:
        rows: `[N]`, the samples to look at.
        labels: of all samples.
    """
    size = sum(spec.nbytes for spec in features.source.artifacts.manifest.features)
    chunk = max(1, _CHUNK_BYTES // size)
    first = features.batch(rows[:1])
    if len(rows) > 1 and all(
        np.allclose(tensor, start, rtol=1e-5, atol=1e-6 * float(np.abs(start).max()))
        for begin in range(0, len(rows), chunk)
        for tensor, start in zip(features.batch(rows[begin : begin + chunk]), first, strict=True)
    ):
        return (
            f"all {len(rows)} training samples look the same to the network, so it cannot learn to tell them apart: "
            "look at some of them, and at the preprocessing (edgetl inspect)"
        )
    if len(rows) * size > _COMPARED_BYTES:
        return None
    keys = [
        content_digest(b"".join(tensor[index].tobytes() for tensor in batch))
        for begin in range(0, len(rows), chunk)
        for batch in (features.batch(rows[begin : begin + chunk]),)
        for index in range(len(batch[0]))
    ]
    found = [
        (rows[one], rows[other])
        for one, other in groups_at_odds(np.array(keys, "V16"), labels[rows])
        if (features.digests[rows[one]] != features.digests[rows[other]]).any()
    ]
    if not found:
        return None
    one, other = (features.samples[index].name for index in found[0])
    return (
        f"{len(found)} training sample{'s look' if len(found) > 1 else ' looks'} the same to the network as another of "
        f"another label, though their contents differ ({one} and {other}{' …' if len(found) > 1 else ''}): it cannot "
        "learn to tell them apart"
    )


@dataclass(frozen=True)
class _Source:
    """What computes features, and where they are kept."""

    artifacts: Artifacts
    cache: Path | None
    threads: int
    provider: Provider
    precision: str
    pixel_range: PixelRange | None
    decode: str
    decoding_mb: float | None

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The features as they are stored."""
        stored = {"float32": self.precision}
        return tuple(replace(s, dtype=stored.get(s.dtype, s.dtype)) for s in self.artifacts.manifest.features)

    @property
    def directory(self) -> Path:
        """The cache of this source."""
        key = _cache_key(self.artifacts, self.provider, self.precision, self.pixel_range, self.decode)
        return (self.cache or default_cache_directory()) / key


@dataclass(frozen=True)
class _Found:
    """For each item its digest, `[N, 16]`, and its row, -1 if it was rejected."""

    digests: NDArray[np.uint8]
    rows: NDArray[np.int64]
    rejected: tuple[Rejected, ...]
    records: Records
    computed: int
    seconds: float
    placement: dict[str, float]


def _extract(
    source: _Source, items: Iterable[tuple[Sample, int | None]], count: int, views: Views | None, on_event: OnEvent
) -> _Found:
    """Compute, or find in the cache, samples (None) or views of them by number."""
    started = time.monotonic()
    with FeatureCache(source.directory, source.specs, on_event) as store:
        extractor = _Extractor(source, store, views, on_event)
        digests, rows = np.zeros((count, _DIGEST), np.uint8), np.full(count, -1, np.int64)
        rejected: list[Rejected] = []
        computed = 0
        with warnings.catch_warnings():
            # decoding checks sizes itself and says so in its own words
            warnings.filterwarnings("ignore", module=r"PIL\.")
            for done, result in enumerate(runtime.map_in_order(extractor, items, threads=source.threads)):
                if isinstance(result, Rejected):
                    rejected.append(result)
                else:
                    row = store.row(result.digest)
                    if row is None:
                        assert result.record is not None, "only what the store holds has none"
                        row = store.append(result.digest, result.record)
                        computed += 1
                    digests[done], rows[done] = np.frombuffer(result.digest, np.uint8), row
                on_event(FeatureProgress(done + 1, count, done + 1 - computed - len(rejected)))
        store.flush()
        records = store.records()
    seconds = time.monotonic() - started
    return _Found(digests, rows, tuple(rejected), records, computed, seconds, extractor.placement)


class Records:
    """What a cache held when it was closed, to be read by rows for as long as this lives.

    Args:
        descriptor: of the file of records; it is closed with this.
        dtype: of one record, a field per feature tensor.
        checksums: `[rows]` uint32, the CRC-32 of each record.
        directory: the cache, for messages.
    """

    def __init__(self, descriptor: int, dtype: np.dtype[Any], checksums: NDArray[np.uint32], directory: Path) -> None:
        self.dtype = dtype
        self._descriptor = descriptor
        self._checksums = checksums
        self._directory = directory
        weakref.finalize(self, os.close, descriptor)
        # nobody but another program changes what has been checked, and then the file tells another time or size
        self._checked = np.zeros(len(checksums), bool)
        self._state = self._stat()

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the records at `rows`, `[len(rows)]`.

        Raises:
            RunError: they are no longer there, or no longer what they were.
        """
        size = self.dtype.itemsize
        found = np.empty((len(rows), size), np.uint8)
        try:
            for record, row in zip(found, rows.tolist(), strict=True):
                if (done := _read_into(self._descriptor, record, row * size)) < size:
                    self._fill(record[done:], row * size + done)
            state = self._stat()
        except OSError as error:
            raise self._gone(f"cannot be read any more ({error.strerror})") from None
        if state != self._state:
            self._state = state
            self._checked[:] = False
        for place in np.flatnonzero(~self._checked[rows]).tolist():
            if zlib.crc32(found[place]) != self._checksums[rows[place]]:
                raise self._gone("has been changed by another program")
            self._checked[rows[place]] = True
        return found.reshape(-1).view(self.dtype)

    def _fill(self, piece: NDArray[np.uint8], start: int) -> None:
        done = 0
        while done < len(piece) and (count := _read_into(self._descriptor, piece[done:], start + done)):
            done += count
        if done < len(piece):
            raise self._gone("has been cut")

    def tensors(self) -> tuple[StoredTensor, ...]:
        """Return one for each feature tensor."""
        return tuple(StoredTensor(self, name) for name in self.dtype.names or ())

    def _stat(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_mtime_ns, status.st_size

    def _gone(self, what: str) -> RunError:
        return RunError(
            f"the feature cache {self._directory} {what} while it was in use: repeat the command (finetune: with "
            "--resume); what is missing there is computed again"
        )


@dataclass(frozen=True)
class StoredTensor:
    """One feature tensor of all records, `[rows, *shape]`; rows are read when they are asked for."""

    records: Records
    name: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """As it is stored."""
        return self.records.dtype[self.name].base

    def __getitem__(self, rows: int | NDArray[np.int64]) -> NDArray[Any]:
        """Return the tensor of a record, or of several."""
        found: NDArray[Any] = self.records.read(np.atleast_1d(rows))[self.name]
        return found if isinstance(rows, np.ndarray) else found[0]


class FeatureCache:
    """The store described at the top of this file; use it in a `with` statement.

    Entering waits for the lock, drops what an interrupted writer left unfinished, and frees the places of
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
        self._rows = _Rows()
        self._checksums = array.array("I")
        self._free: list[int] = []
        self._pending: list[tuple[int, bytes]] = []
        self._flushed = time.monotonic()

    def __enter__(self) -> FeatureCache:
        try:
            self._lock.__enter__()
            try:
                self._open()
            except BaseException:
                self._lock.__exit__(None, None, None)
                raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise RunError(
                f"no features can be kept in {self._directory} ({error.strerror}): {_ANOTHER_CACHE}"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # each in turn, even if the disk is full and those before fail
        with naming(self._directory), contextlib.ExitStack() as stack:
            stack.push(self._lock)
            stack.callback(self._index.close)
            stack.callback(self._features.close)
            self.flush()

    def row(self, digest: bytes) -> int | None:
        """Return the row of a sample; None if it is not in the cache."""
        return self._rows.find(digest)

    def append(self, digest: bytes, record: bytes) -> int:
        """Add a sample's features (the bytes of one record), and return its row."""
        assert len(record) == self._record.itemsize, "a record has the size the manifest declares"
        row = self._free[-1] if self._free else len(self._checksums)
        with naming(self._features_file):
            self._features.seek(row * len(record))
            self._features.write(record)
        checksum = zlib.crc32(record)
        head = _ENTRY.pack(digest, checksum, 0)[:20]
        self._pending.append((row, head + struct.pack("<I", zlib.crc32(head))))
        self._rows.add(digest, row)
        if self._free:
            self._free.pop()
            self._checksums[row] = checksum
        else:
            self._checksums.append(checksum)
        if time.monotonic() - self._flushed > _FLUSH_EVERY_SECONDS:
            self.flush()
        return row

    def flush(self) -> None:
        """Make everything appended so far survive a loss of power."""
        if self._pending:
            with naming(self._features_file):
                self._features.flush()
                os.fsync(self._features.fileno())
            with naming(self._index_file):
                for row, entry in self._pending:
                    self._index.seek(row * _ENTRY.size)
                    self._index.write(entry)
                self._pending.clear()
                self._index.flush()
                os.fsync(self._index.fileno())
        self._flushed = time.monotonic()

    def records(self) -> Records:
        """Return what there is now, flushed; it can be read when this is closed, too."""
        self.flush()
        self._features.flush()
        return Records(
            os.dup(self._features.fileno()), self._record, np.array(self._checksums, np.uint32), self._directory
        )

    def tensors(self) -> tuple[StoredTensor, ...]:
        """Return each feature tensor, by rows."""
        return self.records().tensors()

    def _open(self) -> None:
        self._features, self._index = _open_or_make(self._features_file), _open_or_make(self._index_file)
        entries = self._index.read()
        size = self._record.itemsize
        count = min(len(entries) // _ENTRY.size, self._features.seek(0, os.SEEK_END) // size)
        self._index.truncate(count * _ENTRY.size)
        self._features.truncate(count * size)
        damaged = 0
        self._features.seek(0)
        for row in range(count):
            record = self._features.read(size)
            entry = entries[row * _ENTRY.size : (row + 1) * _ENTRY.size]
            digest, checksum, entry_crc = _ENTRY.unpack(entry)
            self._checksums.append(checksum)
            if zlib.crc32(entry[:20]) == entry_crc and zlib.crc32(record) == checksum:
                self._rows.add(digest, row)
                continue
            self._free.append(row)
            if entry != _FREE:
                damaged += 1
                self._pending.append((row, _FREE))
        if damaged:
            self.flush()
            self._on_event(Note(f"{damaged} damaged records in {self._directory} are computed again"))


def _read_into(descriptor: int, piece: NDArray[np.uint8], start: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [piece.data], start)
    os.lseek(descriptor, start, os.SEEK_SET)  # Windows
    content = os.read(descriptor, len(piece))
    piece[: len(content)] = np.frombuffer(content, np.uint8)
    return len(content)


def _open_or_make(file: Path) -> IO[bytes]:
    return open(os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b")


class _Rows:
    """Which row holds which digest. A dict would take two hundred bytes for each, this takes 24.

    One thread adds while others look: what is taken out of one place has been put into the other before.
    """

    _RECENT = 4096

    def __init__(self) -> None:
        self._sorted = np.empty(0, f"S{_DIGEST}"), np.empty(0, np.int64)
        self._recent: dict[bytes, int] = {}

    def add(self, digest: bytes, row: int) -> None:
        self._recent[digest] = row
        if len(self._recent) >= self._RECENT:
            digests = np.concatenate([np.array(list(self._recent), f"S{_DIGEST}"), self._sorted[0]])
            rows = np.concatenate([np.array(list(self._recent.values()), np.int64), self._sorted[1]])
            order = np.argsort(digests, kind="stable")
            self._sorted = digests[order], rows[order]
            self._recent = {}

    def find(self, digest: bytes) -> int | None:
        if (row := self._recent.get(digest)) is not None:
            return row
        digests, rows = self._sorted
        place = int(np.searchsorted(digests, np.array(digest, digests.dtype)))
        # compared as bytes: NumPy takes zeros off the ends of strings
        return int(rows[place]) if digests[place : place + 1].tobytes() == digest else None


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
        self._read = Reader()
        self._specs = source.specs
        self._names = [spec.name for spec in manifest.features]
        self._inputs = [spec.name for spec in manifest.inputs]
        self._pictures = manifest.preprocessing
        self._at_least = enough_pixels(self._pictures, source.decode, 1.0 if views is None else views.part)
        self._decode = decoder_of(artifacts, source.pixel_range, self._at_least)
        self._budget = Budget(source.decoding_mb)
        self._source, self._on_event = source, on_event
        self._opening = threading.Lock()
        self._opened: tuple[PlacedSession, PlacedSession | None] | None = None

    @property
    def placement(self) -> dict[str, float]:
        """Each execution provider's share of the backbone's time; empty if it has not run."""
        _, backbone = self._opened or (None, None)
        return {} if backbone is None else backbone.placement or {}

    def _sessions(self) -> tuple[PlacedSession, PlacedSession | None]:
        """Return preprocessing and backbone; they are opened for the first sample that the store does not hold."""
        with self._opening:
            if self._opened is None:
                artifacts, backbone = self._source.artifacts, None
                if artifacts.has_backbone:
                    file, provider = artifacts.file(BACKBONE), self._source.provider
                    backbone = open_placed(file, provider, threads=1, what="the backbone", on_event=self._on_event)
                file = artifacts.file(PREPROCESS)
                preprocess = open_placed(file, Provider(), threads=1, what="the preprocessing", arena=False)
                self._opened = preprocess, backbone
        return self._opened

    def __call__(self, item: tuple[Sample, int | None]) -> _Extracted | Rejected:
        sample, number = item
        try:
            content, digest = self._read(sample)
            if self._views is not None and number is not None:
                digest = self._views.digest(digest, number)
            if self._store.row(digest) is not None:
                return _Extracted(digest, None)
            preprocess, backbone = self._sessions()
            copies = 1 if self._views is None else _VIEW
            needed = copies * decoding_bytes(content, self._pictures, self._at_least)
            with self._budget.taken(needed + len(content) if needed else 0):
                inputs = self._preprocessed(preprocess, content, sample.span, digest)
        except DataError as error:
            return Rejected(sample.name, str(error))
        # without a backbone what trains takes the inputs
        tensors = [inputs[name] for name in self._names] if backbone is None else backbone.run(self._names, inputs)
        try:
            return _Extracted(digest, b"".join(map(_stored, tensors, self._specs)))
        except DataError as error:
            return Rejected(sample.name, str(error))

    def _preprocessed(
        self, preprocess: PlacedSession, content: bytes, span: Span | None, digest: bytes
    ) -> dict[str, NDArray[Any]]:
        if self._views is None:
            decoded = self._decode(content, span)
        else:
            # a view may be moved, so what lies around the middle matters
            whole = self._decode.whole(content) if span is None else self._decode(content, span)
            decoded = self._views.make(whole, digest)
        return dict(zip(self._inputs, preprocess.run(self._inputs, decoded), strict=True))


def _stored(tensor: NDArray[Any], spec: TensorSpec) -> bytes:
    """Return a feature of one sample as it is stored.

    Raises:
        DataError: it is not finite; the message does not name the sample.
        EngineError: it is not what the manifest declares, or too large for the type that it is stored in.
    """
    if tensor.shape != (1, *spec.shape):
        raise EngineError(
            f"the frozen part gives {spec.name!r} as {list(tensor.shape)}, where the manifest declares "
            f"{[1, *spec.shape]}: prepare it anew"
        )
    if not np.isfinite(tensor).all():
        raise DataError(f"makes the frozen part compute numbers that are not finite ({spec.name!r})")
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(tensor, dtype=spec.dtype)
    if stored.dtype == np.float16 and not np.isfinite(stored).all():
        raise EngineError(
            f"the feature {spec.name!r} reaches {np.abs(tensor).max():.3g}, and float16 ends at 65504: "
            "use --cache-precision float32"
        )
    return stored.tobytes()


def _cache_key(
    artifacts: Artifacts, provider: Provider, precision: str, pixel_range: PixelRange | None, decode: str
) -> str:
    version = runtime.import_onnxruntime().__version__
    files = artifacts.manifest.files
    names = ",".join(spec.name for spec in artifacts.manifest.features)
    text = f"{files[PREPROCESS]} {files.get(BACKBONE)} {names} {version}"
    if artifacts.manifest.audio is not None:
        text += f" {artifacts.manifest.audio.sample_rate}"
    if artifacts.manifest.text is not None:
        text += f" {artifacts.manifest.text} {files[TOKENIZER]}"
    if pixel_range not in (None, FULL_RANGE):
        text += f" {pixel_range}"
    if precision != "float32":
        text += f" {precision}"
    if artifacts.manifest.preprocessing is not None and decode != "full":
        text += f" {decode} in whole pixels"
    if not provider.is_cpu:
        text += f" {provider.name} {provider.options}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]
