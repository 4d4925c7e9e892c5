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
from audit_table import QUICK, read_json, words

from fairdx import auditing, cli, metrics
from fairdx.auditing import json_schema


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


def test_an_output_that_cannot_be_written(run, path, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = run(path, "--json", tmp_path / "file" / "a.json")
    assert status == 2
    assert err.startswith("fairdx: cannot write")


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
