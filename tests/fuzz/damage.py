"""Damaged copies of a file's bytes, and what must hold of whatever reads them.

A case is known by a seed and a number: `rng_of(seed, number)` draws the same damage again.
"""

from __future__ import annotations

import contextlib
import faulthandler
import random
import signal
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgetl.errors import EdgetlError
from edgetl.runtime.process import peak_rss_mb

SECONDS = 20
"""How long one case may take; on an idle core each takes a fraction of a second."""

MEGABYTES = 400
"""How much more memory one case may take than any before it."""

LONGEST = 2000
"""Characters of a message that is still a sentence."""

_EXTREMES = [
    *(struct.pack("<I", value) for value in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)),
    *(struct.pack(">I", value) for value in (1, 0x7FFFFFFF, 0x80000000, 0x10000)),
    *(struct.pack("<H", value) for value in (0, 0x7FFF, 0x8000, 0xFFFF)),
    *(struct.pack("<Q", value) for value in (1 << 32, (1 << 63) - 1, (1 << 64) - 1)),
    *(struct.pack("<d", value) for value in (float("nan"), float("inf"), 1.7e308)),
    *(struct.pack("<f", value) for value in (float("nan"), -float("inf"), 3.4e38)),
    *(b"\x00", b"\xff", b"\x80", b"\x00" * 64, b"\xff" * 64),
    *(b"-1", b"0", b"99999999999999999999", b"1e999", b"null", b'"', b"{", b"]", b"\n", b"../", b"\xef\xbb\xbf"),
]


class Hang(BaseException):
    """A case took too long; no `except Exception` on the way takes it for damage."""


def rng_of(seed: int, number: int) -> random.Random:
    return random.Random(f"{seed} {number}")


def damaged(data: bytes, rng: random.Random, *, most: int = 4) -> bytes:
    """Return the data after one to `most` blows."""
    for _ in range(rng.randint(1, most)):
        data = rng.choice(_BLOWS)(data, rng)
    return data


def _flipped(data: bytes, rng: random.Random) -> bytes:
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 8)) if result else 0):
        result[rng.randrange(len(result))] ^= 1 << rng.randrange(8)
    return bytes(result)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))]


def _piece(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.choice((1, 4, 16, 256)))


def _removed(data: bytes, rng: random.Random) -> bytes:
    start, end = _piece(data, rng)
    return data[:start] + data[end:]


def _doubled(data: bytes, rng: random.Random) -> bytes:
    start, end = _piece(data, rng)
    return data[:end] + data[start:]


def _moved(data: bytes, rng: random.Random) -> bytes:
    start, end = _piece(data, rng)
    to = rng.randint(0, len(data))
    return data[:to] + data[start:end] + data[to + end - start :]


def _extreme_written(data: bytes, rng: random.Random) -> bytes:
    # headers are where sizes and counts stand
    start = rng.randint(0, min(len(data), rng.choice((64, len(data)))))
    extreme = rng.choice(_EXTREMES)
    return data[:start] + extreme + data[start + len(extreme) :]


def _extreme_inserted(data: bytes, rng: random.Random) -> bytes:
    start = rng.randint(0, len(data))
    return data[:start] + rng.choice(_EXTREMES) + data[start:]


_BLOWS = (_flipped, _flipped, _cut, _removed, _doubled, _moved, _extreme_written, _extreme_inserted)


_ODD = (None, True, -1, 0, 1, 2**31, 2**32, 2**64, 1e308, "", "x", "no such", "\ud7ff", [], {}, [0], {"type": "BPE"})


def altered(value: Any, rng: random.Random) -> Any:
    """Return a JSON value with one of its parts replaced or removed."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.08:
        return rng.choice(_ODD)
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    copy = value.copy()
    if rng.random() < 0.1:
        del copy[key]
    else:
        copy[key] = altered(value[key], rng)
    return copy


@contextlib.contextmanager
def bounded(seconds: int = SECONDS) -> Iterator[None]:
    """Raise Hang in the block after so many seconds; end the process if native code does not give way."""

    def late(*_: object) -> None:
        raise Hang(f"took longer than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(3 * seconds, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def outcome(case: Callable[[], None], refusal: type[EdgetlError]) -> str:
    """Run a case, which checks what it accepts; return `accepted` or `refused`.

    It is refused with one sentence that a terminal shows as it stands.
    """
    before = peak_rss_mb()
    with bounded():
        try:
            case()
        except refusal as error:
            sentence = str(error)
            assert sentence.strip(), "an error without a word"
            assert len(sentence) <= LONGEST, f"{len(sentence)} characters: {sentence[:300]}"
            assert not any(ord(c) < 32 and c != "\t" for c in sentence), f"control characters: {sentence!r}"
            found = "refused"
        else:
            found = "accepted"
    more = peak_rss_mb() - before
    assert more < MEGABYTES, f"took {more:.0f} MB"
    return found


def withstand(
    case: Callable[[random.Random], None], *, times: int, seed: int, refusal: type[EdgetlError], both: bool = True
) -> None:
    """Run a case with `times` generators.

    Args:
        case: draws damage, reads it, and checks what was accepted.
        refusal: the only error that it may end in.
        both: whether some cases must be accepted and others refused, or the test would be an empty one.
    """
    found: Counter[str] = Counter()
    for number in range(times):
        rng = rng_of(seed, number)
        try:
            found[outcome(lambda rng=rng: case(rng), refusal)] += 1  # type: ignore[misc]
        except KeyboardInterrupt:
            raise
        # panics of Rust code are no Exception
        except BaseException as error:
            raise AssertionError(f"case {number} of seed {seed}: {type(error).__name__}: {error}") from error
    assert not both or len(found) == 2, f"all cases were {next(iter(found))}"


def explore(strategy: st.SearchStrategy[Any], case: Callable[[Any], None], *, times: int, **kinds: Any) -> None:
    """Run a case with `times` values that hypothesis draws, the same each time."""

    def check(value: Any) -> None:
        outcome(lambda: case(value), **kinds)

    settings(
        max_examples=times,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(given(strategy)(check))()
