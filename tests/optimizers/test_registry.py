"""Records of optimizers, those of older versions included; tests/engines/test_contract.py has the arithmetic."""

from typing import Any

import pytest

from edgetl.errors import EdgetlError
from edgetl.files.schema import SchemaError, from_json, to_json
from edgetl.optimizers.registry import RULES, Optimizer

# as edgetl wrote them before an optimizer had numbers of its own
OLD = {"betas": [0.8, 0.99], "epsilon": 1e-7, "momentum": 0.5, "weight_decay": 0.25, "clip_norm": 2.0}


@pytest.mark.parametrize(
    ("name", "numbers"), [("adamw", {"beta1": 0.8, "beta2": 0.99, "epsilon": 1e-7}), ("sgd", {"momentum": 0.5})]
)
def test_a_record_of_the_first_schema_keeps_its_numbers(name: str, numbers: dict[str, float]) -> None:
    read = from_json(Optimizer, {"name": name, **OLD})
    assert (read.name, read.hyperparameters, read.weight_decay, read.clip_norm) == (name, numbers, 0.25, 2.0)
    assert from_json(Optimizer, to_json(read)) == read


@pytest.mark.parametrize("betas", [5, [0.9], [0.9, 0.99, 0.999], "ab", {}])
def test_a_damaged_record_is_told_as_one(betas: Any) -> None:
    with pytest.raises(SchemaError, match="has the wrong type"):
        from_json(Optimizer, {"name": "adamw", "betas": betas, "epsilon": 1e-8})


def test_what_is_not_given_is_the_papers() -> None:
    """torch.optim's defaults for AdamW; Chen et al. (2023) for Lion."""
    assert Optimizer("adamw").hyperparameters == {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
    assert Optimizer("lion").hyperparameters == {"beta1": 0.9, "beta2": 0.99}


@pytest.mark.parametrize("name", RULES)
def test_numbers_of_others_are_refused(name: str) -> None:
    Optimizer(name).check()
    with pytest.raises(EdgetlError, match=f"the optimizer {name} has no 'rho'"):
        Optimizer(name, {"rho": 0.5}).check()
