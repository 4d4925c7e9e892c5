"""The monitor beside the audit's own figures, and its promise: every interval holds at every look."""

import importlib.util
import json
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest

from fairdx import metrics
from fairdx.auditing import audit, monitor, monitor_schema
from fairdx.auditing.arrivals import ArrivalColumns, read_arrivals
from fairdx.auditing.gate import parse_condition
from fairdx.core.errors import InputError

SPEC = importlib.util.spec_from_file_location("streams", Path(__file__).with_name("streams.py"))
STREAMS = sys.modules[SPEC.name] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(STREAMS)


@pytest.fixture(scope="module")
def stream():
    y, score, group, look, patient = STREAMS.STREAMS["patients come back, a difference"].draw(
        np.random.default_rng(0)
    )
    return y, score, np.array(["a", "b"])[group], look, patient


@pytest.fixture(scope="module")
def found(stream):
    y, score, group, look, patient = stream
    return monitor(y, score, sensitive_features={"g": group}, looks=look, patients=patient, reference="a")


def test_the_values_are_those_of_all_images_so_far(stream, found):
    y, score, group, look, _ = stream
    for k in (3, 23):
        so_far = look <= k
        given = {"sensitive_features": group[so_far]}
        decided = score[so_far] >= 0.5
        courses = {**found.gaps["g"], **found.effects["g"]["b"]}
        for name, expected in {
            "demographic_parity_difference": metrics.demographic_parity_difference(
                y[so_far], decided, **given
            ),
            "equalized_odds_difference": metrics.equalized_odds_difference(y[so_far], decided, **given),
            "auroc_gap": metrics.auroc_gap(y[so_far], score[so_far], **given),
            "direct_effect": metrics.direct_effect(y[so_far], decided, reference="a", **given)["b"],
            "indirect_effect": metrics.indirect_effect(y[so_far], decided, reference="a", **given)["b"],
            "total_effect": metrics.total_effect(y[so_far], decided, reference="a", **given)["b"],
        }.items():
            assert courses[name].value[k] == pytest.approx(expected), name
            assert courses[name].low[k] <= expected <= courses[name].high[k]
    own = look == 7
    period = metrics.equal_opportunity_difference(y[own], score[own] >= 0.5, sensitive_features=group[own])
    assert found.gaps["g"]["equal_opportunity_difference"].period[7] == pytest.approx(period)
    assert [found.looks[k].images_so_far for k in (0, 23)] == [150, 3600]


def test_intervals_are_wider_than_those_of_an_audit_that_looks_once(stream, found):
    y, score, group, _, patient = stream
    once = audit(
        y,
        score,
        sensitive_features={"g": group},
        patients=patient,
        n_replicates=200,
        n_permutations=99,
        explore=False,
    ).gaps["g"]
    for name in STREAMS.GAPS:
        course, gap = found.gaps["g"][name], once[name].estimate
        ratio = (course.high[-1] - course.low[-1]) / (gap.high - gap.low)
        assert 1.3 < ratio < 3.2, name


def test_copies_of_an_image_say_no_more_than_the_image():
    y, score, group, look, _ = STREAMS.Stream("plain", periods=6, gap=0.4).draw(np.random.default_rng(2))
    given = {"reference": "0"}
    once = monitor(y, score, sensitive_features={"g": group}, looks=look, **given)
    copies = [np.repeat(column, 4) for column in (y, score, group, look)]
    patient = np.repeat(np.arange(len(y)), 4)
    many = monitor(
        *copies[:2], sensitive_features={"g": copies[2]}, looks=copies[3], patients=patient, **given
    )
    for name, course in once.gaps["g"].items():
        np.testing.assert_allclose(many.gaps["g"][name].high[1:], course.high[1:], rtol=0.05, err_msg=name)
    effect, other = (f.effects["g"]["1"]["direct_effect"] for f in (once, many))
    np.testing.assert_allclose(other.low[1:], effect.low[1:], rtol=0.05)


def test_the_json_follows_the_published_schema(found):
    published = Path(__file__).parents[2] / "docs" / "monitor.schema.json"
    # To publish a new version: json.dumps(monitor_schema(), indent=2, ensure_ascii=False)
    assert json.loads(published.read_text(encoding="utf-8")) == monitor_schema()
    jsonschema.validate(json.loads(found.to_json()), monitor_schema())
    assert "Effects on b, against a" in found.to_html()


def test_what_is_still_to_come_changes_nothing_that_was_said(stream, found):
    """Whoever looks in month 12 sees what month 24 says of it, as long as no group is added."""
    y, score, group, look, patient = (column[stream[3] < 12] for column in stream)
    early = monitor(y, score, sensitive_features={"g": group}, looks=look, patients=patient, reference="a")
    for name, course in early.gaps["g"].items():
        np.testing.assert_allclose(course.low, found.gaps["g"][name].low[:12], err_msg=name)
        np.testing.assert_allclose(course.high, found.gaps["g"][name].high[:12], err_msg=name)


def test_adf_is_that_of_independent_images_less_its_bias():
    y, score, group, look, _ = STREAMS.Stream("plain", periods=4, gap=0.4).draw(np.random.default_rng(3))
    found = monitor(y, score, sensitive_features={"g": group}, looks=look)
    course = found.gaps["g"]["approximate_diagnosis_fairness_corrected"]
    for k in range(4):
        so_far = look <= k
        expected = metrics.approximate_diagnosis_fairness(
            y[so_far], score[so_far] >= 0.5, sensitive_features=group[so_far], corrected=True
        )
        assert course.value[k] == pytest.approx(expected, abs=1e-12)
        assert course.low[k] <= expected <= course.high[k]


def test_weights_are_refused_in_a_sentence():
    y, score = np.array([0, 1, 0, 1]), np.full(4, 0.5)
    with pytest.raises(InputError, match="takes no weights"):
        monitor(y, score, sensitive_features=[0, 1, 0, 1], looks=[1, 2, 3, 4], sample_weight=np.ones(4))


def test_groups_join_when_they_are_large_enough():
    rng, n = np.random.default_rng(1), 1200
    look = np.repeat(np.arange(6), 200)
    group = np.where((look >= 3) & (rng.random(n) < 0.2), "late", rng.choice(["a", "b"], n))
    group[:3] = "rare"
    y = rng.integers(0, 2, n)
    found = monitor(y, 0.3 * y + 0.6 * rng.random(n), sensitive_features={"g": group}, looks=look)
    assert found.attributes["g"].excluded == ["rare"]
    assert np.isnan(found.effects["g"]["late"]["direct_effect"].value[:3]).all()
    assert np.isfinite(found.effects["g"]["late"]["direct_effect"].value[3:]).all()


SHORT = [
    STREAMS.Stream("six looks", periods=6),
    STREAMS.Stream("six looks, a difference", periods=6, gap=0.4, rarer=0.2),
    STREAMS.Stream("six looks, patients come back", periods=6, returning=5),
]


@pytest.mark.parametrize("stream", SHORT, ids=lambda stream: stream.name)
def test_every_interval_holds_at_every_look_in_a_quick_look(stream):
    """Of 25 streams fewer than 21 hold once in 1,500 looks at a course that truly holds in 0.95."""
    held = STREAMS.held(stream, 25)
    assert min(held.values()) >= 21 / 25, held


@pytest.mark.long
@pytest.mark.parametrize("name", list(STREAMS.STREAMS))
def test_every_interval_holds_at_every_look(name):
    held = STREAMS.held(STREAMS.STREAMS[name], 1000)
    assert min(held.values()) >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / 1000), held


def test_bad_columns_are_named():
    y, score = np.array([0, 1, 0, 1]), np.full(4, 0.5)
    with pytest.raises(InputError, match="looks"):
        monitor(y, score, sensitive_features=[0, 1, 0, 1], looks=[1, 2, 3])
    with pytest.raises(InputError, match="follows one score"):
        monitor(y, np.full((4, 3), 0.3), sensitive_features=[0, 1, 0, 1], looks=[1, 2, 3, 4])


def arrivals(tmp_path, dates, by="month", **more):
    n = len(dates)
    frame = pd.DataFrame({"when": dates, "y": np.arange(n) % 2, "p": 0.5, "g": np.arange(n) // 2 % 2, **more})
    frame.to_csv(tmp_path / "t.csv", index=False)
    asked = ArrivalColumns("y", "p", ["g"], time="when", by=by, patient="patient" if more else None)
    return read_arrivals([tmp_path / "t.csv"], asked)


@pytest.mark.parametrize("zone", ["", "Z", "-05:00", "+0900", " +02"])
def test_a_day_is_that_of_the_place_where_the_image_was_made(tmp_path, zone):
    dates = [
        f"2025-{month:02d}-{day}T{hour}{zone}"
        for month, day in ((1, 31), (2, 28))
        for hour in ("00:10:00", "23:50")
    ]
    found = arrivals(tmp_path, dates * 2)
    assert found.looks.names == ("2025-01", "2025-02")
    assert found.looks.codes.tolist() == [0, 0, 1, 1] * 2


@pytest.mark.parametrize(
    ("date", "by"), [("2025", "month"), ("2025", "quarter"), ("2025-03", "week"), ("2025-03", "day")]
)
def test_dates_that_do_not_tell_the_period_are_refused(tmp_path, date, by):
    with pytest.raises(InputError, match=f"does not tell the {by}, in 1 row .first: row 2"):
        arrivals(tmp_path, [date, *["2025-03-02"] * 7], by)
    assert arrivals(tmp_path, [date, *["2025-03-02"] * 7], "year").looks.names == ("2025",)


def test_patients_of_two_files_that_are_written_in_two_ways_are_said(tmp_path):
    found = arrivals(tmp_path, ["2025-01-01"] * 8, patient=["7", "7.0", "8", "8.0", "9", "07", "7.1", "7.10"])
    assert any("2 patients are written like another" in note for note in found.notes)


def test_a_gate_that_cannot_be_checked_is_not_passed():
    rng, n = np.random.default_rng(0), 400
    y, p, look = rng.integers(0, 2, n), rng.random(n), np.arange(n) // 100
    groups = {"sex": rng.choice(["a", "b"], n), "few": np.where(np.arange(n) < 390, "one", "two")}
    condition = parse_condition("dp_low>0.9")
    assert (
        condition.violations_now(monitor(y, p, sensitive_features={"sex": groups["sex"]}, looks=look)) == []
    )
    for given in (groups, {"few": groups["few"]}):
        found = monitor(y, p, sensitive_features=given, looks=look)
        (told,) = condition.violations_now(found)
        assert "undefined for few" in told


def test_a_gap_that_is_no_longer_shown_is_not_said_to_be():
    """A third group arrives late: the largest of three gaps must be shown anew, with wider intervals."""
    from fairdx.auditing.page_monitor import sentences

    rng = np.random.default_rng(0)
    n, month = 1200, np.repeat(np.arange(1, 7), 200)
    sex = rng.choice(["F", "M"], n)
    truth = rng.integers(0, 2, n)
    score = np.where((month == 1) & (sex == "F"), 0.9, rng.random(n))
    sex = np.where((month > 4) & (rng.random(n) < 0.3), "X", sex)
    result = monitor(truth, score, sensitive_features={"sex": sex}, looks=month)
    course = result.gaps["sex"]["demographic_parity_difference"]
    said = next(s for s in sentences(result, "sex") if "Demographic parity" in s)
    assert (course.low[0] > 0, course.low[-1]) == (True, 0.0)
    assert "it was shown to differ from 0 in 1 and is not with all images so far" in said


@pytest.mark.parametrize("decided", [0.2, 0.8])
def test_a_model_that_decides_the_same_of_everybody_has_no_information_about_the_group(decided):
    from fairdx.auditing.page_monitor import sentences

    rng = np.random.default_rng(0)
    n = 300
    group, truth = rng.choice(["a", "b"], n), rng.integers(0, 2, n)
    result = monitor(
        truth, np.full(n, decided), sensitive_features={"g": group}, looks=np.repeat([1, 2, 3], 100)
    )
    course = result.gaps["g"]["approximate_diagnosis_fairness_corrected"]
    assert course.value == course.low == [0.0, 0.0, 0.0]
    assert 0 < course.high[-1] < course.high[0]
    assert not any("Approximate" in sentence for sentence in sentences(result, "g"))


@pytest.mark.filterwarnings("error")
def test_days_of_a_few_images_give_no_warning_and_an_interval():
    rng = np.random.default_rng(0)
    n = 400
    group, truth = rng.choice(["a", "b", "c"], n), rng.integers(0, 2, n)
    score = np.clip(0.3 * truth + 0.7 * rng.random(n), 0, 1)
    result = monitor(truth, score, sensitive_features={"g": group}, looks=np.arange(n) // 3, min_group_size=1)
    course = result.gaps["g"]["approximate_diagnosis_fairness_corrected"]
    known = np.isfinite(course.value)
    assert known.sum() > 100
    assert np.isfinite(np.array(course.low, float)[known]).all()
    assert np.isfinite(np.array(course.high, float)[known]).all()


def test_periods_in_text_are_in_the_order_of_their_numbers():
    n = 360
    truth, score, group = np.arange(n) % 2, np.full(n, 0.7), np.repeat(["a", "b"], n // 2)
    week = np.arange(n) % 12 + 1
    names = [f"week {k}" for k in range(1, 13)]
    order = pd.CategoricalDtype(names[::-1], ordered=True)

    def seen(looks):
        return [one.name for one in monitor(truth, score, sensitive_features=group, looks=looks).looks]

    assert seen([f"week {k}" for k in week]) == names
    assert seen(pd.Series([f"week {k}" for k in week]).astype(order)) == names[::-1]
    assert seen(week - 6) == [str(k) for k in range(-5, 7)]


@pytest.mark.parametrize(
    ("given", "message"), [({"threshold": 7}, "threshold is 7"), ({"min_group_size": 0}, "size is 0")]
)
def test_settings_out_of_range_are_refused_in_python_too(given, message):
    with pytest.raises(InputError, match=message):
        monitor([0, 1], [0.2, 0.8], sensitive_features=["a", "b"], looks=[1, 1], **given)
