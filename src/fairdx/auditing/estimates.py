"""From a value and its replicates to an `Estimate`."""

import numpy as np

from fairdx.inference.uncertainty import Estimate, bca_interval, percentile_interval
from fairdx.metrics.inputs import Floats


def signed_estimate(
    value: float,
    replicates: Floats,
    n: int,
    level: float,
    widen: float = 1.0,
    acceleration: float | None = None,
) -> Estimate:
    """Estimate of a quantity of either sign, or of a rate.

    Args:
        value: The estimate on the sample.
        replicates: Shape (B,).
        n: Number of images it rests on.
        level: Nominal coverage.
        widen: From `fairdx.inference.uncertainty.few_patients_factor`.
        acceleration: For a BCa interval; percentile if None.

    Returns:
        The estimate; ends nan where the value is.
    """
    if np.isnan(value):
        interval = percentile_interval(np.array([]), level)
    elif acceleration is None:
        interval = percentile_interval(replicates, level, widen)
    else:
        interval = bca_interval(value, replicates, acceleration, level, widen)
    return Estimate.of(value, interval, n)
