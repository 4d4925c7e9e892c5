"""What a hostile reviewer found, through `audit` itself: small groups, many classes, clusters, many tests."""

from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import fisher_exact

from fairdx import metrics
from fairdx.auditing import audit, evaluate
from fairdx.auditing.summary import render_summary
from fairdx.metrics import effects

QUICK = {"n_replicates": 200, "n_permutations": 199, "explore": False}


def rows(table):
    """Images of {(group, label, decision): number}."""
    made = [np.repeat([[g, str(y), str(d)]], n, axis=0) for (g, y, d), n in table.items()]
    group, y, d = np.concatenate(made).T
    return y.astype(int), np.where(d == "1", 0.9, 0.1), group


def p_of(result, metric, **more):
    return next(
        t.p_value
        for t in result.tests
        if t.metric == metric and all(getattr(t, k) == v for k, v in more.items())
    )


def test_a_small_group_that_is_always_right_is_not_known_exactly():
    y, score, group = rows(
        {("a", 1, 1): 540, ("a", 1, 0): 60, ("b", 1, 1): 18, ("a", 0, 0): 600, ("b", 0, 0): 60}
    )
    found = audit(y, score, sensitive_features=group, n_permutations=4999, explore=False)
    gap = found.gaps["group"]["equal_opportunity_difference"].estimate
    exact = fisher_exact([[540, 60], [18, 0]]).pvalue
    assert p_of(found, "equal_opportunity_difference") == pytest.approx(exact, abs=0.03)
    # Newcombe (1998), by hand: the difference of 18/18 and 540/600 from Wilson's ends of both
    z = NormalDist().inv_cdf(0.975)
    below = 1 - 18 / (18 + z**2)
    middle, half = (0.9 + z**2 / 1200) / (1 + z**2 / 600), z * np.sqrt(0.09 / 600 + z**2 / 4 / 600**2)
    above = 0.9 - (middle - half / (1 + z**2 / 600))
    assert gap.low == 0
    assert gap.high == pytest.approx(
        max(0.1 + above, np.hypot(below, middle + half / (1 + z**2 / 600) - 0.9) - 0.1), abs=1e-6
    )


def look_alikes(n=6000, seed=0):
    """The decision depends on the class alone; class 1 looks like class 2, and is rarer in group m."""
    rng = np.random.default_rng(seed)
    s = rng.choice(["f", "m"], n)
    rare, u = np.where(s == "m", 0.10, 0.45), rng.random(n)
    y = np.where(u < 0.3, 2, np.where(u < 0.3 + 0.7 * rare, 1, 0))
    chance = np.array([[0.9, 0.08, 0.02], [0.3, 0.3, 0.4], [0.05, 0.15, 0.8]])[y]
    d = (rng.random(n)[:, None] > np.cumsum(chance, axis=1)).sum(1)
    return y, 0.05 + 0.85 * np.eye(3)[d], s, d


def test_effects_and_information_on_one_class_hold_the_full_label():
    y, score, s, d = look_alikes()
    found = audit(y, score, sensitive_features=s, reference="m", **QUICK).per_label["2"]
    own = effects(y, d, sensitive_features=s, reference="m", positive_class=2)[0]
    direct = found.effects["group"]["f"]["direct_effect"]
    assert direct.value == pytest.approx(own.direct_effect)
    assert direct.low < 0 < direct.high
    rest = effects(y == 2, d == 2, sensitive_features=s, reference="m")[0]
    assert rest.direct_effect > 0.08  # what "class 2 or not" would have said
    of_class = metrics.approximate_diagnosis_fairness(y, np.where(d == 2, 2, 0), sensitive_features=s)
    gap = found.gaps["group"]["approximate_diagnosis_fairness"].estimate
    assert gap.value == pytest.approx(of_class)
    assert p_of(found, "approximate_diagnosis_fairness") > 0.05
    assert p_of(found, "score_mutual_information") > 0.05


def test_an_image_in_a_small_group_moves_no_other_groups_interval():
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(150), 4)
    group = np.array(["a", "b"])[np.arange(150) % 2][patient].astype(object)
    y = rng.integers(0, 2, 600)
    score = 1 / (1 + np.exp(-(2 * y - 1 + rng.normal(size=150)[patient] + rng.normal(size=600))))
    after = np.clip(score + 0.1 * (group == "a"), 0, 1)
    options = {"patients": patient, "compare_to": after, "n_replicates": 300, "n_permutations": 99}
    plain = audit(y, score, sensitive_features=group, **options)
    group[0] = "other"
    found = audit(y, score, sensitive_features=group, **options)
    for name in ("equal_opportunity_difference", "demographic_parity_difference", "auroc_gap"):
        one, two = (r.gaps["group"][name].estimate for r in (plain, found))
        assert two.high - two.low == pytest.approx(one.high - one.low, rel=0.15)
        one, two = (r.comparison["group"][name].difference for r in (plain, found))
        assert two.high - two.low == pytest.approx(one.high - one.low, rel=0.15)
    wide = [
        np.subtract(
            r.explorer["group"].gaps["equal_opportunity_difference"].high,
            r.explorer["group"].gaps["equal_opportunity_difference"].low,
        ).mean()
        for r in (plain, found)
    ]
    assert wide[1] == pytest.approx(wide[0], rel=0.15)


def test_all_tests_of_a_page_are_one_family():
    rng = np.random.default_rng(2)
    y, s = rng.integers(0, 3, 900), rng.integers(0, 2, 900)
    found = audit(y, rng.dirichlet([1, 1, 1], 900), sensitive_features=s, **QUICK)
    every = [t for r in (found, *found.per_label.values()) for t in r.tests]
    smallest = min(every, key=lambda t: t.p_value)
    assert smallest.p_holm == pytest.approx(min(1.0, smallest.p_value * len(every)))


def test_the_group_quoted_has_an_interval_for_all_groups():
    rng = np.random.default_rng(3)
    y, s = rng.integers(0, 2, 2000), rng.integers(0, 10, 2000)
    found = audit(y, (0.3 + 0.4 * y + 0.3 * rng.random(2000)), sensitive_features=s, **QUICK)
    for group, own in found.effects["group"].items():
        wide = found.simultaneous_effects["group"][group]["direct_effect"]
        assert wide.low < own["direct_effect"].low
        assert wide.high > own["direct_effect"].high
    # Sidak's correction for nine comparisons widens a score interval by about this
    ratio = NormalDist().inv_cdf((1 + 0.95 ** (1 / 9)) / 2) / NormalDist().inv_cdf(0.975)
    assert (wide.high - wide.low) / (own["direct_effect"].high - own["direct_effect"].low) == pytest.approx(
        ratio, rel=0.03
    )


def test_groups_without_a_label_are_left_out_of_what_needs_it_and_no_more():
    rng = np.random.default_rng(4)
    s = np.repeat(["a", "b", "c"], 200)
    y = np.where(s == "c", 0, rng.integers(0, 2, 600))
    score = np.clip(0.2 + 0.4 * y + 0.3 * (s == "b") * y + 0.4 * rng.random(600), 0, 1)
    found = audit(y, score, sensitive_features=s, **QUICK)
    gaps = found.gaps["group"]
    both = s != "c"
    for name in ("equal_opportunity_difference", "auroc_gap"):
        decided = score[both] if name == "auroc_gap" else score[both] >= 0.5
        expected = getattr(metrics, name)(y[both], decided, sensitive_features=s[both])
        assert gaps[name].estimate.value == pytest.approx(expected)
        assert gaps[name].left_out == ["c"]
    assert gaps["demographic_parity_difference"].left_out == []
    assert np.isfinite(p_of(found, "equal_opportunity_difference"))


def test_a_named_reference_holds_in_intersections_and_they_can_name_their_own():
    rng = np.random.default_rng(5)
    sex, age = rng.choice(["F", "M"], 800, p=[0.3, 0.7]), rng.choice(["old", "young"], 800)
    y = rng.integers(0, 2, 800)
    given = {"sex": sex, "age": age}
    found = audit(y, rng.random(800), sensitive_features=given, reference={"sex": "F"}, **QUICK)
    sizes = found.attributes["sex × age"].groups
    assert found.attributes["sex × age"].reference == max(("F × old", "F × young"), key=lambda g: sizes[g])
    named = {"sex": "F", "sex × age": "M × old"}
    found = audit(y, rng.random(800), sensitive_features=given, reference=named, **QUICK)
    assert found.attributes["sex × age"].reference == "M × old"


def test_a_separated_score_has_an_interval_that_says_something():
    """Ten positives above sixty negatives: the area at which this happens in one of forty samples."""
    rng = np.random.default_rng(6)
    y = np.repeat([1, 0, 1, 0], [10, 60, 40, 60])
    s = np.repeat(["a", "a", "b", "b"], [10, 60, 40, 60])
    score = np.where(y == 1, 0.6, 0.1) + np.where(s == "b", 0.4, 0.1) * rng.random(170)
    area = audit(y, score, sensitive_features=s, **QUICK).by_group["group"]["a"]["auroc"]
    shift = np.sqrt(2) * NormalDist().inv_cdf(area.low)
    draws = rng.normal(shift, size=(20_000, 10)).min(1) > rng.normal(size=(20_000, 60)).max(1)
    tail = np.mean(draws)  # Student's tail of nine degrees of freedom, at 2.26 standard errors
    assert (area.value, area.high) == (1, 1)
    assert tail == pytest.approx(NormalDist().cdf(-2.262), abs=0.004)


def test_common_support_is_reported():
    rng = np.random.default_rng(7)
    n = 4000
    s, age = rng.choice(["a", "b"], n, p=[0.7, 0.3]), rng.integers(2, 9, n) * 10
    y = (rng.random(n) < age / 120).astype(int)
    keep = ~((s == "b") & (age == 80) & (y == 0))  # all old patients of one group are ill
    s, age, y = s[keep], age[keep], y[keep]
    score = 0.2 + 0.4 * y + 0.3 * rng.random(len(y))
    found = audit(y, score, sensitive_features=s, covariates={"age": age}, reference="a", **QUICK)
    left = found.support["group"]["b"]
    assert left.reference == ((s == "a") & (age == 80)).sum()
    assert left.group == ((s == "b") & (age == 80)).sum()
    part = age < 80
    own = effects(
        y[part], score[part] >= 0.5, sensitive_features=s[part], covariates={"age": age[part]}, reference="a"
    )[0]
    adjusted = found.adjusted_effects["group"]["b"]
    assert adjusted["direct_effect"].value == pytest.approx(own.direct_effect)
    assert adjusted["total_effect"].value == pytest.approx(own.total_effect)
    assert adjusted["direct_effect"].low < own.direct_effect < adjusted["direct_effect"].high


def test_sensitivity_says_what_would_explain_an_effect_away():
    """A tenth of the records "healthy" of group b are missed disease, and nothing else differs."""
    y, score, group = rows(
        {
            ("a", 1, 1): 800,
            ("a", 1, 0): 200,
            ("a", 0, 1): 200,
            ("a", 0, 0): 1800,
            ("b", 1, 1): 800,
            ("b", 1, 0): 200,
            ("b", 0, 1): 260,
            ("b", 0, 0): 1240,
        }
    )
    found = audit(y, score, sensitive_features=group, reference="a", **QUICK)
    sensitivity = found.sensitivity["group"]["b"]
    fpr, tpr = 260 / 1500, 0.8
    assert (1 - sensitivity.missed_share) * 0.1 + sensitivity.missed_share * tpr == pytest.approx(fpr)
    risk = 1000 / 3000
    other = risk + found.effects["group"]["b"]["direct_effect"].value
    assert sensitivity.e_value == pytest.approx(other / risk + np.sqrt(other / risk * (other / risk - 1)))
    assert 1 < sensitivity.e_value_interval < sensitivity.e_value


def test_the_explorer_is_the_audit_at_its_threshold_and_prints_what_it_selects():
    rng = np.random.default_rng(8)
    n = 3000
    y, s = (rng.random(n) < 0.02).astype(int), rng.integers(0, 2, n)
    score = 1 / (1 + np.exp(-(2 * y + rng.normal(size=n) - 3)))
    found = audit(y, score, sensitive_features=s, n_replicates=320, n_permutations=99, threshold=0.31)
    explored = found.explorer["group"]
    at = explored.thresholds.index(0.31)
    for name, series in explored.gaps.items():
        gap = found.gaps["group"][name].estimate
        assert (series.value[at], series.low[at], series.high[at]) == (gap.value, gap.low, gap.high)
    for group, by_name in explored.rates.items():
        for name, series in by_name.items():
            rate = found.by_group["group"][group][name]
            assert (series.value[at], series.low[at]) == (rate.value, rate.low)
            if not np.isnan(series.value).all():
                assert np.nanmin(np.subtract(series.high, series.low)) > 0
    selected = np.sum(list(explored.selected_positives.values()), axis=0)
    for threshold, number in zip(explored.thresholds, selected, strict=True):
        assert (score[y == 1] >= float(f"{threshold:.7g}")).sum() == number
    median = np.median(score[y == 1])
    assert sum(t > median for t in explored.thresholds) > 10


@pytest.mark.parametrize("clustered", [False, True])
def test_a_run_reports_what_an_audit_of_its_predictions_finds(clustered):
    rng = np.random.default_rng(9)
    s, y = rng.choice(["a", "b", "c"], 900), rng.integers(0, 2, 900)
    patient = np.arange(900) // 3 if clustered else None
    score = 1 / (1 + np.exp(-(2 * y - 1 + rng.normal(size=900))))
    given = {"sensitive_features": s, "patients": patient, "n_replicates": 200, "seed": 4, "threshold": 0.4}
    own, found = evaluate(y, score, **given), audit(y, score, explore=False, **given)
    for name, estimate in own.items():
        if name in found.overall:
            assert estimate == found.overall[name]
        elif name in found.gaps["group"]:
            assert estimate == found.gaps["group"][name].estimate
        else:
            quoted = found.simultaneous_effects["group"]
            group = max(quoted, key=lambda g: abs(quoted[g]["direct_effect"].value))
            assert estimate == quoted[group][name]


def test_the_information_of_scores_has_the_functions_bins_and_its_own_design_effect():
    rng = np.random.default_rng(10)
    patient = np.repeat(np.arange(500), 3)
    s, y = rng.integers(0, 2, 500)[patient], rng.integers(0, 2, 1500)
    score = 1 / (1 + np.exp(-(y + 0.5 * s + rng.normal(size=500)[patient] + rng.normal(size=1500))))
    plain = audit(y, score, sensitive_features=s, **QUICK).gaps["group"]
    expected = metrics.score_mutual_information(y, score, sensitive_features=s)
    assert plain["score_mutual_information"].estimate.value == pytest.approx(expected)
    clustered = audit(y, score, sensitive_features=s, patients=patient, **QUICK).gaps["group"]
    information = clustered["score_mutual_information"].estimate.value
    assert clustered["approximate_diagnosis_fairness_corrected"].estimate.value <= information <= expected


def test_small_groups_stand_beside_what_they_probably_are():
    rng = np.random.default_rng(11)
    s = np.repeat(["a", "b", "c", "tiny"], [400, 400, 400, 12])
    y = np.tile([0, 1], 606)
    right = np.where(s == "tiny", np.arange(1212) % 4 < 2, rng.random(1212) < 0.85)
    found = audit(y, np.where(right, y, 1 - y) * 0.8 + 0.1, sensitive_features=s, **QUICK)
    assert found.attributes["group"].excluded == ["tiny"]
    pooled = found.pooled["group"]["tpr"]
    raw = found.by_group["group"]["tiny"]["tpr"].value
    assert pooled["tiny"].raw == raw < pooled["tiny"].value < pooled["a"].value
    assert pooled["a"].value == pytest.approx(pooled["a"].raw, abs=0.02)
    assert sum(one.worst for one in pooled.values()) == pytest.approx(1)
    assert "after partial pooling" in found.to_html()
    two = audit(y, rng.random(1212), sensitive_features=np.where(s == "a", "a", "b"), **QUICK)
    assert two.pooled["group"] == {}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("n", [30, 60])
def test_few_images_never_show_that_there_is_no_information(n, seed):
    """Intervals hold their estimate, and are no points: 30 images cannot show that ADF is exactly 0."""
    rng = np.random.default_rng(seed)
    group, y = rng.choice(["a", "b"], n), (rng.random(n) < 0.4).astype(int)
    score = np.clip(0.4 + 0.2 * y + 0.2 * rng.normal(size=n), 0, 1).round(1)
    found = audit(y, score, sensitive_features=group, min_group_size=5, **QUICK)
    for name in ("approximate_diagnosis_fairness_corrected", "score_mutual_information"):
        estimate = found.gaps["group"][name].estimate
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.high > 0.5 / n
    for figures in found.by_group["group"].values():
        error = figures["expected_calibration_error"]
        assert np.isnan(error.low) or error.low <= error.value <= error.high


def test_a_calibration_gap_may_be_larger_than_one():
    y = np.repeat([0, 1, 0, 1], [95, 5, 5, 95])
    score, group = np.repeat([0.99, 0.01], 100), np.repeat(["a", "b"], 100)
    gap = audit(y, score, sensitive_features=group, **QUICK).gaps["group"]["calibration_gap"].estimate
    assert gap.value == pytest.approx(0.94 + 0.94)
    assert gap.low <= gap.value <= gap.high <= 2


def test_what_was_not_tested_is_not_called_fair():
    y = np.arange(200) % 2
    group, patients = np.repeat(["a", "b"], 100), np.repeat(["one", "two", "three", "four"], 50)
    found = audit(y, y.astype(float), sensitive_features=group, patients=patients, threshold=1.0, **QUICK)
    same = audit(y, y * 0.0, sensitive_features=group, **QUICK)
    untested = [t for t in found.tests if t.metric == "approximate_diagnosis_fairness"]
    texts = [note.text for note in (*found.notes, *same.notes)]
    if np.isnan(untested[0].p_value):
        assert any("could not be tested" in text for text in texts)
    assert not any("as often as a " in text and "a is decided" in text for text in texts)
    assert not any("lowest in a" in text and "higher in a" in text for text in texts)


def test_every_group_with_a_sure_effect_is_named():
    """The largest effect may be unsure, in a small group, and another one sure."""
    of_most = {("most", 1, 1): 1400, ("most", 1, 0): 600, ("most", 0, 1): 400, ("most", 0, 0): 1600}
    of_another = {
        ("differs", 1, 1): 800,
        ("differs", 1, 0): 200,
        ("differs", 0, 1): 300,
        ("differs", 0, 0): 700,
    }
    of_few = {("small", 1, 1): 17, ("small", 1, 0): 3, ("small", 0, 1): 7, ("small", 0, 0): 13}
    y, score, group = rows({**of_most, **of_another, **of_few})
    found = audit(y, score, sensitive_features=group, reference="most", **QUICK)
    ends = {g: e["direct_effect"] for g, e in found.simultaneous_effects["group"].items()}
    assert ends["differs"].low > 0 > ends["small"].low
    assert ends["small"].value > ends["differs"].value
    said = next(n.text for n in found.notes if "direct effect" in n.text and n.kind == "finding")
    assert said.endswith("which includes 0). For differs it excludes 0.")
    page = render_summary(found)
    assert "decisions differ though the disease is the same" in page
    assert "no direct effect is shown" not in page
