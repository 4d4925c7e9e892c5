"""Tables as people have them: what `fairdx audit` reads with a note, and what it refuses."""

import jsonschema
import numpy as np
import pandas as pd
import pytest
from audit_table import read_json, words

from fairdx import auditing, metrics
from fairdx.auditing import json_schema, read_predictions


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--where", "split"], "`--where split` is not of the form NAME=VALUE"),
        (["--where", "split=train"], "no row has split = train; there is test, val"),
        (["--where", "splt=test"], "no column 'splt'; did you mean 'split'?"),
        (["--where", "sex=F", "--where", "sex=M"], "`--where` gives sex two values, F and M"),
        (["--where", "sex=F"], "group column 'sex' holds the single value 'F'"),
        (["--reference", "X"], "'X' is no group of sex"),
        (["--reference", "sex=X"], "there is only F, M"),
        (["--group", "age"], "no column 'age'"),
        (["--patient", "pat"], "did you mean 'patient'?"),
        (["--id", "patient"], "repeats identifiers"),
        (["--interval", "normal"], "give 'percentile' or 'bca'"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(run, path, arguments, told):
    status, _, err = run(path, *arguments)
    assert status == 2
    assert told in err
    assert err.startswith("fairdx: ")
    assert err.count("\n") == 1


def test_bad_tables(run, frame, tmp_path):
    path = tmp_path / "p.csv"
    for column, values, told in (
        ("p", [0.5, None] * 150, "no finite score in 150 rows (first: row 3)"),
        ("p", [0.5, -3] * 150, "outside [0, 1]"),
        ("p", ["0.5", "n/k"] * 150, "holds 'n/k', no number"),
        ("y", [1] * 300, "single class '1'"),
        ("y", range(300), "300 distinct values"),
    ):
        frame.assign(**{column: values}).to_csv(path, index=False)
        status, _, err = run(path)
        assert (status, told in err) == (2, True), err
    path.write_text("y,p,sex\n0,0.1,F,\n1,0.2,M,x\n", encoding="utf-8")
    assert "row 2 has 4 fields and the header 3" in run(path)[2]
    assert "no such file" in run(tmp_path / "absent.csv")[2]


def test_tables_that_need_care_are_audited_with_a_note(run, frame, tmp_path):
    path = tmp_path / "p.csv"
    frame.loc[0, "sex"] = "X"
    frame.loc[1, "sex"] = None
    frame.to_csv(path, index=False, encoding="utf-16", sep=";", decimal=",")
    status, out, _ = run(path)
    told = words(out)
    assert status == 0
    assert "sex is missing in 1 row (first: row 3)" in told
    assert "group 'X' has a single image" in told
    assert "X (1), (missing) (1)" in told


def test_rows_without_a_label_have_bounds(run, frame, tmp_path):
    path, out = tmp_path / "some.csv", tmp_path / "audit.json"
    labels = frame.y.astype(object).where(np.arange(len(frame)) >= 40, "")
    scores = frame.p.astype(object).where(
        np.arange(len(frame)) >= 10, ""
    )  # of which ten have no score either
    frame.assign(y=labels, p=scores).to_csv(path, index=False)
    status, printed, _ = run(path, "--json", out)
    found = read_json(out)["labels_missing"]["sex"]
    assert status == 0
    assert sum(found["images"].values()) == 30
    assert "30 images have a score but no label" in words(printed)
    result = auditing.audit(
        frame.y.astype(float).where(np.arange(len(frame)) >= 40)[10:],
        frame.p[10:],
        sensitive_features={"sex": frame.sex[10:]},
        n_replicates=50,
        n_permutations=99,
        explore=False,
    )
    bounds = result.labels_missing["sex"].gaps["equal_opportunity_difference"]
    assert found["gaps"]["equal_opportunity_difference"]["high"] == pytest.approx(bounds.high)


def test_the_index_of_a_parquet_file_is_a_column(frame, tmp_path):
    frame.set_index("image").to_parquet(tmp_path / "p.parquet")
    found = read_predictions(tmp_path / "p.parquet", label="y", score="p", groups="sex", identifier="image")
    assert len(found.y_true) == len(frame)


def test_a_score_against_the_label_gets_a_caution(run, path):
    _, out, _ = run(path, "--positive", "0")
    assert "Positive is '0', negative is '1'" in words(out)
    assert "below 0.5: the score is lower for '0' than for '1'" in words(out)
    assert "below 0.5" not in run(path)[1]
    assert run(path, "--positive", "2")[2].startswith("fairdx: the positive class '2' is no value of")


@pytest.mark.parametrize("name", ["[/b]", "[unknown]", "a\x1b[31m", "<b>", "%s", "{0}", "b & c"])
def test_groups_are_shown_as_they_are_written(run, frame, tmp_path, name):
    path = tmp_path / "p.csv"
    frame["sex"] = np.where(frame["sex"] == "F", name, "M")
    frame.to_csv(path, index=False)
    status, out, _ = run(path, "--json", tmp_path / "a.json", "--out", tmp_path / "r.html")
    assert status == 0
    printed = name.replace("\x1b", "\\x1b")
    assert printed in out
    assert "\x1b[31m" not in out
    assert name in read_json(tmp_path / "a.json")["attributes"]["sex"]["groups"]
    shown = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in shown
    assert f">{name}" not in shown or "<" not in name


def test_attributes_whose_names_are_taken(run, frame, tmp_path):
    path = tmp_path / "p.csv"
    frame["overall"] = frame["race"]
    frame["sex × race"] = frame["split"]
    frame.to_csv(path, index=False)
    more = ["--group", "race", "--group", "overall", "--group", "sex × race", "--compare", "fair"]
    status, *_ = run(path, *more, "--json", tmp_path / "a.json", "--out", tmp_path / "r.html")
    assert status == 0
    found = read_json(tmp_path / "a.json")
    assert found["gaps"]["overall"] == found["gaps"]["race"]
    assert set(found["attributes"]["sex × race"]["groups"]) == {"test", "val"}
    assert set(found["attributes"]["sex × race (intersection)"]["groups"]) == {
        "F × A",
        "F × B",
        "M × A",
        "M × B",
    }
    assert {"overall", "overall (all images)"} <= set(found["comparison"])
    assert set(found["curves"]["overall (all images)"]) == {"all"}


def test_the_reference_is_the_largest_group_with_a_name(run, frame, tmp_path):
    path = tmp_path / "p.csv"
    frame["sex"] = frame["sex"].mask(np.arange(300) % 5 > 1)  # 60 % missing
    frame.to_csv(path, index=False)
    run(path, "--group", "race", "--json", tmp_path / "a.json")
    found = read_json(tmp_path / "a.json")["attributes"]
    largest = frame["sex"].value_counts().index[0]
    assert found["sex"]["reference"] == largest
    assert "(missing)" not in found["sex × race"]["reference"]
    assert run(path, "--reference", "sex=(missing)", "--json", tmp_path / "a.json")[0] == 0
    assert read_json(tmp_path / "a.json")["attributes"]["sex"]["reference"] == "(missing)"


def test_doubtful_patients_and_measurements_get_a_caution(run, frame, tmp_path):
    path = tmp_path / "p.csv"
    frame["two"] = frame.index % 2
    frame["age"] = 20 + frame.index % 70
    frame.to_csv(path, index=False)
    _, out, _ = run(path, "--patient", "two")
    assert "There are only 2 patients" in words(out)
    assert "sex: 2 of 2 patients occur in more than one group" in words(out)
    _, out, _ = run(path, "--patient", "patient", "--group", "age")
    assert "age: 70 of its groups are numbers. If it is a measurement, divide it first" in words(out)
    assert "occur in more than one group" in words(out)  # age does, sex does not
    assert "sex: 0" not in words(out)
    _, out, _ = run(path, "--group", "age@40,60", "--json", tmp_path / "a.json")
    assert "of its groups are numbers" not in words(out)
    assert list(read_json(tmp_path / "a.json")["attributes"]["age"]["groups"]) == [
        "under 40",
        "40 to 59",
        "60 and over",
    ]


def test_several_models_in_long_form(run, frame, tmp_path):
    path, order = tmp_path / "long.csv", np.random.default_rng(0).permutation(300)
    parts = [frame.assign(model="old"), frame.assign(p=frame["fair"], model="[new]").iloc[order]]
    pd.concat([*parts, frame.assign(p=1 - frame["p"], model="upside down")]).to_csv(path, index=False)
    more = ["--model", "model", "--id", "image", "--patient", "patient"]
    status, out, _ = run(path, *more, "--json", tmp_path / "a.json", "--out", tmp_path / "r.html")
    assert status == 0
    found = read_json(tmp_path / "a.json")
    jsonschema.validate(found, json_schema())
    assert list(found["models"]) == ["[new]", "upside down"]
    for name, score in (("[new]", frame["fair"]), ("upside down", 1 - frame["p"])):
        area = found["models"][name]["overall"]["auroc"]["value"]
        assert area == pytest.approx(metrics.auroc(frame["y"], score))
        change = found["models"][name]["comparison"]["overall"]["auroc"]
        assert change["before"] == pytest.approx(found["overall"]["auroc"]["value"])
        assert change["after"] == pytest.approx(area)
    assert "[new]: Positive is '1'" in words(out)
    assert "Other models" in (tmp_path / "r.html").read_text(encoding="utf-8")
    frame.to_csv(tmp_path / "wide.csv", index=False)
    run(tmp_path / "wide.csv", "--patient", "patient", "--compare", "fair", "--json", tmp_path / "b.json")
    assert read_json(tmp_path / "b.json")["comparison"] == found["models"]["[new]"]["comparison"]
    assert run(path, *more, "--fail-if", "auc<0.5")[2].count("(upside down)") == 3  # all, F, M
    _, _, err = run(
        path, *more, "--model", "model=[new]", "--fail-if", "auc>2", "--json", tmp_path / "a.json"
    )
    assert (err, list(read_json(tmp_path / "a.json")["models"])) == ("", ["old", "upside down"])
    for change, told in (
        (["--model", "model=x", "--id", "image"], "no row has model = x"),
        (["--model", "model"], "name the column that identifies an image with --id"),
        ([*more, "--compare", "fair"], "not both"),
    ):
        status, _, err = run(path, *change)
        assert (status, told in err) == (2, True), err
    pd.concat([frame.assign(model="a"), frame[:200].assign(model="b")]).to_csv(path, index=False)
    assert "(model = b) lacks 100 of the 300 images" in run(path, *more)[2]
