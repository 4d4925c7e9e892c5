"""Changes of gaps between two tables of the same images."""

import numpy as np
import pytest
from scipy.stats import norm

from fairdx.inference.paired import length_change
from fairdx.metrics import counts as tables


def draws(seed, truth, noise, b=4000):
    """Two gaps of two groups with normal errors, and paired replicates of them."""
    rng = np.random.default_rng(seed)
    values = tuple(np.array([[0.0], [v]]) for v in truth)
    errors = rng.multivariate_normal([0, 0], noise, size=b)
    zero = np.zeros(b)
    repeated = tuple(
        np.stack([zero, v[1, 0] + errors[:, k]], axis=1)[..., None] for k, v in enumerate(values)
    )
    return values, repeated


def test_far_from_zero_it_is_the_normal_interval():
    noise = np.array([[0.0004, 0.0002], [0.0002, 0.0003]])
    found = length_change(*draws(0, (0.5, 0.4), noise), tables.largest_gap, 0.95)
    error = np.sqrt(0.0004 + 0.0003 - 2 * 0.0002)
    assert found.interval.low == pytest.approx(-0.1 - 1.96 * error, abs=0.003)
    assert found.interval.high == pytest.approx(-0.1 + 1.96 * error, abs=0.003)
    values, repeated = draws(1, (0.5, 0.47), noise)
    found = length_change(values, repeated, tables.largest_gap, 0.95)
    assert found.p_value == pytest.approx(2 * norm.cdf(-0.03 / error), abs=0.02)


def test_widening_widens_and_order_changes_the_sign():
    noise = np.diag([0.0004, 0.0004])
    values, repeated = draws(2, (0.1, 0.3), noise)
    one = length_change(values, repeated, tables.largest_gap, 0.95)
    back = length_change(values[::-1], repeated[::-1], tables.largest_gap, 0.95)
    assert (-back.interval.high, -back.interval.low) == pytest.approx((one.interval.low, one.interval.high))
    assert back.p_value == one.p_value
    wide = length_change(values, repeated, tables.largest_gap, 0.95, widen=1.5)
    assert wide.interval.low < one.interval.low < one.interval.high < wide.interval.high


def test_no_gap_twice_includes_no_change():
    found = length_change(*draws(3, (0.0, 0.0), np.diag([0.01, 0.01])), tables.largest_gap, 0.95)
    assert found.interval.low < 0 < found.interval.high
    assert found.p_value > 0.5


@pytest.mark.parametrize("spoil", ["value", "replicates", "constant"])
def test_undefined(spoil):
    values, repeated = draws(4, (0.1, 0.3), np.diag([0.01, 0.01]))
    if spoil == "value":
        values[0][0] = np.nan
    elif spoil == "replicates":
        repeated[1][:400] = np.nan
    else:
        repeated = tuple(np.broadcast_to(v, (50, 2, 1)) for v in values)
    found = length_change(values, repeated, tables.largest_gap, 0.95)
    assert np.isnan([found.interval.low, found.interval.high, found.p_value]).all()
    assert found.interval.method == "undefined"
