"""Every error a user can cause is one sentence: what, where, what to do.

EdgetlError
├── DataError        the pictures, or the folders they lie in
├── ModelError       the pretrained model: its source, its classifier, its operators
├── ArtifactsError   a prepared directory: missing, altered, from a newer edgetl
├── EngineError      no engine, two that clash, or one that refuses
├── RunError         a run directory: in the way, unfinished, not resumable
├── DeployError      the deployed file does not agree with the run
├── DeviceError      a device's profile, or a job that is too large for the device
└── RemoteError      another machine: not reached, or it refuses what is asked of it
"""

from __future__ import annotations

import contextlib
import shlex
import textwrap
import unicodedata
from collections.abc import Iterator


class EdgetlError(Exception):
    """Base of all errors that the caller can mend; the message is meant to be read by people."""


class DataError(EdgetlError):
    """The data set or one of its samples cannot be used."""


class ModelError(EdgetlError):
    """The pretrained model cannot be loaded, exported, cut or given gradients."""


class ArtifactsError(EdgetlError):
    """A prepared directory is incomplete, altered or not readable by this version."""


class EngineError(EdgetlError):
    """No engine can train here, or the one asked for refused."""


class OutOfMemoryError(EngineError):
    """There was not enough memory for what was computed at once."""


class RunError(EdgetlError):
    """A run directory is in the way, damaged, or does not fit the command."""


class DeployError(EdgetlError):
    """A deployed model cannot be written, read, or does not agree with its run."""


class DeviceError(EdgetlError):
    """A device's profile cannot be read, or the device is too small for what is asked of it."""


class RemoteError(EdgetlError):
    """Another machine cannot be reached, or what is asked of it cannot be done there."""


@contextlib.contextmanager
def one_sentence(kind: type[EdgetlError], what: str) -> Iterator[None]:
    """Let the block end in success or in one of our errors, whatever libraries raise on files from elsewhere.

    Args:
        what: what failed, for the message; the first line of what was raised follows.

    Raises:
        kind: with that as its cause.
    """
    try:
        yield
    except (EdgetlError, OSError):
        raise
    except Exception as error:
        raise kind(f"{what}: {first_line(error)}") from error


def visible(text: str) -> str:
    """Return text as one line that nothing in it can break, colour or turn round; names may hold anything.

    Line breaks, a terminal's commands, signs of the reading direction and other characters that show nothing become
    escapes such as `\\n` and `\\u202e`. Letters of every script, spaces, and the joiners that scripts and emoji
    need stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in _UNSEEN and c not in _JOINERS else c for c in text)


_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
_JOINERS = "\u200c\u200d"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def command(*words: object) -> str:
    """Return a command of edgetl as a shell takes it, to be told; what stands in capitals is to be filled in."""
    return shlex.join(["edgetl", *map(str, words)])


def first_line(error: BaseException | str, longest: int = 500) -> str:
    """Return the first line of what an exception says, or its name if it says nothing; without control characters."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    return textwrap.shorten("".join(c if c.isprintable() else " " for c in lines[0]), longest, placeholder=" …")
