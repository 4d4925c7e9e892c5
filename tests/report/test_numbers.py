from math import inf, nan

import pytest

from fairdx.metrics.definitions import METRICS
from fairdx.report.numbers import (
    DECIMAL,
    NATS,
    POINTS,
    SIGNED_POINTS,
    UNDEFINED,
    direction_of,
    integer,
    loss_of,
    p_is,
    probability,
    style_of,
)


@pytest.mark.parametrize(
    ("style", "value", "text"),
    [
        (SIGNED_POINTS, 0.1234, "+12.3"),
        (SIGNED_POINTS, -0.1234, "−12.3"),
        (SIGNED_POINTS, -0.0001, "0.0"),  # never "-0.0"
        (POINTS, 0.05, "5.0"),
        (DECIMAL, 0.91251, "0.913"),
        (NATS, 0.0001234, "0.00012"),
        (DECIMAL, nan, UNDEFINED),
        (DECIMAL, inf, UNDEFINED),
        (DECIMAL, None, UNDEFINED),
    ],
)
def test_style(style, value, text):
    assert style(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        # (0.0625 * 100).toFixed(1) and so on, as browsers write them: ties go up, and 1.005 is below its tie.
        (0.0625, "6.3"),
        (0.0025, "0.3"),
        (-0.0625, "−6.3"),
        (0.76249999999, "76.3"),  # seven digits are all that the page's script is given
        (0.7624999, "76.2"),
        (0.01005, "1.0"),
    ],
)
def test_ties_are_rounded_as_the_pages_script_does(value, text):
    assert POINTS(value) == text


def test_an_interval_with_an_undefined_end_is_no_interval():
    assert POINTS.interval(0.01, nan) == "no interval"
    assert POINTS.interval(None, 0.02) == "no interval"
    assert POINTS.interval(0.01, 0.02) == "1.0\u00a0to\u00a02.0"


def test_every_metric_has_a_style_and_a_direction():
    for name, metric in METRICS.items():
        assert style_of(name)(0.5) != UNDEFINED
        assert (direction_of(name)[0] == "↑") == bool(metric.higher_is_better)


def test_loss_is_the_distance_from_the_ideal():
    assert loss_of("auroc", 0.9) == pytest.approx(0.1)
    assert loss_of("direct_effect", -0.2) == pytest.approx(0.2)
    assert loss_of("calibration_slope", 1.3) == pytest.approx(0.3)
    assert loss_of("prevalence", 0.4) is None
    assert loss_of("indirect_effect", 0.4) is None  # the disease may be more frequent: no goal


def test_counts_and_probabilities():
    assert integer(1234567) == "1\u202f234\u202f567"
    assert probability(0.0001) == "< 0.001"
    assert probability(0.0449) == "0.045"
    assert probability(nan) == UNDEFINED
    assert [p_is(p) for p in (3.7e-7, 0.0449, 1, nan)] == [
        "p < 0.001",
        "p = 0.045",
        "p = 1",
        f"p {UNDEFINED}",
    ]
