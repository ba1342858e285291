"""Names of the tensors of a training step."""

from __future__ import annotations

LOSS = "loss"
GRADIENT = "/gradient"
"""Suffix of a parameter's gradient."""
SUM = "/sum"
"""Suffix of a gradient's sum over the parts of a batch."""
NEW = "/new"
"""Suffix of what a step makes anew."""
