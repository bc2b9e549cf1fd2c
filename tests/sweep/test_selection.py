"""A claim is made in at most one of twenty sweeps in which nothing differs, and where something does."""

import math

import numpy as np
import pytest
from scipy import stats

from reprise.sweep.selection import (
    FINALISTS,
    FIRST_LOOK,
    LEVEL,
    compare,
    is_settled,
    nominal_level,
    smallest_p_values,
    winner_of,
)

LOOKS = 8


def share_with_a_claim(sweeps: int, effect: float, *, trials: int = 20, finalists: int = FINALISTS) -> float:
    """Simulate whole sweeps, whose metrics have a standard deviation of 1; return the share with a claim.

    Args:
        sweeps: how many.
        effect: by how much every second trial is better than the committed recipe.
        trials: of a sweep, whose best become finalists by one seed each.
        finalists: how many.
    """
    draw, claims = np.random.default_rng(1), 0
    effects = np.where(np.arange(trials) % 2, effect, 0.0)
    for _ in range(sweeps):
        best = np.argsort(effects + draw.standard_normal(trials))[-finalists:]
        metrics = effects[best, None] + draw.standard_normal((finalists, LOOKS))
        control = draw.standard_normal(LOOKS)
        for n in range(FIRST_LOOK, LOOKS + 1):
            comparisons = [
                compare(control[:n], each[:n], finalists=finalists, looks=LOOKS, greater_is_better=True)
                for each in metrics
            ]
            if is_settled(comparisons) or any(each.is_worse for each in comparisons):
                claims += 1
                break
    return claims / sweeps


def test_where_nothing_differs_a_claim_is_made_in_at_most_five_percent_of_1000_sweeps() -> None:
    share = share_with_a_claim(1000, effect=0)
    assert 0.02 < share <= LEVEL + 2 * math.sqrt(LEVEL * (1 - LEVEL) / 1000)


def test_a_large_difference_is_found_in_most_sweeps() -> None:
    assert share_with_a_claim(200, effect=4) > 0.9


def test_one_finalist_at_one_look_is_the_t_test() -> None:
    assert nominal_level(1, FIRST_LOOK) == pytest.approx(LEVEL, rel=0.05)
    control, finalist = [0.1, 0.3, 0.2], [0.3, 0.4, 0.45]
    found = compare(control, finalist, finalists=1, looks=FIRST_LOOK, greater_is_better=True)
    assert found.p == pytest.approx(stats.ttest_rel(finalist, control).pvalue, rel=0.05)
    assert found.difference == pytest.approx(np.mean(finalist) - np.mean(control))


@pytest.mark.parametrize("seed", range(20))
def test_the_interval_excludes_zero_exactly_where_there_is_a_claim(seed: int) -> None:
    draw = np.random.default_rng(seed)
    control, finalist = draw.standard_normal(LOOKS), draw.standard_normal(LOOKS) + 1.5
    found = compare(control, finalist, finalists=FINALISTS, looks=LOOKS, greater_is_better=True)
    assert found.half_width is not None
    assert (abs(found.difference) > found.half_width) == (found.p < LEVEL)


def test_a_lower_loss_is_better() -> None:
    found = compare([1.0, 1.1, 1.2], [0.1, 0.19, 0.31], finalists=1, looks=3, greater_is_better=False)
    assert found.is_better
    assert found.difference == pytest.approx(0.9)


def test_differences_that_do_not_vary_are_no_claim() -> None:
    found = compare([0.1, 0.2, 0.3], [0.2, 0.3, 0.4], finalists=1, looks=3, greater_is_better=True)
    assert (found.half_width, found.p, found.is_better, found.is_worse) == (None, 1.0, False, False)


def test_more_looks_and_more_finalists_need_more_evidence() -> None:
    assert nominal_level(1, 3) > nominal_level(1, 8) > nominal_level(3, 8) > LEVEL / 18
    assert smallest_p_values(3, 8) is smallest_p_values(3, 8)


def test_the_winner_is_the_best_of_those_that_are_better() -> None:
    control = [0.10, 0.12, 0.11]
    finalists = {4: [0.50, 0.525, 0.511], 7: [0.60, 0.622, 0.613], 9: [0.9, 0.2, 0.8], 2: [0.0, 0.025, 0.011]}
    comparisons = {
        key: compare(control, values, finalists=1, looks=3, greater_is_better=True) for key, values in finalists.items()
    }
    assert winner_of(comparisons) == 7
    assert winner_of({9: comparisons[9], 2: comparisons[2]}) is None
    assert comparisons[2].is_worse
    assert is_settled([comparisons[4], comparisons[9]])
    assert not is_settled([comparisons[9], comparisons[2]])
    assert is_settled([comparisons[2]])
