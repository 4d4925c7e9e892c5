"""What would take hours or all memory is left out, and said; what is resampled apart is the same."""

import numpy as np
import pytest

from fairdx.auditing import assemble, audit
from fairdx.auditing.page import render_audit

QUICK = {"n_replicates": 20, "n_permutations": 20}


def scores(n=300, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    return rng, y, np.clip(0.3 * y + 0.7 * rng.random(n), 0, 1)


def told(result, text):
    return sum(text in note.text for note in result.notes)


def test_of_very_many_classes_none_is_audited_alone():
    rng = np.random.default_rng(0)
    y = np.append(np.arange(60), rng.integers(0, 60, 540))
    score = 0.7 * rng.dirichlet(np.full(60, 0.1), 600) + 0.3 * np.eye(60)[y]
    found = audit(y, score, sensitive_features={"sex": rng.integers(0, 2, 600)}, **QUICK)
    assert found.per_label == {}
    assert len(found.classes) == 60
    assert told(found, "no class is audited against the rest") == 1
    right = (score.argmax(1) == y).mean()
    assert found.overall["accuracy"].value == pytest.approx(right)
    assert "60 classes: 0, 1" in render_audit(found)


def test_intersections_of_very_many_attributes_are_audited_only_if_asked_for():
    rng, y, score = scores()
    given = {f"a{k}": rng.integers(0, 2, 300) for k in range(8)}
    found = audit(y, score, sensitive_features=given, explore=False, **QUICK)
    assert list(found.attributes) == list(given)
    assert told(found, "Intersections of attributes are not audited with 8 attributes") == 1
    three = {name: given[name] for name in list(given)[:3]}
    assert len(audit(y, score, sensitive_features=three, explore=False, **QUICK).attributes) == 7


def test_an_intersection_of_very_many_groups_is_left_out():
    rng, y, score = scores(3000)
    given = {name: rng.integers(0, 25, 3000) for name in ("site", "device")}
    found = audit(y, score, sensitive_features=given, explore=False, **QUICK)
    assert list(found.attributes) == ["site", "device"]
    assert told(found, "site × device has") == 1


def test_thresholds_of_very_many_groups_are_not_explored():
    rng, y, score = scores(3000)
    given = {"sex": rng.integers(0, 2, 3000), "site": rng.integers(0, 70, 3000)}
    found = audit(y, score, sensitive_features=given, intersections=False, **QUICK)
    assert list(found.explorer) == ["sex"]
    assert told(found, "site: no other thresholds are explored, as it has 70 groups") == 1
    assert "Threshold explorer" in render_audit(found)


def test_groupings_resampled_apart_have_the_figures_of_those_resampled_together(monkeypatch):
    rng, y, score = scores(800)
    given = {"sex": rng.integers(0, 2, 800), "race": rng.integers(0, 3, 800)}
    options = {"sensitive_features": given, "n_replicates": 400, "explore": False}
    apart = audit(y, score, **options)
    monkeypatch.setattr(assemble, "batches", lambda study, n: [study.groupings])
    together = audit(y, score, **options)
    assert list(apart.by_group) == list(together.by_group)
    assert list(apart.curves) == list(together.curves)
    for name, groups in together.by_group.items():
        for group, metrics in groups.items():
            for metric, one in metrics.items():
                two = apart.by_group[name][group][metric]
                assert two.value == pytest.approx(one.value, abs=1e-9)
                assert two.high - two.low == pytest.approx(one.high - one.low, rel=0.25)
    for name, gaps in together.gaps.items():
        for metric, gap in gaps.items():
            assert apart.gaps[name][metric].estimate.value == pytest.approx(gap.estimate.value, abs=1e-9)
