"""What samples are like before they are used: what of them the network does not take, and windows of recordings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgetl.artifacts import AudioPreprocessing
from edgetl.data.audio import open_wav
from edgetl.data.decode import SECONDS, Decoder, Extent, Span
from edgetl.data.sample import Sample, Samples
from edgetl.declaration import check_range
from edgetl.errors import DataError
from edgetl.events import Note, OnEvent
from edgetl.runtime.process import map_in_order
from edgetl.shared_settings import WINDOW_SECONDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHORT = 0.6
"""Share of what the network hears below which the longest recording leaves much silence around it."""

_TOLERANCE = 0.05
"""Share of a window by which a recording may be longer without a word, or without a window more."""


@dataclass(frozen=True)
class Windows:
    """Which parts of recordings are samples of their own.

    Attributes:
        length: of a window, in samples at the network's rate.
        hop: from the start of a window to the start of the next.
    """

    length: int
    hop: int

    def spans(self, count: int) -> list[Span]:
        """Return the windows of a recording of `count` samples; the last one ends where the recording ends."""
        if count <= self.length * (1 + _TOLERANCE):
            return [(0, count)]
        starts = list(range(0, count - self.length + 1, self.hop))
        left = count - starts[-1] - self.length
        if left > self.length * _TOLERANCE and starts[-1] + self.hop < count:
            starts.append(count - self.length)
        return [(start, start + self.length) for start in starts]


def windows_of(audio: AudioPreprocessing | None, window: float | None, hop: float | None) -> Windows | None:
    """Return the windows asked for in seconds; None if neither is given.

    Args:
        window: length of a window; default what the network hears.
        hop: from one to the next; default the length.

    Raises:
        EdgetlError: the samples are not recordings, or the window is longer than what the network hears.
    """
    if window is None and hop is None:
        return None
    for name, seconds in (("window", window), ("hop", hop)):
        if seconds is not None:
            check_range(name, seconds, WINDOW_SECONDS)
    if audio is None:
        raise DataError("--window and --hop are for recordings: leave them out")
    if window is not None and window > audio.seconds:
        raise DataError(f"the network hears {audio.seconds:g} s at once: give a --window of at most {audio.seconds:g}")
    length = audio.samples if window is None else min(audio.samples, round(window * audio.sample_rate))
    distance = length if hop is None else round(hop * audio.sample_rate)
    if min(length, distance) < 1:
        raise DataError(f"--window and --hop must be at least {1 / audio.sample_rate:.2g} s, the time of one sample")
    return Windows(length, distance)


@dataclass(frozen=True)
class Surveyed:
    """Samples as they are used.

    Attributes:
        samples: those given; or their windows, named after their times.
        origins: `[len(samples)]` int64, the index of each among those given.
    """

    samples: Samples
    origins: NDArray[np.int64]


def survey(
    samples: Samples,
    decode: Decoder,
    windows: Windows | None = None,
    *,
    threads: int,
    on_event: OnEvent,
    keep_silent: bool = False,
    trains: bool = False,
) -> Surveyed:
    """Look through samples, tell in a note what of them the network does not take, and cut recordings into windows.

    Samples that cannot be read stay as they are; whoever uses them says so.

    Args:
        keep_silent: also windows of a recording that are silent where others are not.
        trains: whether they are to be learned from, so that it matters if the network hears much silence around them.
    """
    origins = np.arange(len(samples))
    if decode.extent is None:
        return Surveyed(samples, origins)
    rate = decode.audio.sample_rate if decode.audio is not None else 0

    def look(sample: Sample) -> _Look | None:
        try:
            content = sample.read()
            assert decode.extent is not None, "others are not looked at"
            extent = decode.extent(content)
            spans = _audible(content, rate, windows, keep_silent) if windows is not None else ([], 0)
        except DataError:
            return None
        return _Look(extent, *spans)

    tally = _Tally()
    spans: list[Span] = []
    ends: list[int] = []
    for sample, found in zip(samples, map_in_order(look, samples, threads=threads), strict=True):
        if found is not None:
            tally.add(sample.name, found)
        # what cannot be read is refused later
        spans.extend(found.spans if found is not None and found.spans else [_WHOLE])
        ends.append(len(spans))
    for text in (*tally.notes(windows, rate), *(tally.short_notes() if trains else ())):
        on_event(Note(text))
    if windows is None:
        return Surveyed(samples, origins)
    return _windowed(samples, np.repeat(origins, np.diff(ends, prepend=0)), np.array(spans, np.int64), rate)


_WHOLE = (-1, -1)
"""The span of a sample that is not cut."""


@dataclass(frozen=True)
class _Look:
    """What was seen of one sample; `silent` windows of it are not among `spans`."""

    extent: Extent
    spans: list[Span]
    silent: int


def _audible(content: bytes, rate: int, windows: Windows, keep_silent: bool) -> tuple[list[Span], int]:
    """Return the windows of a recording, and how many silent ones were left out because others are not."""
    recording = open_wav(content)
    spans = windows.spans(recording.length(rate))
    audible = spans if keep_silent else [span for span in spans if not recording.is_silent(rate, *span)]
    return audible or spans, len(spans) - len(audible or spans)


def _windowed(samples: Samples, origins: NDArray[np.int64], spans: NDArray[np.int64], rate: int) -> Surveyed:
    def make(index: int) -> Sample:
        sample, (start, stop) = samples[int(origins[index])], spans[index].tolist()
        if (start, stop) == _WHOLE:
            return sample
        return replace(sample, name=f"{sample.name}, {timed(start / rate, stop / rate)}", span=(start, stop))

    return Surveyed(Samples(make, range(len(origins))), origins)


def timed(start: float, end: float) -> str:
    """Return a stretch of time, in seconds, for people."""
    return f"{start:.2f} to {end:.2f} s"


class _Tally:
    """Counts what is worth a note, over all samples."""

    def __init__(self) -> None:
        self._samples = 0
        self._total = 0.0
        self._misdeclared = _Kind()
        self._long = _Kind()
        self._left_out = 0.0
        self._windows = 0
        self._silent = 0
        self._longest: Extent | None = None

    def add(self, name: str, look: _Look) -> None:
        """Count a sample."""
        extent = look.extent
        self._samples += 1
        self._total += extent.length
        if self._longest is None or extent.length > self._longest.length:
            self._longest = extent
        self._windows += len(look.spans)
        self._silent += look.silent
        if extent.misdeclared:
            self._misdeclared.add(name, extent)
        self._left_out += max(0.0, extent.length - extent.limit)
        if extent.length > extent.limit * (1 + _TOLERANCE if extent.unit == SECONDS else 1):
            self._long.add(name, extent)

    def notes(self, windows: Windows | None, rate: int) -> Iterator[str]:
        """Say what was counted, a sentence for each kind."""
        if self._misdeclared.count:
            yield self._misdeclared_note()
        if windows is not None:
            silent = ""
            if self._silent:
                verb = "was" if self._silent == 1 else "were"
                silent = f"; {_counted(self._silent, 'silent window')} {verb} left out"
            yield (
                f"{_counted(self._samples, 'recording')} gave {_counted(self._windows, 'window')} of "
                f"at most {windows.length / rate:g} s, one every {windows.hop / rate:g} s{silent}"
            )
        elif self._long.count:
            yield self._long_note()

    def short_notes(self) -> Iterator[str]:
        """Say so where the network hears silence for half of the time and more."""
        longest = self._longest
        if longest is not None and longest.unit == SECONDS and longest.length < _SHORT * longest.limit:
            yield (
                f"no recording lasts longer than {longest.length:.2f} s, where the network hears {longest.limit:g} s, "
                "so it learns from silence around them: for longer recordings, prepare with --audio-arg "
                f"seconds={longest.length:.2g}"
            )

    def _misdeclared_note(self) -> str:
        name, extent = self._misdeclared.first
        if self._samples == 1:
            return f"{name} {extent.misdeclared}: it was read to the end of the file"
        return (
            f"{self._misdeclared.count} of {self._samples} recordings do not have the length that their headers "
            f"declare (the first, {name}, {extent.misdeclared}): they were read to the end of the file"
        )

    def _long_note(self) -> str:
        count, (name, longest) = self._long.count, self._long.longest
        limit = longest.limit
        several = f"{count} of {self._samples}"
        if longest.unit == SECONDS:
            way = f"--hop {limit:g} uses all of it, in windows"
            if self._samples == 1:
                return (
                    f"{name} lasts {longest.length:.2f} s, and the network hears {limit:g} s: only the middle was "
                    f"used; {way}"
                )
            return (
                f"{several} recordings last longer than the {limit:g} s that the network hears, the longest "
                f"{longest.length:.2f} s ({name}): only the middle was used, and "
                f"{_share(self._left_out / self._total)} of all sound was not; {way}"
            )
        way = "a larger --max-length of 'edgetl prepare' keeps more of it"
        if self._samples == 1:
            return (
                f"{name!r} has {longest.length:.0f} tokens, and the network reads {limit:.0f}: the rest was left out; "
                f"{way}"
            )
        return (
            f"{several} texts have more than the {limit:.0f} tokens that the network reads, the longest "
            f"{longest.length:.0f} ({name}): the rest was left out; {way}"
        )


class _Kind:
    """Samples of one kind: how many, the first and the longest."""

    count = 0
    first: tuple[str, Extent]
    longest: tuple[str, Extent]

    def add(self, name: str, extent: Extent) -> None:
        if self.count == 0:
            self.first = self.longest = name, extent
        elif extent.length > self.longest[1].length:
            self.longest = name, extent
        self.count += 1


def _share(value: float) -> str:
    return f"{value:.0%}" if value >= 0.01 else "less than 1%"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"
