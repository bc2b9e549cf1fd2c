"""Thinned curves: how many points, and which."""

import numpy as np
import pandas as pd
import pytest

from reprise.report.downsample import bin_means, evenly_spaced


def curve(steps: int) -> pd.DataFrame:
    step = np.arange(1, steps + 1)
    return pd.DataFrame({"step": step, "loss": step / 7, "grad_norm": np.where(step == 5, 99.0, 1.0)})


@pytest.mark.parametrize("steps", [0, 1, 119, 120])
def test_a_short_curve_stays_as_it_is(steps: int) -> None:
    pd.testing.assert_frame_equal(bin_means(curve(steps), 120), curve(steps))


@pytest.mark.parametrize("steps", [121, 240, 642, 100_000])
def test_a_long_curve_has_as_many_points_as_it_may(steps: int) -> None:
    assert len(bin_means(curve(steps), 120)) == 120


def test_a_point_is_the_mean_of_its_window_and_a_peak_stays_a_peak() -> None:
    thinned = bin_means(curve(12), 3, peaks=("grad_norm",))
    assert thinned["step"].tolist() == [2.5, 6.5, 10.5]
    np.testing.assert_allclose(thinned["loss"], [2.5 / 7, 6.5 / 7, 10.5 / 7])
    assert thinned["grad_norm"].tolist() == [1.0, 99.0, 1.0]


@pytest.mark.parametrize(("steps", "points"), [(7, 3), (642, 120), (1000, 7)])
def test_every_step_counts_once_and_windows_are_equally_long_but_for_one_step(steps: int, points: int) -> None:
    count = pd.DataFrame({"first": np.arange(steps, dtype=float), "last": np.arange(steps, dtype=float)})
    thinned = bin_means(count, points, peaks=("last",))
    ends = thinned["last"].to_numpy() + 1
    lengths = np.diff([0, *ends])
    assert ends[-1] == steps
    assert lengths.max() - lengths.min() <= 1
    np.testing.assert_allclose(thinned["first"], (np.r_[0, ends[:-1]] + ends - 1) / 2)


def test_kept_rows_are_spread_evenly_from_the_first_to_the_last() -> None:
    assert evenly_spaced(11, 3).tolist() == [0, 5, 10]
    assert evenly_spaced(3, 10).tolist() == [0, 1, 2]
    assert evenly_spaced(1, 10).tolist() == [0]
    kept = evenly_spaced(1000, 200)
    assert (len(kept), kept[0], kept[-1]) == (200, 0, 999)
    assert set(np.diff(kept)) == {5, 6} - ({6} if np.diff(kept).max() == 5 else set())
