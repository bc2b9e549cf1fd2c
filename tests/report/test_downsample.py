"""Downsampled curves: number and choice of points."""

import numpy as np
import pandas as pd
import pytest

from reprise.report.downsample import bin_means, evenly_spaced


def curve(steps: int) -> pd.DataFrame:
    step = np.arange(1, steps + 1)
    return pd.DataFrame({"step": step, "loss": step / 7, "grad_norm": np.where(step == 5, 99.0, 1.0)})


@pytest.mark.parametrize("steps", [0, 1, 119, 120])
def test_a_short_curve_is_unchanged(steps: int) -> None:
    pd.testing.assert_frame_equal(bin_means(curve(steps), 120), curve(steps))


@pytest.mark.parametrize("steps", [121, 240, 642, 100_000])
def test_a_long_curve_has_the_maximum_number_of_points(steps: int) -> None:
    assert len(bin_means(curve(steps), 120)) == 120


def test_a_point_is_the_mean_of_its_bin_and_peaks_are_kept() -> None:
    binned = bin_means(curve(12), 3, peaks=("grad_norm",))
    assert binned["step"].tolist() == [2.5, 6.5, 10.5]
    np.testing.assert_allclose(binned["loss"], [2.5 / 7, 6.5 / 7, 10.5 / 7])
    assert binned["grad_norm"].tolist() == [1.0, 99.0, 1.0]


@pytest.mark.parametrize(("steps", "points"), [(7, 3), (642, 120), (1000, 7)])
def test_bins_cover_every_step_once_and_differ_by_at_most_one_step(steps: int, points: int) -> None:
    count = pd.DataFrame({"first": np.arange(steps, dtype=float), "last": np.arange(steps, dtype=float)})
    binned = bin_means(count, points, peaks=("last",))
    last = binned["last"].to_numpy() + 1
    lengths = np.diff([0, *last])
    assert last[-1] == steps
    assert lengths.max() - lengths.min() <= 1
    np.testing.assert_allclose(binned["first"], (np.r_[0, last[:-1]] + last - 1) / 2)


def test_indices_are_evenly_spaced_from_first_to_last() -> None:
    assert evenly_spaced(11, 3).tolist() == [0, 5, 10]
    assert evenly_spaced(3, 10).tolist() == [0, 1, 2]
    assert evenly_spaced(1, 10).tolist() == [0]
    kept = evenly_spaced(1000, 200)
    assert (len(kept), kept[0], kept[-1]) == (200, 0, 999)
    assert set(np.diff(kept)) == {5, 6} - ({6} if np.diff(kept).max() == 5 else set())
