"""Figures with one mix of cases: by hand, beside other code, and the coverage of their intervals."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from fairdx.auditing import audit
from fairdx.auditing.gaps import gap_of
from fairdx.inference.case_mix import Cases, adjusted_area, adjusted_rate
from fairdx.inference.delong import delong

EARLY, LATE = 0.5, 2.0  # how far cases of either kind lie above controls
MIX = np.array([0.8, 0.3])  # share of early cases by group
PREVALENCE = 0.4


def drawn(rng, n=800, gap=0.0, share=0.3, returning=1):
    """Groups differ in the share of early cases; of the same kind the second is lower by `gap`."""
    patient = np.repeat(np.arange(n // returning), returning)
    count = len(patient) // returning
    group = (rng.random(count) < share).astype(int)[patient]
    early = (rng.random(count) < MIX[group[::returning]]).astype(int)[patient]
    y = (rng.random(len(patient)) < PREVALENCE).astype(int)
    shared = 0.6 if returning > 1 else 0.0
    noise = np.sqrt(shared) * rng.normal(size=count)[patient] + np.sqrt(1 - shared) * rng.normal(
        size=len(patient)
    )
    score = y * np.where(early == 1, EARLY, LATE) - gap * y * group + noise
    decision = (score >= 1).astype(int)
    return Cases(group, early, y, score, decision, 2, patient if returning > 1 else None, None, 0.95)


def truth(share=0.3, gap=0.0):
    """Rates and areas of both groups with the mix of all cases, (2, 2): tpr and auroc by group."""
    early = (1 - share) * MIX[0] + share * MIX[1]
    mix = np.array([early, 1 - early])
    shifts = np.array([EARLY, LATE])
    rates = [mix @ norm.cdf(shifts - gap * s - 1) for s in (0, 1)]
    areas = [mix @ norm.cdf((shifts - gap * s) / np.sqrt(2)) for s in (0, 1)]
    return np.array([rates, areas])


def test_areas_are_means_of_those_within_strata_with_the_mix_of_all_cases():
    rng = np.random.default_rng(0)
    cases, weight = drawn(rng), rng.random(800) + 0.5
    weighted = replace(cases, score=np.round(cases.score, 1), patient=np.arange(800), weight=weight)
    for one, own in ((cases, np.ones(800)), (weighted, weight)):
        area, rate = adjusted_area(one).figures.value[:, 0], adjusted_rate(one, 1).figures.value[:, 0]
        ill = one.label == 1
        mix = [own[ill & (one.covariate == c)].sum() / own[ill].sum() for c in (0, 1)]
        for s in (0, 1):
            parts = [(one.group == s) & (one.covariate == c) for c in (0, 1)]
            areas = [roc_auc_score(one.label[r], one.score[r], sample_weight=own[r]) for r in parts]
            rates = [np.average(one.decision[r & ill], weights=own[r & ill]) for r in parts]
            assert area[s] == pytest.approx(np.dot(mix, areas))
            assert rate[s] == pytest.approx(np.dot(mix, rates))


def test_with_one_stratum_it_is_the_plain_rate_and_delong():
    rng = np.random.default_rng(1)
    cases = drawn(rng)
    alone = replace(cases, covariate=np.zeros(800, dtype=int))
    areas, rates = adjusted_area(alone).figures, adjusted_rate(alone, 1).figures
    for s in (0, 1):
        rows = cases.group == s
        found = delong(cases.label[rows], cases.score[rows])
        assert areas.value[s, 0] == pytest.approx(found.auc[0])
        assert areas.variance[s, 0] == pytest.approx(found.covariance[0, 0])
        ill = rows & (cases.label == 1)
        assert rates.value[s, 0] == pytest.approx(cases.decision[ill].mean())
        assert rates.size[s, 0] == pytest.approx(ill.sum())  # so that the interval is Wilson's


def test_values_that_a_group_lacks_are_left_out_of_all():
    rng = np.random.default_rng(2)
    cases = drawn(rng)
    covariate = np.where((cases.group == 0) & (np.arange(800) < 100), 7, cases.covariate)
    more = replace(cases, covariate=covariate)
    found, kept = adjusted_area(more), covariate < 7
    without = adjusted_area(more.take(kept))
    assert found.left_out.tolist() == [int((~kept).sum()), 0]
    np.testing.assert_allclose(found.figures.value, without.figures.value)
    nothing = replace(cases, covariate=cases.group)
    assert np.isnan(adjusted_area(nothing).figures.value).all()
    assert np.isnan(adjusted_rate(nothing, 1).figures.value).all()


@pytest.mark.parametrize(("returning", "gap"), [(1, 0.0), (1, 0.5), (4, 0.0)])
def test_intervals_hold_the_truth(returning, gap):
    """Of 300 shares of 0.95 fewer than 0.91 hold once in 500 looks."""
    rng, draws, level = np.random.default_rng(10 * returning + int(10 * gap)), 300, 0.95
    expected = truth(gap=gap)
    held = np.zeros((2, 3))  # of each metric: both groups, and the gap
    for _ in range(draws):
        cases = drawn(rng, 500, gap, returning=returning)
        for metric, found in enumerate((adjusted_rate(cases, 1), adjusted_area(cases))):
            low, high = found.figures.ends(norm.ppf(0.975))
            inside = (low[:, 0] <= expected[metric]) & (expected[metric] <= high[:, 0])
            between = gap_of(found.figures, ("0", "1"), level, 500).estimate
            apart = float(np.ptp(expected[metric]))
            held[metric] += [*inside, between.low - 1e-9 <= apart <= between.high]
    assert (held / draws > 0.91).all(), held / draws


@pytest.fixture(scope="module")
def audited():
    cases = drawn(np.random.default_rng(4), 4000)
    return cases, audit(
        cases.label,
        norm.cdf(cases.score - 1),
        sensitive_features={"sex": np.array(["F", "M"])[cases.group]},
        covariates={"stage": np.array(["late", "early"])[cases.covariate]},
        n_replicates=60,
        n_permutations=99,
        explore=False,
    )


def test_groups_that_differ_by_case_mix_alone_do_not_differ_with_one_mix(audited):
    _, found = audited
    raw, adjusted = found.gaps["sex"], found.case_mix["sex"].gaps
    for metric in ("equal_opportunity_difference", "auroc_gap"):
        assert raw[metric].estimate.low > 0
        assert adjusted[metric].estimate.low == 0
        assert adjusted[metric].estimate.value < raw[metric].estimate.value / 3
    page = found.to_html()
    assert "Groups with one mix of stage" in page
    assert "AUC, one mix" in page
    told = next(note.text for note in found.notes if note.text.startswith("sex: with one mix of stage"))
    value = adjusted["equal_opportunity_difference"].estimate.value
    assert f"the gap in true-positive rates is {100 * value:.1f}" in told
    frame = found.to_frame()
    own = frame[(frame.metric == "auroc_case_mix") & (frame.group == "F")]
    assert own.value.item() == found.case_mix["sex"].by_group["F"]["auroc"].value


def test_a_stage_that_only_the_diseased_have_leaves_the_rate_defined(audited):
    cases, _ = audited
    stage = np.where(cases.label == 0, "none", np.array(["late", "early"])[cases.covariate])
    found = audit(
        cases.label,
        norm.cdf(cases.score - 1),
        sensitive_features={"sex": cases.group},
        covariates={"stage": stage},
        n_replicates=60,
        n_permutations=99,
        explore=False,
    )
    mixed = found.case_mix["sex"]
    assert mixed.gaps["equal_opportunity_difference"].estimate.low == 0
    assert np.isnan(mixed.gaps["auroc_gap"].estimate.value)
    assert sum(mixed.left_out["auroc"].values()) == len(cases.label)
    assert any("AUCs have no figure with one mix of stage" in note.text for note in found.notes)
