"""`fairdx audit` as an auditor types it: what it prints, writes and refuses, and with which exit status."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest

from fairdx import auditing, cli, metrics
from fairdx.auditing import json_schema, read_predictions

QUICK = ("--replicates", "50")


def make(n=300, seed=0):
    """Two images for each patient; the second score is better for women."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) // 2
    sex = np.array(["F", "M"])[rng.integers(0, 2, n)[patient]]
    y = (rng.random(n) < np.where(sex == "F", 0.5, 0.3)).astype(int)
    noise = rng.normal(size=n)
    before, after = (1 / (1 + np.exp(1.2 - 2 * y - shift * (sex == "F") - noise)) for shift in (0.8, 0.1))
    return pd.DataFrame(
        {
            "image": [f"i{k}" for k in range(n)],
            "patient": patient,
            "y": y,
            "p": before,
            "fair": after,
            "sex": sex,
            "race": rng.choice(["A", "B"], n // 2)[patient],
            "split": np.where(patient % 3 == 0, "val", "test"),
        }
    )


@pytest.fixture
def frame():
    return make()


@pytest.fixture
def path(frame, tmp_path) -> Path:
    frame.to_csv(tmp_path / "p.csv", index=False)
    return tmp_path / "p.csv"


@pytest.fixture
def run(here):
    def command(*arguments, label="y", score="p", group="sex"):
        columns = ["--label", label, "--score", score, "--group", group]
        done = here("audit", *columns, *QUICK, *arguments)
        return done.returncode, done.stdout, done.stderr

    return command


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_from_the_shell_without_torch(path, tmp_path):
    code = "import sys; from fairdx.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    columns = ["--label", "y", "--score", "p", "--group", "sex", "--group", "race", "--patient", "patient"]
    written = ["--json", tmp_path / "new" / "audit.json"]
    done = subprocess.run(
        [sys.executable, "-c", code, "audit", path, *columns, *written, *QUICK],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    assert "sex: given the true diagnosis, the decision" in done.stdout
    assert "sex × race" in done.stdout
    assert done.stderr == ""
    found = read_json(tmp_path / "new" / "audit.json")
    jsonschema.validate(found, json_schema())
    assert (found["n_images"], found["n_patients"]) == (300, 150)


def test_the_figures_are_those_of_the_functions(run, path, frame, tmp_path):
    status, *_ = run(path, "--threshold", "0.4", "--reference", "M", "--json", tmp_path / "a.json")
    found, decision = read_json(tmp_path / "a.json"), frame["p"] >= 0.4
    assert status == 0
    expected = metrics.equal_opportunity_difference(frame["y"], decision, sensitive_features=frame["sex"])
    gap = found["gaps"]["sex"]["equal_opportunity_difference"]["estimate"]
    assert gap["value"] == pytest.approx(expected)
    expected = metrics.direct_effect(frame["y"], decision, sensitive_features=frame["sex"], reference="M")
    assert found["effects"]["sex"]["F"]["direct_effect"]["value"] == pytest.approx(expected["F"])


def test_the_page_is_written(run, path, tmp_path):
    status, out, _ = run(path, "--compare", "fair", "--out", tmp_path / "pages" / "r.html")
    assert status == 0
    assert "r.html" in out.replace("\n", "")
    assert "<html" in (tmp_path / "pages" / "r.html").read_text(encoding="utf-8")
    result = auditing.audit([0, 1] * 40, np.linspace(0, 1, 80), sensitive_features=["a", "b", "b", "a"] * 20)
    assert "<html" in result.to_html(title="A title of mine")
    assert "A title of mine" in result.to_html(title="A title of mine")


def test_a_suppressed_audit_tells_no_count_of_rows(run, path, frame, tmp_path):
    frame["race"] = frame["race"].where(frame["patient"] > 3, "rare")
    frame["y"] = frame["y"].astype(object).where(frame["image"] != "i7", None)
    frame.to_csv(path, index=False)
    written = ["--json", tmp_path / "a.json", "--out", tmp_path / "a.html"]
    more = ["--group", "race", "--patient", "patient", "--compare", "fair", "--suppress", "5"]
    status, out, _ = run(path, *more, *written)
    assert status == 0
    texts = [out, *(file.read_text(encoding="utf-8") for file in (written[1], written[3]))]
    assert not any("1 of 300" in text for text in texts)
    found = read_json(tmp_path / "a.json")
    notes = " ".join(note["text"] for note in found["notes"])
    assert "Some rows have no label in y and are left out." in notes
    assert "rare" not in found["attributes"]["race"]["groups"]
    assert [set(parts) for parts in found["withheld"]["joined"]["race"].values()] in (
        [{"rare", "A"}],
        [{"rare", "B"}],
    ) or "race" in found["withheld"]["attributes"]
    assert run(path, "--suppress", "1")[0] == 2


def test_the_summary_is_the_same_from_the_json(run, path, tmp_path, monkeypatch):
    at_once, later, figures = tmp_path / "s.html", tmp_path / "later.html", tmp_path / "a.json"
    assert run(path, "--summary", at_once, "--json", figures)[0] == 0
    monkeypatch.setattr(sys, "argv", ["fairdx", "summary", str(figures), "--out", str(later)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    assert later.read_text(encoding="utf-8") == at_once.read_text(encoding="utf-8")
    assert run(path, "--summary", figures, "--json", figures)[0] == 2


def test_checklists_are_filled_from_the_json(run, path, tmp_path, monkeypatch, capsys):
    run(path, "--json", tmp_path / "a.json")
    for arguments, status in (
        (["--out", str(tmp_path / "c.md")], 0),
        (["--form", "stard"], 2),
    ):
        monkeypatch.setattr(sys, "argv", ["fairdx", "checklist", str(tmp_path / "a.json"), *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == status
    assert "there is stard-ai, tripod-ai, claim" in capsys.readouterr().err
    text = (tmp_path / "c.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("# ")] == [
        "# STARD-AI (2025)",
        "# TRIPOD+AI (2024)",
        "# CLAIM, 2024 update",
    ]


def test_where_keeps_rows_and_says_how_many(run, path, frame, tmp_path):
    _, out, _ = run(path, "--where", "split=test", "--where", "race=A", "--json", tmp_path / "a.json")
    kept = int(((frame["split"] == "test") & (frame["race"] == "A")).sum())
    assert f"{kept} of 300 rows have split = test and race = A" in out.replace("\n", " ")
    found = read_json(tmp_path / "a.json")
    assert found["n_images"] == kept
    assert any("split = test" in note["text"] for note in found["notes"])


def test_a_second_column_and_a_second_file_compare_alike(run, path, frame, tmp_path):
    other = tmp_path / "after.csv"
    shuffled = frame.assign(p=frame["fair"])[["image", "p", "y"]].sample(frac=1, random_state=0)
    extra = pd.DataFrame({"image": ["more"], "p": [2.0], "y": [1]})  # not audited, so not looked at
    pd.concat([shuffled, extra]).to_csv(other, index=False)
    _, out, _ = run(path, "--compare", "fair", "--json", tmp_path / "a.json")
    assert "before" in out
    _, out, _ = run(path, "--compare", other, "--id", "image", "--json", tmp_path / "b.json")
    one, two = read_json(tmp_path / "a.json"), read_json(tmp_path / "b.json")
    assert one["comparison"] == two["comparison"]
    assert set(one["comparison"]) == {"overall", "sex"}
    assert "1 rows of" in out
    auc = one["comparison"]["overall"]["auroc"]
    assert auc["after"] == pytest.approx(metrics.auroc(frame["y"], frame["fair"]))


def test_second_files_that_do_not_fit(run, path, frame, tmp_path):
    other = tmp_path / "after.csv"
    for table, told in (
        (frame[:200], "lacks 100 of the 300 images"),
        (frame.assign(y=1 - frame["y"]), "'y' differs from that of"),
        (frame.assign(image="x"), "repeats identifiers in 299 rows"),
        (frame.drop(columns="p"), "no column 'p'"),
        (frame.assign(p=[0.5] * 299 + [np.nan]), "no finite score in 1 row (first: row 301)"),
    ):
        table.to_csv(other, index=False)
        status, _, err = run(path, "--compare", other, "--id", "image")
        assert (status, told in err) == (2, True), err
    assert "name the column" in run(path, "--compare", other)[2]
    assert "there is no such file" in run(path, "--compare", "quux")[2]


def test_several_classes(run, frame, tmp_path):
    rng, classes = np.random.default_rng(0), ["benign", "malignant", "other"]
    frame["kind"] = rng.choice(classes, len(frame))
    frame[["p_other", "p_benign", "third"]] = rng.dirichlet([1, 1, 1], len(frame))
    frame.to_csv(tmp_path / "p.csv", index=False)
    scores = ["--score", "p_benign", "--score", "malignant=third"]
    status, out, _ = run(
        tmp_path / "p.csv", *scores, "--json", tmp_path / "a.json", label="kind", score="p_other"
    )
    found = read_json(tmp_path / "a.json")
    assert (status, found["task"], found["classes"]) == (0, "multiclass", classes)
    jsonschema.validate(found, json_schema())
    expected = metrics.auroc(frame["kind"] == "malignant", frame["third"])
    assert found["per_label"]["malignant"]["overall"]["auroc"]["value"] == pytest.approx(expected)
    assert "benign: " in out
    gate = ["--fail-if", "auc<0.99", "--fail-if", "adf>9", "--fail-if", "abs(de)>0.999"]
    status, _, err = run(tmp_path / "p.csv", *scores, *gate, label="kind", score="p_other")
    assert status == 3
    assert "auroc of sex F (malignant)" in err
    assert "adf>9" not in err
    assert "abs(de)" not in err
    _, _, err = run(tmp_path / "p.csv", "--score", "p_benign", label="kind", score="p_other")
    assert "has 3 classes (benign, malignant, other) but 2 scores" in err
    _, _, err = run(
        tmp_path / "p.csv", "--score", "p_benign", "--score", "third", label="kind", score="p_other"
    )
    assert "Say so as malignant=COLUMN" in err


def test_several_findings(run, frame, tmp_path):
    frame = frame.assign(edema=frame["y"], nodule=1 - frame["y"])
    frame.to_csv(tmp_path / "p.csv", index=False)
    more = ["--label", "nodule", "--score", "fair"]
    status, *_ = run(tmp_path / "p.csv", *more, "--json", tmp_path / "a.json", label="edema")
    found = read_json(tmp_path / "a.json")
    assert (status, found["task"], list(found["per_label"])) == (0, "multilabel", ["edema", "nodule"])
    _, _, err = run(tmp_path / "p.csv", "--label", "nodule", label="edema")
    assert "2 labels but 1 scores" in err


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


def test_an_output_that_cannot_be_written(run, path, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = run(path, "--json", tmp_path / "file" / "a.json")
    assert status == 2
    assert err.startswith("fairdx: cannot write")


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


def test_the_guide_says_what_its_commands_print(tmp_path, monkeypatch, capsys):
    guide = (Path(__file__).parents[2] / "docs" / "how-to" / "audit.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", guide, re.DOTALL).group(1)
    exec(compile(code, "example.py", "exec"), {})
    command = re.search(r"```shell\nfairdx (audit predictions.csv .*?)\n```", guide, re.DOTALL).group(1)
    gate = re.findall(r'--fail-if "(.*?)"', guide)
    conditions = [part for condition in gate for part in ("--fail-if", condition)]
    monkeypatch.setattr(sys, "argv", ["fairdx", *command.replace("\\\n", " ").split(), *conditions])
    with pytest.raises(SystemExit, match="3"):
        cli.main()
    told = capsys.readouterr()
    printed = " ".join(told.out.split())
    quoted = " ".join(line[1:].strip() for line in guide.splitlines() if line.startswith(">"))
    sentences = re.split(r"(?<=\.) (?=[a-z]+: )", " ".join(quoted.split()))
    assert len(sentences) == 4
    for sentence in sentences:
        assert sentence in printed
    failure = re.search(r"```\n(adf>.*?)\n```", guide).group(1)
    assert failure in told.err
    assert (tmp_path / "report.html").stat().st_size < 5_000_000


def words(out):
    return " ".join(out.split())


def test_the_first_line_says_who_is_positive(run, frame, tmp_path):
    path, page = tmp_path / "p.csv", tmp_path / "r.html"
    frame.assign(y=np.where(frame["y"] == 1, "diseased", "healthy")).to_csv(path, index=False)
    _, out, _ = run(path, "--patient", "patient", "--out", page)
    area = metrics.auroc(frame["y"], frame["p"])
    assert area > 0.9
    first = "Positive is 'diseased', negative is 'healthy'. 300 images of 150 patients"
    assert words(out).startswith(f"{first}, {frame['y'].mean():.1%} positive. AUC {area:.3f} (95% interval")
    shown = page.read_text(encoding="utf-8")
    assert first in shown.replace("&#39;", "'")
    assert f"sex: F {(frame['sex'] == 'F').sum()}, M" in shown
    sums = [
        f"{v:.3f}" for v in (frame["y"][frame["sex"] == "F"].mean(), frame["y"][frame["sex"] == "M"].mean())
    ]
    assert all(value in out for value in sums)  # rates by group, not gaps alone


def test_a_score_against_the_label_gets_a_caution(run, path):
    _, out, _ = run(path, "--positive", "0")
    assert "Positive is '0', negative is '1'" in words(out)
    assert "below 0.5: the score is lower for '0' than for '1'" in words(out)
    assert "below 0.5" not in run(path)[1]
    assert run(path, "--positive", "2")[2].startswith("fairdx: the positive class '2' is no value of")


def test_outputs_overwrite_neither_inputs_nor_each_other(run, path, frame, tmp_path):
    before = path.read_bytes()
    other = tmp_path / "q.csv"
    frame.to_csv(other, index=False)
    (tmp_path / "hard.csv").hardlink_to(path)
    (tmp_path / "soft.csv").symlink_to(path)
    for arguments, told in (
        (["--json", path], "would overwrite what is read"),
        (["--out", tmp_path / "." / "p.csv"], "would overwrite what is read"),
        (["--out", tmp_path / "hard.csv"], "would overwrite what is read"),
        (["--json", tmp_path / "soft.csv"], "would overwrite what is read"),
        (["--compare", other, "--id", "image", "--json", other], "would overwrite what is read"),
        (["--json", tmp_path / "a", "--out", tmp_path / "a"], "would both write to"),
        (["--json", tmp_path / "a", "--out", tmp_path / "b" / ".." / "a"], "would both write to"),
        (["--json", "-", "--out", "-"], "would both write to -"),
        (["--json", tmp_path], "it is a folder"),
    ):
        status, out, err = run(path, *arguments)
        assert (status, out, told in err) == (2, "", True), err
    assert path.read_bytes() == before
    assert pd.read_csv(other).equals(pd.read_csv(path))
    device = Path("/dev/null")
    assert run(path, "--json", device)[0] == 0
    assert device.is_char_device()


def test_standard_input_and_output(run, path, monkeypatch):
    for stream in ("--json", "--out"):
        with path.open("rb") as content:
            monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": content}))
            status, out, err = run("-", stream, "-")
        assert status == 0
        assert "Positive is '1'" in err
        if stream == "--json":
            assert json.loads(out)["n_images"] == 300
        else:
            assert out.startswith("<!doctype html>")


def test_quiet_prints_only_what_failed(run, path):
    assert run(path, "--quiet") == (0, "", "")
    status, out, err = run(path, "--quiet", "--fail-if", "auc<0.999")
    assert (status, out) == (3, "")
    assert err.startswith("auc<0.999: ")


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


def test_findings_with_labels_of_their_own(run, frame, tmp_path):
    path = tmp_path / "p.csv"
    frame["edema"] = np.where(np.arange(300) % 10 == 0, -1, frame["y"]).astype(object)
    frame["nodule"] = (1 - frame["y"]).astype(object)
    frame.loc[:49, "nodule"] = None
    frame["p_edema"], frame["p_nodule"] = frame["p"], 1 - frame["p"]
    frame.to_csv(path, index=False)
    more = ["--label", "nodule", "--score", "p_edema", "--json", tmp_path / "a.json"]
    status, out, _ = run(path, *more, label="edema", score="p_nodule")  # scores in another order than labels
    assert status == 0
    found = read_json(tmp_path / "a.json")["per_label"]
    known = frame["edema"] != -1
    expected = metrics.auroc(frame["edema"][known].astype(int), frame["p"][known])
    assert found["edema"]["n_images"] == 270
    assert found["edema"]["overall"]["auroc"]["value"] == pytest.approx(expected)
    assert found["nodule"]["n_images"] == 250
    assert "30 of 300 rows have an uncertain label (-1) in edema and are left out" in words(out)
    assert "50 of 300 rows have no label in nodule and are left out" in words(out)


def test_no_intersections(run, path, tmp_path):
    run(path, "--group", "race", "--no-intersections", "--json", tmp_path / "a.json")
    assert list(read_json(tmp_path / "a.json")["attributes"]) == ["sex", "race"]


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
