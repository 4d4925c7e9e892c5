"""Means of numbers that come in patients, with intervals that know it."""

import numpy as np
from numpy.typing import NDArray

from fairdx.inference.uncertainty import Estimate, Interval
from fairdx.metrics.inputs import Floats


def clustered_mean(values: Floats, patients: NDArray[np.int64], *, level: float = 0.95) -> Estimate:
    """The mean of one number an image, with an interval over patients.

    The standard error is that of a ratio of sums over clusters (linearisation), the quantile Student's with
    one degree of freedom fewer than there are patients.

    Args:
        values: Shape (n,), finite.
        patients: Code of the patient of each, shape (n,).
        level: Nominal coverage.

    Returns:
        The mean; nan without values, and with nan ends with fewer than two patients.

    Example:
        >>> clustered_mean(np.array([1.0, 3.0]), np.array([0, 1])).value
        2.0
    """
    from scipy.special import stdtrit

    nan = float("nan")
    if len(values) == 0:
        return Estimate(nan, nan, nan, level, "undefined", 0)
    mean = float(values.mean())
    _, cluster = np.unique(patients, return_inverse=True)
    totals = np.bincount(cluster, weights=values - mean)
    n = len(totals)
    if n < 2:
        return Estimate.of(mean, Interval(nan, nan, level, "undefined"), len(values))
    error = float(np.sqrt((totals**2).sum() * n / (n - 1)) / len(values))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * error
    return Estimate.of(mean, Interval(mean - half, mean + half, level, "clustered t"), len(values))
