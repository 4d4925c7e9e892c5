from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairdx.report.figures import Effects, path_diagram, score_counts, tenths
from fairdx.report.svg import Axis, Panel, nice_ticks, render, sheet


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_evenly_spaced_and_hold_the_range(low, span):
    high = low + span
    if high <= low or span < 1e-9 * abs(low):
        return
    ticks = nice_ticks(low, high)
    slack = 1e-6 * span
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 8
    steps = [b - a for a, b in pairwise(ticks)]
    assert max(steps) - min(steps) <= 1e-6 * max(steps) + 1e-9


def test_a_panel_maps_the_ends_of_its_axes_to_its_corners():
    panel = Panel(Axis(0, 2, "x"), Axis(-1, 1, "y"), label="a panel")
    assert panel.at(0, -1) == (panel.left, panel.bottom)
    assert panel.at(2, 1) == (panel.right, panel.top)


def test_a_line_breaks_where_a_value_is_undefined():
    panel = Panel(Axis(0, 3, "x"), Axis(0, 1, "y"), label="a panel")
    panel.line([0, 1, 2, 3], [0.5, float("nan"), 0.5, 0.5])
    drawn = panel.svg.findall("path[@class='line s0']")[0].get("d")
    assert drawn.count("M") == 2
    assert drawn.count("L") == 1


def test_text_is_escaped():
    diagram = render(path_diagram("<script>alert(1)</script>", "y", [Effects("", "a", "b", "c")]))
    assert "<script" not in diagram
    assert "&lt;script" in diagram


def test_a_sheet_stands_alone():
    panel = Panel(Axis(0, 1, "x"), Axis(0, 1, "y"), label="a panel", title="A & B")
    text = sheet([panel.svg, panel.svg, panel.svg], ["<i>", "b"], "three panels")
    svg = ElementTree.fromstring(text)
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in text  # many SVG programs know no CSS variables
    assert len(svg.findall("{http://www.w3.org/2000/svg}svg")) == 3


def test_score_counts_put_the_ends_into_the_outer_bins():
    counts = score_counts(np.array([0.0, 0.5, 0.999, 1.0]))
    assert counts[0] == 1
    assert counts[20] == 1
    assert counts[-1] == 2
    assert tenths(counts) == ["25.0%", *["0.0%"] * 4, "25.0%", *["0.0%"] * 3, "50.0%"]


@pytest.mark.parametrize("values", [[], [float("nan")], [0.0], [2.0]])
def test_an_axis_around_hardly_anything_has_a_length(values):
    axis = Axis.around(values, "y")
    assert axis.low < axis.high


@pytest.mark.parametrize("low", [0.0, 0.5, -0.3, 1e6, 1e-300])
@pytest.mark.parametrize("step", [0.0, 1e-15, 1e-13, 1e-12, 1e-10, 1e-6, 1e-3, 7.0])
def test_curves_that_differ_by_next_to_nothing_can_be_drawn(low, step):
    values = [low, low + step, low + step / 2]
    for zero in (False, True):
        axis = Axis.around(values, "x", zero=zero)
        assert axis.low < axis.high
        assert axis.low - 1e-9 * max(1, abs(low)) <= min(values)
        assert axis.high + 1e-9 * max(1, abs(low)) >= max(values)
        x, y = Panel(axis, axis, label="a curve").at(values[0], values[1])
        assert np.isfinite([x, y]).all()
