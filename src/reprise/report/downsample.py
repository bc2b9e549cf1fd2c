"""Downsample long curves to the number of points that a chart can show."""

import numpy as np
import numpy.typing as npt
import pandas as pd

MAX_BINS = 120  # about three pixels per point on a phone


def bin_means(curve: pd.DataFrame, points: int = MAX_BINS, peaks: tuple[str, ...] = ()) -> pd.DataFrame:
    """Average a curve over bins of equally many steps; return short curves unchanged.

    Bins are averaged rather than sampled (as in LTTB), because a step's loss is mostly noise: single points show the
    noise of their batch, means show the progress of training.

    Args:
        curve: numeric columns, one row per step.
        points: maximum number of rows to return.
        peaks: columns that keep the maximum of the bin, because a mean would hide spikes.
    """
    if len(curve) <= points:
        return curve
    bins = np.arange(len(curve)) * points // len(curve)
    grouped = curve.groupby(bins)
    binned = grouped.mean()
    for name in peaks:
        binned[name] = grouped[name].max()
    return binned.reset_index(drop=True)


def evenly_spaced(count: int, points: int) -> npt.NDArray[np.int64]:
    """Return at most `points` evenly spaced indices of `count` rows, including the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, points)).round().astype(np.int64))
