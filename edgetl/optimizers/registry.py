"""The optimizers by name, and the record of one with its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from edgetl import defaults
from edgetl.declaration import LARGEST, SMALLEST, Range, check_range
from edgetl.errors import EdgetlError
from edgetl.files.schema import SchemaError
from edgetl.optimizers.adamw import ADAMW
from edgetl.optimizers.lion import LION
from edgetl.optimizers.rule import OptimizerRule
from edgetl.optimizers.sgd import SGD_MOMENTUM

RULES: Mapping[str, OptimizerRule] = {rule.name: rule for rule in (ADAMW, SGD_MOMENTUM, LION)}

WEIGHT_DECAY = Range(0.0, LARGEST)
CLIP_NORM = Range(SMALLEST, LARGEST)


def _number(value: Any) -> Any:
    """A whole number as a float: graphs compute in floats."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else value


@dataclass(frozen=True)
class Optimizer:
    """An optimizer and its numbers.

    Attributes:
        name: one of `RULES`.
        hyperparameters: the rule's own; what is not given has the rule's default.
        weight_decay: decoupled from the gradient (Loshchilov & Hutter 2019).
        clip_norm: largest norm of all gradients together; longer ones are scaled down to it.
    """

    name: str = ADAMW.name
    hyperparameters: dict[str, float] = field(default_factory=dict)
    weight_decay: float = defaults.WEIGHT_DECAY
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        rule = RULES.get(self.name)  # a damaged file may name any
        known = {} if rule is None else {name: each.default for name, each in rule.hyperparameters.items()}
        given = {name: _number(value) for name, value in self.hyperparameters.items()}
        object.__setattr__(self, "hyperparameters", {**known, **given})
        object.__setattr__(self, "weight_decay", _number(self.weight_decay))
        object.__setattr__(self, "clip_norm", _number(self.clip_norm))

    @property
    def rule(self) -> OptimizerRule:
        """Its rule."""
        return RULES[self.name]

    def check(self) -> None:
        """Refuse a name or number that no optimizer has.

        Raises:
            EdgetlError: it says which, and what may be.
        """
        if self.name not in RULES:
            raise EdgetlError(f"there is no optimizer {self.name!r}: choose one of {', '.join(RULES)}")
        known = self.rule.hyperparameters
        for name, value in self.hyperparameters.items():
            if name not in known:
                has = f"it has {', '.join(known)}"
                raise EdgetlError(f"the optimizer {self.name} has no {name!r}: {has}")
            check_range(f"{name} of {self.name}", value, known[name].range)
        check_range("weight_decay", self.weight_decay, WEIGHT_DECAY)
        if self.clip_norm is not None:
            check_range("clip_norm", self.clip_norm, CLIP_NORM)

    @staticmethod
    def upgraded(record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a record of schema 1, which held the numbers of every optimizer, in today's form.

        Raises:
            SchemaError: its `betas` are not two.
        """
        if "hyperparameters" in record or not {"betas", "epsilon", "momentum"} & set(record):
            return record
        kept = {name: record[name] for name in ("name", "weight_decay", "clip_norm") if name in record}
        if record.get("name", ADAMW.name) == SGD_MOMENTUM.name:
            numbers = {"momentum": record.get("momentum")}
        else:
            betas = record.get("betas", [None, None])
            if not isinstance(betas, list) or len(betas) != 2:
                raise SchemaError("field 'betas' of the optimizer has the wrong type")
            beta1, beta2 = betas
            numbers = {"beta1": beta1, "beta2": beta2, "epsilon": record.get("epsilon")}
        return {**kept, "hyperparameters": {name: value for name, value in numbers.items() if value is not None}}
