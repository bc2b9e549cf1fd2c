"""Numbers as predictions print them."""

from typing import Any

import numpy as np


def shortest_float32(value: Any) -> float:
    """Convert an fp32 number to the shortest decimal that rounds back to it."""
    return float(str(np.float32(value)))
