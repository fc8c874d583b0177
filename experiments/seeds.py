"""What several seeds say together."""

import numpy as np


def mean_and_deviation(values):
    """``[mean, sample deviation]``; no deviation, None, of a single value, and neither if one is NaN (not JSON)."""
    if np.isnan(values).any():
        return [None, None]
    return [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None]
