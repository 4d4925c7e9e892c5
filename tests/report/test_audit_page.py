import json
import re

import numpy as np
import pytest

from fairdx.auditing import audit
from fairdx.auditing import page as audit_page
from fairdx.auditing.page import render_audit, write_audit
from fairdx.auditing.page_benefit import benefit_figure
from fairdx.auditing.page_explorer import explorer_view
from fairdx.metrics.definitions import METRICS
from fairdx.report.numbers import style_of
from fairdx.report.page import json_for_script, render_page

HOSTILE = "<script>alert(1)</script>"


def _blocks(page):
    found = re.findall(
        r'<script type="application/json" id="data-(\w+)">(.*?)</script>', page, flags=re.DOTALL
    )
    return {name: json.loads(text) for name, text in found}


def test_a_page_shows_the_audits_figures(result):
    page = render_audit(result, title="A title", command="fairdx audit 'x<y>.csv'")
    assert "<h1>A title</h1>" in page
    assert "fairdx audit &#39;x&lt;y&gt;.csv&#39;" in page
    for name in ("sex", "race", "sex × race"):
        for metric, gap in result.gaps[name].items():
            assert METRICS[metric].title in page
            assert style_of(metric)(gap.estimate.value) in page
        for groups in result.by_group[name].values():
            assert style_of("tpr")(groups["tpr"].value) in page
    for note in result.notes:
        assert (
            note.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;")
            in page
        )


def test_untrusted_text_is_text(audit_maker):
    names = ["</script><script>alert(2)</script>", "&\u2028'\"", HOSTILE]
    rng = np.random.default_rng(1)
    group = np.array(names)[rng.integers(0, 3, 2000)]
    page = render_audit(audit_maker(sensitive_features={HOSTILE: group}), title=HOSTILE, command=HOSTILE)
    assert "<script>alert" not in page
    assert page.count("<script") == 2  # the data and the one script of the page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5


def test_json_in_a_script_element_cannot_end_it():
    value = {"<!--</script>": "&\u2028\u2029", "x": [float("nan"), float("inf"), 1.5]}
    text = json_for_script(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"<!--</script>": "&\u2028\u2029", "x": [None, None, 1.5]}


def test_only_the_pages_own_script_may_run(result):
    page = render_audit(result)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
    assert "default-src &#39;none&#39;" in policy
    assert re.search(r"script-src &#39;sha256-[A-Za-z0-9+/=]+&#39;$", policy)
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg", "", page.replace('http-equiv="', ""))


def test_the_explorers_series_are_the_audits(result):
    view = explorer_view(result, "all", list(result.explorer))
    data = json.loads(view.data)
    explorer = result.explorer["sex"]
    assert data["thresholds"] == pytest.approx(explorer.thresholds, rel=1e-6)
    assert data["thresholds"][data["start"]] == result.settings.threshold
    rates, gaps, effects = view.parts[0].tables
    for row in rates.rows:
        for cell, (metric, series) in zip(row.cells, explorer.rates[row.name].items(), strict=True):
            kept = data["series"][cell.series]
            assert np.array(kept["v"], dtype=float) == pytest.approx(np.array(series.value), nan_ok=True)
            assert cell.value == style_of(metric)(result.by_group["sex"][row.name][metric].value)
    names = list(explorer.gaps)
    assert [data["series"][row.cells[0].series]["v"] for row in gaps.rows] == [
        pytest.approx(explorer.gaps[name].value) for name in names
    ]
    assert [row.name for row in effects.rows] == list(explorer.effects)


def test_before_and_after(audit_maker):
    result = audit_maker(after=True)
    page = render_audit(result)
    change = result.comparison["sex"]["approximate_diagnosis_fairness"]
    assert 'id="change"' in page
    assert f"{change.before:.5f}" in page
    assert f"{change.after:.5f}" in page
    assert "paired" in page


def test_several_classes_have_their_own_explorers(audit_maker):
    rng = np.random.default_rng(2)
    result = audit_maker(truth=rng.integers(0, 3, 2000), scores=rng.dirichlet(np.ones(3), 2000))
    page = render_audit(result)
    assert list(_blocks(page)) == ["class0", "class1", "class2"]
    assert page.count(result.identification) == 1  # what all classes share is said once
    assert "beyond the true class (p " in page
    assert len(page.encode()) < 5_000_000
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_covariates_have_adjusted_effects(audit_maker):
    rng = np.random.default_rng(3)
    age = np.array(["young", "old"])[rng.integers(0, 2, 2000)]
    page = render_audit(audit_maker(covariates={"age": age}))
    assert "standardised over age too" in page


def test_groups_too_small_to_compare(audit_maker):
    group = np.array(["many"] * 1990 + ["few"] * 10)
    page = render_audit(audit_maker(sensitive_features={"site": group}, patients=None))
    assert "Fewer than two groups are large enough to compare." in page
    assert "not given: images taken as independent" in page


def test_a_page_too_large_loses_detail_and_says_so(result, monkeypatch):
    whole = render_audit(result)
    monkeypatch.setattr(audit_page, "MOST_BYTES", len(whole.encode()) - 1)
    less = render_audit(result)
    assert len(less) < len(whole)
    assert "left out to keep the page small" in less
    monkeypatch.setattr(audit_page, "MOST_BYTES", 0)
    least = render_audit(result)
    assert "<svg" not in least
    assert "All figures are left out" in least


def test_many_groups_stay_under_the_limit(audit_maker):
    rng = np.random.default_rng(4)
    sites = np.array([f"site {i:03d}" for i in range(60)])[rng.integers(0, 60, 2000)]
    page = render_audit(
        audit_maker(sensitive_features={"site": sites}, patients=None, min_group_size=15, n_replicates=20)
    )
    assert len(page.encode()) < 5_000_000
    assert "largest of 60 groups are shown" in page


def test_an_undefined_name_in_a_template_is_an_error():
    with pytest.raises(Exception, match="undefined"):
        render_page("audit.html")


def test_write_audit(result, tmp_path):
    write_audit(result, tmp_path / "report.html", title="T")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_audit(result, title="T")


def test_net_benefit_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    y, score, sex = rng.integers(0, 2, 400), rng.random(400).round(2), rng.choice(["F", "M"], 400)
    found = audit(y, score, sensitive_features={"sex": sex}, n_replicates=50)
    for group in ("F", "M"):
        own, n = sex == group, (sex == group).sum()
        explorer = found.explorer["sex"]
        assert len(explorer.thresholds) > 20
        for t, value in zip(explorer.thresholds, explorer.benefit[group].value, strict=True):
            if t == 1:  # a false alarm would weigh more than any number
                assert np.isnan(value)
                continue
            d = score >= t
            right, wrong = (d & own & (y == 1)).sum(), (d & own & (y == 0)).sum()
            assert value == pytest.approx(right / n - wrong / n * t / (1 - t))
    assert [row[0] for row in benefit_figure(found, "sex").table.rows] == ["F", "M"]
    assert "Net benefit by sex" in render_audit(found)
