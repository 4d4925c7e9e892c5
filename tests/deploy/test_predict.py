"""Scores of files: each checked against the brightness that was written into it."""

import csv
import json
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scored import ONE, errors_of, names_in, table_of

from fairdx.auditing.predictions import read_predictions
from fairdx.core.errors import InputError
from fairdx.data.decode import Form, decode_file
from fairdx.deploy import onnx_model
from fairdx.deploy.predict import PredictOptions, predict
from fairdx.models.card import ImageCard, Range, RuleCard


def test_a_row_for_each_file(tmp_path, model, write_grey, write_dicom):
    values = {"a.png": 0, "b/c.png": 51, "b/d.png": 127, "z.png": 128, "z2.png": 255}
    for name, value in values.items():
        write_grey(tmp_path / "in" / name, value)
    write_dicom(tmp_path / "in" / "scan", 204)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    outcome = predict(model, [str(tmp_path / "in")], tmp_path / "scores.csv", ONE)
    table = table_of(tmp_path / "scores.csv").set_index("path")
    expected = {**values, "scan": 204}
    assert set(table.index) == {str(tmp_path / "in" / name) for name in expected}
    for name, value in expected.items():
        row = table.loc[str(tmp_path / "in" / name)]
        assert row["score"] == pytest.approx(value / 255, abs=2e-6)
        assert row["mask_change"] == pytest.approx(value / 2550, abs=2e-6)
        assert row["decision"] == (value > 127)
        assert row["threshold"] == 0.5
    assert table.loc[str(tmp_path / "in" / "scan"), "SOPInstanceUID"] == "1.2.3.4"
    assert table.loc[str(tmp_path / "in" / "a.png"), "SOPInstanceUID"] == ""
    assert (outcome.record.scored, outcome.record.broken, outcome.inputs.passed_over) == (6, 0, 1)
    assert names_in(tmp_path) == ["in", "model", "scores.csv", "scores.csv.errors.csv", "scores.csv.json"]


def test_decisions_agree_with_the_printed_scores(tmp_path, write_model, write_grey):
    folder, _ = write_model(tmp_path / "model", threshold=float(np.float32(100 / 255)))
    for value in range(95, 106):
        write_grey(tmp_path / "in" / f"{value:03}.png", value)
    predict(folder, [str(tmp_path / "in")], tmp_path / "scores.csv", ONE)
    table = table_of(tmp_path / "scores.csv")
    assert (table["decision"] == (table["score"] >= table["threshold"])).all()
    assert 0 < table["decision"].sum() < len(table)


def test_files_are_decoded_as_prepare_does(tmp_path, write_model):
    folder, card = write_model(tmp_path / "model", channels=3, size=32)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8)).save(tmp_path / "photo.jpg")
    Image.fromarray(rng.integers(0, 65536, (50, 70), np.uint16)).save(tmp_path / "deep.png")
    files = [tmp_path / "photo.jpg", tmp_path / "deep.png"]
    predict(folder, [str(file) for file in files], tmp_path / "scores.csv", ONE)
    form = Form(size=32, channels=3, geometry=card.image.geometry)
    expected = [decode_file(file, form).mean() / 255 for file in files]
    assert table_of(tmp_path / "scores.csv")["score"].tolist() == pytest.approx(expected, abs=2e-6)


def test_tiff_webp_and_a_slice_of_a_volume(tmp_path, write_model):
    nibabel = pytest.importorskip("nibabel", reason="the extra `nifti` is not installed")
    image = ImageCard(size=16, channels=1, geometry="stretch", window=(50, 100), frame=2)
    folder, _ = write_model(tmp_path / "model", image=image)
    files = tmp_path / "in"
    files.mkdir()
    Image.fromarray(np.full((20, 20), 51, np.uint8)).save(files / "a.tiff")
    Image.fromarray(np.full((20, 20), 102, np.uint8)).save(files / "b.webp", lossless=True)
    volume = np.stack([np.full((20, 20), value, np.float32) for value in (0, 80, 100)], axis=2)
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(files / "c.nii.gz")
    outcome = predict(folder, [str(files)], tmp_path / "scores.csv", ONE)
    assert outcome.inputs.passed_over == 0
    assert table_of(tmp_path / "scores.csv")["score"].tolist() == pytest.approx([0.2, 0.4, 0.8], abs=3e-3)


def test_what_is_odd_in_a_file_is_noted(tmp_path, model, write_model, write_grey):
    write_grey(tmp_path / "in" / "a.png", 51)
    odd = tmp_path / "in" / "b.jpg"
    Image.fromarray(np.full((20, 20), 102, np.uint8)).save(odd)
    data = odd.read_bytes()
    odd.write_bytes(data[:-2] + bytes(7) + data[-2:])  # behind the last pixel, before the end
    assert predict(model, [str(tmp_path / "in")], tmp_path / "strict.csv", ONE).record.broken == 1
    folder, _ = write_model(
        tmp_path / "lenient", image=ImageCard(size=16, channels=1, geometry="stretch", lenient=True)
    )
    outcome = predict(folder, [str(tmp_path / "in")], tmp_path / "scores.csv", ONE)
    assert (outcome.record.broken, outcome.record.noted) == (0, 1)
    notes = table_of(tmp_path / "scores.csv")["note"].tolist()
    assert notes[0] == ""
    assert notes[1].startswith("has odd bytes behind its last pixel")


def test_broken_files_are_listed_and_the_others_scored(tmp_path, model, write_grey, write_dicom):
    for number in range(40):
        write_grey(tmp_path / "in" / f"{number:02}.png", number)
    (tmp_path / "in" / "07.png").write_bytes(b"")
    (tmp_path / "in" / "21.png").write_bytes((tmp_path / "in" / "20.png").read_bytes()[:-20])
    (tmp_path / "in" / "39.png").write_text("words")
    whole = write_dicom(tmp_path / "in" / "x.dcm", 3).read_bytes()
    (tmp_path / "in" / "y.dcm").write_bytes(whole[:-100])
    outcome = predict(model, [str(tmp_path / "in")], tmp_path / "scores.csv", PredictOptions(workers=2))
    table, errors = table_of(tmp_path / "scores.csv"), errors_of(tmp_path / "scores.csv")
    broken = [str(tmp_path / "in" / name) for name in ("07.png", "21.png", "39.png", "y.dcm")]
    assert errors["path"].tolist() == broken
    assert errors["reason"].str.len().min() > 5
    assert "empty" in errors["reason"][0]
    assert not set(broken) & set(table["path"])
    good = [n for n in range(40) if n not in (7, 21, 39)] + [3]
    assert table["score"].tolist() == pytest.approx([n / 255 for n in good], abs=2e-6)
    assert (outcome.record.scored, outcome.record.broken) == (38, 4)


def test_no_identity_of_a_patient_unless_asked(tmp_path, model, write_dicom):
    write_dicom(tmp_path / "in" / "a.dcm", 100)
    predict(model, [str(tmp_path / "in")], tmp_path / "scores.csv", ONE)
    written = b"".join(file.read_bytes() for file in tmp_path.glob("scores.csv*"))
    for secret in (b"patient-17", b"ller", b"1960", b"2020", b"A1,", b"S1,"):
        assert secret not in written
    predict(model, [str(tmp_path / "in")], tmp_path / "kept.csv", PredictOptions(keep_patient_id=True))
    table = table_of(tmp_path / "kept.csv")
    assert table["patient"].tolist() == ["patient-17"]
    assert b"1960" not in (tmp_path / "kept.csv").read_bytes()


def test_more_than_two_classes(tmp_path, write_model, write_grey):
    folder, _ = write_model(tmp_path / "model", classes=("a", "b", "c"))
    write_grey(tmp_path / "x.png", 102)
    predict(folder, [str(tmp_path / "x.png")], tmp_path / "scores.csv", ONE)
    row = table_of(tmp_path / "scores.csv").iloc[0]
    logit = 0.4 * np.arange(1, 4)
    expected = np.exp(logit) / np.exp(logit).sum()
    assert row[["score_a", "score_b", "score_c"]].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert (row["decision"], row["threshold"]) == (2, "")


def test_a_rule_without_group(tmp_path, write_model, write_grey):
    rule = RuleCard(needs_group=False, score=(0.0, 0.2, 1.0), changed={"everybody": (0.0, 0.6, 1.0)})
    folder, _ = write_model(tmp_path / "model", rule=rule)
    for value in (0, 25, 51, 153):
        write_grey(tmp_path / "in" / f"{value:03}.png", value)
    predict(folder, [str(tmp_path / "in")], tmp_path / "scores.csv", ONE)
    table = table_of(tmp_path / "scores.csv")
    # 25/255 is halfway up the first piece less a little; 153/255 = 0.6 is halfway up the second.
    assert table["score"].tolist() == pytest.approx([0, 0.6 * 25 / 51, 0.6, 0.8], abs=1e-6)
    assert table["decision"].tolist() == [0, 0, 1, 1]


RULE = RuleCard(
    needs_group=True, score=(0.0, 1.0), changed={"male": (0.0, 1.0), "female": (0.5, 1.0)}
)  # women: 0.5 + p / 2


def test_a_rule_that_takes_the_group_from_a_table(tmp_path, write_model, write_grey):
    folder, _ = write_model(tmp_path / "model", rule=RULE, attribute="race", needs_group=True)
    for name in ("a.png", "b.png", "c.png"):
        write_grey(tmp_path / "in" / name, 51)
    (tmp_path / "groups.csv").write_text(f"path,group\na.png,female\n{tmp_path / 'in' / 'b.png'},male\n")
    options = PredictOptions(groups=tmp_path / "groups.csv")
    predict(folder, [str(tmp_path / "in")], tmp_path / "scores.csv", options)
    table = table_of(tmp_path / "scores.csv")
    assert table["group"].tolist() == ["female", "male"]
    assert table["score"].tolist() == pytest.approx([0.6, 0.2], abs=1e-6)
    assert errors_of(tmp_path / "scores.csv")["path"].tolist() == [str(tmp_path / "in" / "c.png")]
    assert "no group" in errors_of(tmp_path / "scores.csv")["reason"][0]


def test_a_rule_that_takes_the_sex_from_the_header(tmp_path, write_model, write_dicom, write_grey):
    folder, _ = write_model(tmp_path / "model", rule=RULE, needs_group=True)
    for name, sex in (("a", "F"), ("b", "M"), ("c", "O"), ("d", None)):
        write_dicom(tmp_path / "in" / f"{name}.dcm", 51, PatientSex=sex)
    write_grey(tmp_path / "in" / "e.png", 51)
    predict(folder, [str(tmp_path / "in")], tmp_path / "scores.csv", ONE)
    table = table_of(tmp_path / "scores.csv")
    assert table["group"].tolist() == ["female", "male"]
    assert table["score"].tolist() == pytest.approx([0.6, 0.2], abs=1e-6)
    assert len(errors_of(tmp_path / "scores.csv")) == 3


def test_a_rule_that_takes_the_age_from_the_header(tmp_path, write_model, write_dicom):
    rule = RuleCard(
        needs_group=True,
        score=(0.0, 1.0),
        changed={"under 60": (0.0, 1.0), "60 and over": (0.5, 1.0)},
    )
    folder, _ = write_model(tmp_path / "model", rule=rule, attribute="age_group", needs_group=True)
    write_dicom(tmp_path / "in" / "a.dcm", 51, PatientAge="059Y")
    write_dicom(tmp_path / "in" / "b.dcm", 51, PatientAge="060Y")
    write_dicom(tmp_path / "in" / "c.dcm", 51)  # a day short of 60 at the study
    write_dicom(tmp_path / "in" / "d.dcm", 51, StudyDate="20200301")
    write_dicom(tmp_path / "in" / "e.dcm", 51, PatientAge="018M", PatientBirthDate=None)
    predict(folder, [str(tmp_path / "in")], tmp_path / "scores.csv", ONE)
    groups = table_of(tmp_path / "scores.csv")["group"].tolist()
    assert groups == ["under 60", "60 and over", "under 60", "60 and over", "under 60"]


def test_a_group_that_nobody_tells(tmp_path, write_model, write_grey):
    folder, _ = write_model(tmp_path / "model", rule=RULE, attribute="race", needs_group=True)
    file = write_grey(tmp_path / "a.png", 1)
    with pytest.raises(InputError, match=r"has to be told race .*--groups"):
        predict(folder, [str(file)], tmp_path / "scores.csv", ONE)


def test_a_name_that_two_files_have_names_no_file(tmp_path, write_model, write_grey):
    folder, _ = write_model(tmp_path / "model", rule=RULE, needs_group=True)
    for name in ("x/a.png", "y/a.png"):
        write_grey(tmp_path / "in" / name, 51)
    (tmp_path / "groups.csv").write_text("path,group\na.png,female\n")
    options = PredictOptions(groups=tmp_path / "groups.csv")
    with pytest.raises(InputError, match=r"2 of the files have that name"):
        predict(folder, [str(tmp_path / "in")], tmp_path / "scores.csv", options)


def test_cautions(tmp_path, write_model, write_grey):
    familiar = {
        "mean": Range(low=0.2, high=0.6),
        "spread": Range(low=0.0, high=0.3),
        "change": Range(low=0.0, high=0.06),
    }
    folder, _ = write_model(tmp_path / "model", familiar=familiar)
    write_grey(tmp_path / "in" / "a.png", 25)
    write_grey(tmp_path / "in" / "b.png", 100)
    write_grey(tmp_path / "in" / "c.png", 200)
    Image.fromarray(np.tile(np.array([0, 255], np.uint8), (16, 8))).save(tmp_path / "in" / "d.png")
    outcome = predict(folder, [str(tmp_path / "in")], tmp_path / "scores.csv", ONE)
    table = table_of(tmp_path / "scores.csv")
    assert table["caution"].tolist() == ["darker", "", "brighter; larger mask", "more contrast"]
    assert outcome.record.cautions == {
        "any": 3, "brighter": 1, "darker": 1, "larger mask": 1, "more contrast": 1
    }  # fmt: skip


def test_lists_and_files_given_twice(tmp_path, model, write_grey):
    a, b = write_grey(tmp_path / "in" / "a.png", 1), write_grey(tmp_path / "b, with comma.png", 2)
    listing = tmp_path / "list.txt"
    listing.write_bytes(f"{b}\r\n\n{tmp_path / 'gone.png'}\n{a}\n".encode())
    outcome = predict(model, [str(tmp_path / "in")], tmp_path / "scores.csv", ONE, listing=listing)
    assert table_of(tmp_path / "scores.csv")["path"].tolist() == [str(a), str(b)]
    assert errors_of(tmp_path / "scores.csv").values.tolist() == [
        [str(tmp_path / "gone.png"), "does not exist"]
    ]
    assert outcome.inputs.repeated == 1


def test_names_that_are_no_text(tmp_path, model, write_grey):
    try:
        write_grey(tmp_path / "in" / os.fsdecode(b"a\xff.png"), 51)
    except OSError:
        pytest.skip("this file system takes only text as names")
    predict(model, [str(tmp_path / "in")], tmp_path / "scores.csv", ONE)
    table = table_of(tmp_path / "scores.csv")
    assert table["path"].tolist() == [str(tmp_path / "in" / "a\\udcff.png")]


def test_links_in_a_circle(tmp_path, model, write_grey):
    write_grey(tmp_path / "in" / "deep" / "a.png", 51)
    (tmp_path / "in" / "deep" / "up").symlink_to(tmp_path / "in")
    assert predict(model, [str(tmp_path / "in")], tmp_path / "scores.csv", ONE).record.scored == 1


def test_a_pipe_is_no_image_and_nobody_waits_for_it(tmp_path, model, write_grey):
    write_grey(tmp_path / "in" / "a.png", 51)
    os.mkfifo(tmp_path / "in" / "b.png")
    os.mkfifo(tmp_path / "in" / "pipe")
    outcome = predict(model, [str(tmp_path / "in")], tmp_path / "scores.csv", ONE)
    assert (outcome.record.scored, outcome.inputs.passed_over) == (1, 1)
    assert "is not a file" in errors_of(tmp_path / "scores.csv")["reason"][0]


def test_a_score_does_not_depend_on_what_stands_beside_it(tmp_path, model, write_grey):
    files = [write_grey(tmp_path / "in" / f"{n:02}.png", 3 * n) for n in range(37)]
    predict(model, [str(file) for file in files], tmp_path / "all.csv", ONE)
    alone = []
    for n in (0, 17, 36):
        predict(model, [str(files[n])], tmp_path / f"{n}.csv", ONE)
        alone += (tmp_path / f"{n}.csv").read_text().splitlines()[1:]
    together = (tmp_path / "all.csv").read_text().splitlines()
    assert alone == [together[n + 1] for n in (0, 17, 36)]


def test_images_of_which_the_model_gives_no_number(tmp_path, write_model, write_grey, graph):
    from onnx import helper

    made = graph(2, 1, 16)
    made.graph.node[0].output[0] = "plain"  # log(m) / log(m) is no number where m is 0
    made.graph.node.insert(1, helper.make_node("Log", ["plain"], ["log"]))
    made.graph.node.insert(2, helper.make_node("Div", ["log", "log"], ["ones"]))
    made.graph.node.insert(3, helper.make_node("Mul", ["plain", "ones"], ["mean"]))
    folder, _ = write_model(tmp_path / "model", made=made)
    black, grey = write_grey(tmp_path / "black.png", 0), write_grey(tmp_path / "grey.png", 51)
    predict(folder, [str(black), str(grey)], tmp_path / "scores.csv", ONE)
    assert table_of(tmp_path / "scores.csv")["path"].tolist() == [str(grey)]
    assert "no number" in errors_of(tmp_path / "scores.csv")["reason"][0]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"other"), "hash differs"),
        (lambda folder: (folder / "model.onnx").unlink(), "is missing"),
        (lambda folder: (folder / "card.json").unlink(), "holds no model"),
        (
            lambda folder: (folder / "card.json").write_text(
                json.dumps(json.loads((folder / "card.json").read_text()) | {"threshold": 0.1})
            ),
            "was edited",
        ),
    ],
)
def test_spoilt_model_folders(tmp_path, model, write_grey, spoil, words):
    file = write_grey(tmp_path / "a.png", 1)
    spoil(model)
    with pytest.raises(InputError, match=words):
        predict(model, [str(file)], tmp_path / "scores.csv", ONE)
    assert not (tmp_path / "scores.csv").exists()


def test_models_that_are_not_exported_or_are_something_else(tmp_path, write_model, write_grey, graph):
    file = write_grey(tmp_path / "a.png", 1)
    bare, _ = write_model(tmp_path / "bare", exports={})
    three, _ = write_model(tmp_path / "three", made=graph(3, 1, 16))
    renamed = graph(2, 1, 16)
    renamed.graph.input[0].name = renamed.graph.node[0].input[0] = "pixels"
    strange, _ = write_model(tmp_path / "strange", made=renamed)
    for folder, words in (
        (bare, "fairdx export"),
        (three, "outputs of shape"),
        (strange, "takes pixels and gives"),
    ):
        with pytest.raises(InputError, match=words):
            predict(folder, [str(file)], tmp_path / "scores.csv", ONE)


def test_the_folder_of_a_run_will_do(tmp_path, write_model, write_grey):
    write_model(tmp_path / "run" / "model")
    file = write_grey(tmp_path / "a.png", 51)
    assert predict(tmp_path / "run", [str(file)], tmp_path / "scores.csv", ONE).record.scored == 1


def test_the_audit_reads_what_predict_writes(tmp_path, model, write_grey, fairdx):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, 120)
    for number, value in enumerate(values):
        write_grey(tmp_path / "in" / f"{number:03}.png", value)
    predict(model, [str(tmp_path / "in")], tmp_path / "scores.csv", ONE)
    truth = pd.DataFrame({
        "path": [str(tmp_path / "in" / f"{n:03}.png") for n in range(120)],
        "y": (values + rng.normal(0, 60, 120) > 128).astype(int),
        "sex": rng.choice(["F", "M"], 120),
    })  # fmt: skip
    merged = pd.read_csv(tmp_path / "scores.csv").merge(truth, on="path")
    merged.to_csv(tmp_path / "merged.csv", index=False)
    read = read_predictions(
        tmp_path / "merged.csv", label="y", score="score", groups="sex", identifier="path"
    )
    assert read.y_score.tolist() == pytest.approx((values / 255).tolist(), abs=2e-6)
    done = fairdx(
        "audit", tmp_path / "merged.csv", "--label", "y", "--score", "score", "--group", "sex",
        "--id", "path", "--threshold", 0.5, "--replicates", 50, "--json", tmp_path / "audit.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "audit.json").read_text())


def test_the_table_is_plain_csv(tmp_path, model, write_grey):
    file = write_grey(tmp_path / 'quo"te\nnewline.png', 51)
    predict(model, [str(file)], tmp_path / "scores.csv", ONE)
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert [row["path"] for row in rows] == [str(file)]


def test_brightness_as_on_the_card():
    torch = pytest.importorskip("torch", reason="the extra `train` is not installed")
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16)).astype(np.uint8)
    measured = onnx_model.brightness(images)
    pixels = torch.from_numpy(images).double().flatten(1) / 255  # as `fairdx.runs.card` measures them
    assert measured["mean"] == pytest.approx(pixels.mean(1).numpy(), abs=1e-12)
    assert measured["spread"] == pytest.approx(pixels.std(1).numpy(), abs=1e-12)
