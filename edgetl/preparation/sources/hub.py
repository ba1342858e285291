"""Places that weights are downloaded from: asked once whether they answer, where libraries would try a dozen times."""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from edgetl.errors import ModelError, first_line
from edgetl.preparation.sources.quiet import quiet

_PATIENCE = 8.0  # seconds for an answer


@contextlib.contextmanager
def hugging_face() -> Iterator[str]:
    """Let the block use the hub quietly; where it does not answer, only what lies on this disk already.

    Yields:
        Why it does not answer, as a clause; empty if it does.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    reason = "" if before else _silence(constants.ENDPOINT, int(time.monotonic() // 60))
    try:
        constants.HF_HUB_OFFLINE = before or bool(reason)
        with quiet():
            yield reason
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Let connections of the block that set no limit of their own wait for a bounded time only."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before or _PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def unreachable(what: str, error: Exception, silence: str = "") -> ModelError:
    """Return our error for weights that cannot be downloaded.

    Args:
        what: names the weights.
        silence: why their server does not answer, if that is known.
    """
    why = silence or first_line(error)
    return ModelError(f"{what} cannot be downloaded: {why}; give a file with --weights, or go online")


@functools.lru_cache(maxsize=8)
def _silence(address: str, minute: int) -> str:
    """Return why a server does not answer, or nothing; asked again in another minute."""
    if "all" in urllib.request.getproxies():
        return ""  # of a kind that the hub's client knows and this does not
    request = urllib.request.Request(address, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_PATIENCE).close()
    except urllib.error.HTTPError:
        return ""  # an answer
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLError):
            return ""  # the hub's client may know other certificates
        return f"{address} does not answer ({first_line(reason if isinstance(reason, str) else str(reason))})"
    except ValueError:
        return ""  # an address that the hub's client is to judge
    return ""
