"""The main job at its defaults, once, against the truth: what README and docs claim of `fairdx demo`."""

import pytest

from fairdx.commands.demo import demo_settings
from fairdx.runs.run import run


@pytest.mark.long
def test_the_mask_prunes_the_direct_path_at_the_defaults(tmp_path):
    methods = run(demo_settings(quick=False, seed=0), tmp_path)["methods"]
    before, after = methods["vanilla"], methods["fair_diagnosis"]

    def value(figures, name):
        return figures[name]["value"]

    assert 0.85 <= value(before, "auroc") <= 0.95
    assert value(before, "true_direct_effect") == pytest.approx(0.10, abs=0.04)
    adf = "approximate_diagnosis_fairness"
    assert value(after, adf) < value(before, adf) / 10
    assert value(after, "auroc") > value(before, "auroc") - 0.008
    assert abs(value(after, "true_direct_effect")) < 0.02
    for figures in (before, after):
        estimate, truth = figures["direct_effect"], figures["true_direct_effect"]
        # Both are estimates: the truth of the classifier lies somewhere in its own interval.
        assert estimate["low"] <= truth["high"]
        assert truth["low"] <= estimate["high"]
