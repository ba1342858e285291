"""The names of the tasks."""

from __future__ import annotations

TASKS = ("classification", "multilabel", "regression")
"""One class for each sample; any number of classes; numbers."""
