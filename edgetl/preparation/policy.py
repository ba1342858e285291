"""Which parameters train."""

from __future__ import annotations

from collections.abc import Sequence

from edgetl.errors import ModelError
from edgetl.preparation.heads import Network

POLICIES = ("head",)


def trainable_parameters(network: Network, policies: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the parameters that the policies, united, train.

    Raises:
        ModelError: a policy is not known.
    """
    names: list[str] = []
    for policy in policies:
        if policy != "head":
            raise ModelError(f"--train {policy!r} is not known: choose from {', '.join(POLICIES)}")
        names.extend(network.head)
    return tuple(dict.fromkeys(names))
