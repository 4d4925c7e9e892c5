"""The gate of `fairdx audit`: which conditions hold, fail, are not judged, or cannot be read."""

import numpy as np
import pytest
from audit_table import read_json


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("adf>0.0001", 3),
        ("adf>0.5", 0),
        ("dp >= 0.01", 3),
        ("eo_high>0.9", 0),
        ("auroc_gap_low<-1", 0),
        ("auc<0.999", 3),
        ("direct_effect<0", 0),  # the reference is M, and F is decided positive more often
        ("abs(de)>0.01", 3),
        ("es_auc<0.1", 0),
    ],
)
def test_the_gate(run, path, condition, status):
    found, _, err = run(path, "--reference", "M", "--fail-if", condition)
    assert found == status
    assert (condition in err) == bool(status)


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("adf", "not of the form METRIC>NUMBER"),
        ("adf>low", "not of the form"),
        ("abs(adf>1", "not of the form"),
        ("adf>nan", "not of the form"),
        ("abs(de_low)>1", "give abs() of the estimate"),
        ("auroc_gpa>0.1", "did you mean `auroc_gap`?"),
    ],
)
def test_conditions_that_cannot_be_read(run, path, condition, told):
    status, _, err = run(path, "--fail-if", condition)
    assert status == 2
    assert told in err


def test_the_gate_speaks_of_the_corrected_figures(run, path, tmp_path):
    run(path, "--json", tmp_path / "a.json", "--covariate", "race")
    found = read_json(tmp_path / "a.json")
    gaps = found["gaps"]["sex"]
    low, high = (
        gaps[f"approximate_diagnosis_fairness{end}"]["estimate"]["value"] for end in ("_corrected", "")
    )
    between = (low + high) / 2
    assert low < between < high
    for name, status in (("adf", 0), ("approximate_diagnosis_fairness", 0), ("adf_plugin", 3)):
        assert run(path, "--fail-if", f"{name}>{between}")[0] == status
    (group,) = found["effects"]["sex"]
    adjusted = found["adjusted_effects"]["sex"][group]["direct_effect"]["value"]
    assert adjusted != found["effects"]["sex"][group]["direct_effect"]["value"]
    _, _, err = run(path, "--covariate", "race", "--fail-if", "direct_effect>=-1")
    assert f"direct_effect of sex {group} is {adjusted:.6g}" in err


def test_what_the_gate_does_not_judge_is_named(run, frame, tmp_path):
    frame["site"] = np.where(np.arange(300) < 280, "a", np.where(np.arange(300) < 290, "b", "c"))
    frame.loc[280:, "p"] = 0.1  # no positive is found in the small groups
    frame.to_csv(tmp_path / "p.csv", index=False)
    status, _, err = run(tmp_path / "p.csv", "--fail-if", "tpr<0.1", "--group", "site")
    assert status == 0
    assert err.startswith("tpr<0.1: not judged for b, c of site, with fewer than 30 images")


def test_an_undefined_figure_does_not_pass_the_gate(run, frame, tmp_path):
    frame["site"] = np.where(np.arange(300) < 290, "a", "b")  # b is too small to compare
    frame["only"] = np.where(frame["y"] == 1, "sick", np.where(frame["sex"] == "F", "sick", "well"))
    frame.to_csv(tmp_path / "p.csv", index=False)
    for group, condition, told in (
        ("site", "adf>0.5", "approximate_diagnosis_fairness_corrected is undefined for site"),
        ("site", "direct_effect>0.5", "direct_effect is undefined for site"),
        ("only", "auroc_gap>0.5", "auroc_gap is undefined for only"),
    ):
        status, _, err = run(tmp_path / "p.csv", "--fail-if", condition, group=group)
        assert (status, told in err) == (3, True), err
    status, _, err = run(tmp_path / "p.csv", "--fail-if", "prevalence>0.99", group="site")
    assert status == 0  # a group too small to compare is not held to a condition, but named
    assert err.startswith("prevalence>0.99: not judged for b of site")


@pytest.mark.parametrize(
    "names", [("late [/old]", "[unknown]"), (":smile:", "[bold]x[/bold]"), ("a\x1b[2J", "b")]
)
def test_names_of_groups_are_printed_as_they_are_and_gate_nothing(run, frame, tmp_path, names):
    frame["sex"] = frame["sex"].map(dict(zip("FM", names, strict=True)))
    frame.to_csv(tmp_path / "p.csv", index=False)
    status, out, err = run(tmp_path / "p.csv", "--fail-if", "adf>9")
    assert status == 0
    for name in names:
        assert name.replace("\x1b", "\\x1b") in out
    assert "\x1b" not in out + err
    status, _, err = run(tmp_path / "p.csv", "--fail-if", "auc<0.999")
    assert status == 3
    assert "\x1b" not in err
