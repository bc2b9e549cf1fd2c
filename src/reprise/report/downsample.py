"""Long curves, thinned to as many points as a picture can show."""

import numpy as np
import numpy.typing as npt
import pandas as pd

MAX_BINS = 120  # on a phone three pixels are left for each


def bin_means(curve: pd.DataFrame, points: int = MAX_BINS, peaks: tuple[str, ...] = ()) -> pd.DataFrame:
    """A curve as its means over windows of equally many steps; a curve that is short enough stays as it is.

    Means and not a choice of the points (such as LTTB), since a step's loss is mostly noise: of it, single points show
    what happened to be drawn, and the mean what was learned.

    Args:
        curve: numeric columns, a row a step.
        points: the most rows that are left.
        peaks: columns whose largest value in the window is kept instead, since a mean would hide what matters in them.
    """
    if len(curve) <= points:
        return curve
    window = np.arange(len(curve)) * points // len(curve)
    grouped = curve.groupby(window)
    thinned = grouped.mean()
    for name in peaks:
        thinned[name] = grouped[name].max()
    return thinned.reset_index(drop=True)


def evenly_spaced(count: int, points: int) -> npt.NDArray[np.int64]:
    """Which of `count` rows to keep so that at most `points` are left: evenly spaced, the first and the last too."""
    return np.unique(np.linspace(0, count - 1, min(count, points)).round().astype(np.int64))
