"""Learning rates over a run."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.runs.settings import SCHEDULES
from edgetl.training.rate import RATES, find_rate
from edgetl.training.schedule import learning_rate


def rates(schedule: str, warmup: float, steps: int) -> list[float]:
    return [learning_rate(2.0, schedule, warmup, step, steps) for step in range(steps)]


def test_known_values() -> None:
    assert rates("constant", 0, 3) == [2.0, 2.0, 2.0]
    assert rates("linear", 0, 4) == [2.0, 1.5, 1.0, 0.5]
    assert rates("linear", 0.5, 4) == [1.0, 2.0, 2.0, 1.0]
    assert rates("cosine", 0, 4) == pytest.approx([1 + math.cos(math.pi * k / 4) for k in range(4)])


@given(st.sampled_from(SCHEDULES), st.floats(0, 1), st.integers(1, 200))
def test_it_rises_to_the_peak_and_never_rises_again(schedule: str, warmup: float, steps: int) -> None:
    found = rates(schedule, warmup, steps)
    assert all(0 < rate <= 2.0 + 1e-9 for rate in found)
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert max(found) == pytest.approx(2.0)


@pytest.mark.parametrize("best", RATES)
def test_the_rate_of_the_smallest_loss_is_found(best: float) -> None:
    assert find_rate(lambda rate: abs(math.log(rate / best))) == best


def test_rates_that_diverge_are_not_taken() -> None:
    assert find_rate(lambda rate: 1 / rate if rate < 2e-3 else math.nan) == 1e-3
    assert find_rate(lambda rate: math.inf) == RATES[0]
