"""Numbers as predictions print them."""

from typing import Any

import numpy as np


def shortest_float32(value: Any) -> float:
    """Return the number with no more digits than tell it from other fp32 numbers."""
    return float(str(np.float32(value)))
