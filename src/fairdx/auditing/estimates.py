"""From a value and its replicates to an `Estimate`, by kind of quantity."""

import numpy as np

from fairdx.inference.uncertainty import (
    Estimate,
    bca_interval,
    length_interval,
    percentile_interval,
)
from fairdx.metrics import counts as tables
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


def gap_estimate(rates: Floats, replicates: Floats, n: int, level: float, widen: float = 1.0) -> Estimate:
    """Estimate of the largest gap between groups.

    Args:
        rates: Shape (S, R).
        replicates: Shape (B, S, R).
        n: Number of images it rests on.
        level: Nominal coverage.
        widen: From `fairdx.inference.uncertainty.few_patients_factor`.

    Returns:
        The estimate, with an interval by test inversion.
    """
    interval = length_interval(rates, replicates, tables.largest_gap, level, widen)
    return Estimate.of(float(tables.largest_gap(rates)), interval, n)


def information_vectors(counts: Floats, replicates: Floats) -> tuple[Floats, Floats]:
    """The root of the information and its replicates in the plane that test inversion needs.

    Lengths of r u + (h* - h) depend on h* - h only by its part along u = h / |h| and the size of the rest, so
    these two numbers stand for all cells of `fairdx.metrics.counts.information_root`, without approximation.

    Args:
        counts: Shape (..., S, Y, D).
        replicates: Shape (B, ..., S, Y, D).

    Returns:
        Vectors of shape (..., 2) and (B, ..., 2), whose `information_length` is the root of the information.
    """
    root = tables.information_root(counts)
    spread = tables.information_root(replicates) - root
    size = np.sqrt((root**2).sum((-1, -2, -3)))
    # Without any information there is no direction; the first replicate's is as good as another.
    start = np.where(size[..., None, None, None] > 0, root, spread[0])
    norm = np.sqrt((start**2).sum((-1, -2, -3), keepdims=True))
    direction = start / np.where(norm > 0, norm, 1.0)
    along = np.einsum("...syd,...syd->...", spread, direction)
    across = np.sqrt(np.maximum(np.einsum("...syd,...syd->...", spread, spread) - along**2, 0.0))
    vectors = np.stack([size, np.zeros_like(size)], axis=-1)
    return vectors, np.stack([size + along, across], axis=-1)


def information_length(vector: Floats) -> Floats:
    """Euclidean length of `information_vectors`: (..., 2) to (...)."""
    length: Floats = np.sqrt(vector[..., 0] ** 2 + vector[..., 1] ** 2)
    return length


def information_estimates(
    counts: Floats, replicates: Floats, design_effect: float, n: int, level: float, widen: float = 1.0
) -> tuple[Estimate, Estimate]:
    """Plug-in and bias-corrected estimates of I(S; D | Y), with one interval.

    Args:
        counts: Shape (S, Y, D).
        replicates: Shape (B, S, Y, D).
        design_effect: From `fairdx.metrics.counts.design_effect`.
        n: Number of images.
        level: Nominal coverage.
        widen: From `fairdx.inference.uncertainty.few_patients_factor`.

    Returns:
        Both estimates in nats. The interval is one for the true information, so it belongs to both: it
        allows for the bias, which is why the plug-in estimate may lie above it.
    """
    plug_in = float(tables.mutual_information(counts))
    bias = float(tables.information_bias(counts, sample_size=float(n), design_effect=design_effect))
    root = length_interval(*information_vectors(counts, replicates), information_length, level, widen)
    ends = (root.low**2, root.high**2)
    return tuple(  # type: ignore[return-value]
        Estimate(value, *ends, level, root.method, n) for value in (plug_in, max(0.0, plug_in - bias))
    )
