"""The two pages for a committee: what they say is what the audit found, and they are two pages."""

import html
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from fairdx.auditing import audit
from fairdx.auditing.reread import read_audit
from fairdx.auditing.summary import render_summary
from fairdx.auditing.suppressed import audit_suppressed
from fairdx.core.errors import InputError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUICK = {"n_replicates": 50, "n_permutations": 50, "explore": False}


def scores(n, shift, seed=0):
    rng = np.random.default_rng(seed)
    sex, truth = rng.choice(["F", "M"], n), rng.integers(0, 2, n)
    score = 1 / (1 + np.exp(1.2 - 2.4 * truth - shift * (sex == "F") - rng.normal(size=n)))
    return truth, score, {"sex": sex}


@pytest.fixture(scope="module")
def unfair():
    truth, score, groups = scores(2000, 1.0)
    return audit(truth, score, sensitive_features=groups, **QUICK)


@pytest.fixture(scope="module")
def many():
    """Twelve attributes and fourteen findings with names that do not end."""
    rng = np.random.default_rng(0)
    groups = [f"group {g} with a name that goes on and on and on" for g in range(4)]
    attributes = {
        f"attribute number {k} with a name that goes on": rng.choice(groups, 400) for k in range(12)
    }
    truth = rng.integers(0, 2, 400)
    wide = audit(truth, rng.random(400), sensitive_features=attributes, intersections=False, **QUICK)
    findings = pd.DataFrame(
        {f"finding {k} with a name of many words": rng.integers(0, 2, 400) for k in range(14)}
    )
    two = {name: attributes[name] for name in list(attributes)[:2]}
    return [wide, audit(findings, rng.random((400, 14)), sensitive_features=two, **QUICK)]


def text_of(page):
    page = re.sub(r"<style\b.*?</style>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_it_prints_on_two_pages(unfair, many, tmp_path):
    for k, result in enumerate([unfair, *many]):
        source, printed = tmp_path / f"{k}.html", tmp_path / f"{k}.pdf"
        source.write_text(render_summary(result), encoding="utf-8")
        quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
        subprocess.run(
            [CHROMIUM, *quiet, f"--print-to-pdf={printed}", source.as_uri()], check=True, capture_output=True
        )
        assert len(re.findall(rb"/Type\s*/Page[^s]", printed.read_bytes())) == 2


def test_its_sentences_and_figures_are_those_of_the_audit(unfair):
    text = text_of(render_summary(unfair))
    for note in unfair.notes:
        if note.kind == "finding":
            assert note.text in text
    found = unfair.by_group["sex"]["F"]["tpr"]
    assert f"{100 * found.value:.0f} ({100 * found.low:.0f} to {100 * found.high:.0f})" in text
    assert "2 000 images" in text or "2,000 images" in text


def test_it_claims_a_difference_only_where_the_interval_does():
    for n, shift in ((2000, 1.0), (200, 0.0), (200, 0.6), (400, 0.3)):
        truth, score, groups = scores(n, shift, seed=n)
        result = audit(truth, score, sensitive_features=groups, **QUICK)
        (effect,) = (e["direct_effect"] for e in result.simultaneous_effects["sex"].values())
        text = text_of(render_summary(result))
        sure = effect.low > 0 or effect.high < 0
        assert ("decisions differ though the disease is the same" in text) == sure
        assert ("no direct effect is shown" in text) == (not sure)


def test_what_is_withheld_comes_first_among_the_limits():
    truth, score, groups = scores(1200, 0.5)
    groups["sex"][:12] = "X"
    text = text_of(
        render_summary(audit_suppressed(truth, score, least=10, sensitive_features=groups, **QUICK))
    )
    assert "What this cannot say Small numbers are withheld" in text


def test_the_size_of_adf_that_it_names_is_that_of_two_groups():
    """Mutual information by hand: two groups and labels of equal size, error rates of 15 %."""
    truth, score, groups = scores(2000, 1.0)
    text = text_of(render_summary(audit(truth, score, sensitive_features=groups, **QUICK)))
    assert (
        "0.0025 nats go with 5 points between groups with the same disease, 0.01 nats with 10 points" in text
    )
    for points, nats in ((0.05, 0.0025), (0.10, 0.01)):
        information = 0.0
        for rate in (0.15, 0.85):  # of healthy and of diseased images that are decided positive
            for own in (rate - points / 2, rate + points / 2):
                both = ((own, rate), (1 - own, 1 - rate))
                information += sum(0.25 * p * np.log(p / q) for p, q in both)
        assert information == pytest.approx(nats, rel=0.05)


def test_a_name_with_tags_is_text(unfair):
    page = render_summary(unfair, title="<script>alert(1)</script>")
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


def test_json_that_is_read_again_is_the_same(unfair, many, tmp_path):
    path = tmp_path / "audit.json"
    for result in (unfair, *many):
        path.write_text(result.to_json(), encoding="utf-8")
        assert read_audit(path).to_json() == result.to_json()
        assert render_summary(read_audit(path)) == render_summary(result)


@pytest.mark.parametrize(("text", "words"), [("{}", "Field required"), ("[1", "not the JSON of an audit")])
def test_other_json_is_refused(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=words):
        read_audit(tmp_path / "a.json")
    with pytest.raises(InputError, match="cannot read"):
        read_audit(tmp_path / "none.json")
