import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from pictures import OPTIONS, contents, pictures, source, spoil
from PIL import Image

from fairdx.core.errors import InputError
from fairdx.data.base import PreparedDataset
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.source import Source, exclude


def test_rows_and_images_belong_together(root, tmp_path):
    left_out = exclude(pd.Series(["x", "z"]), "lateral view")
    dataset = prepare(source(root, exclusions=left_out), tmp_path / "out", OPTIONS)
    for row, image in enumerate(dataset.table["image"]):
        assert (dataset.images[row, 0] == np.asarray(Image.open(root / "images" / f"{image}.png"))).all()
    meta = dataset.meta
    assert (
        meta.counts["images"] == 60 == meta.counts["train"] + meta.counts["validation"] + meta.counts["test"]
    )
    assert meta.counts["patients"] == 30
    assert meta.policies == {
        "view": "frontal",
        "split": "by patient",
        "test": 0.1,
        "validation": 0.1,
        "geometry": "pad",
        "bits": 16,
        "window": None,
        "frame": None,
        "lenient": False,
    }
    assert meta.exclusions == {"lateral view": 2}
    assert dataset.table.groupby("patient")["split"].nunique().max() == 1
    assert "path" not in dataset.table
    assert dataset.table["age"].tolist() == [1.5 * i for i in range(60)]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        ".lock",
        "exclusions.csv",
        "images.npy",
        "meta.json",
        "table.parquet",
    ]


def test_processes_do_not_change_the_result(root, tmp_path, monkeypatch):
    monkeypatch.setattr("fairdx.data.prepare._BLOCK_ROWS", 4)
    one = prepare(source(root), tmp_path / "one", OPTIONS)
    two = prepare(source(root), tmp_path / "two", PrepareOptions(size=16, workers=2))
    assert one.meta.hash == two.meta.hash
    assert contents(one.root) == contents(two.root)


def test_the_same_command_opens_and_another_refuses(root, tmp_path):
    first = prepare(source(root), tmp_path / "out", OPTIONS)
    (root / "images" / "0000.png").unlink()  # nothing is decoded again
    assert prepare(source(root), tmp_path / "out", OPTIONS).meta == first.meta
    with pytest.raises(InputError, match="already holds a prepared data set made from another source"):
        prepare(source(root), tmp_path / "out", PrepareOptions(size=16, seed=1))


def test_hash_follows_pixels_and_table(root, tmp_path):
    hashes = {prepare(source(root), tmp_path / "a", OPTIONS).meta.hash}
    changed = source(root)
    changed.table.loc[3, "age"] += 1
    hashes.add(prepare(changed, tmp_path / "b", OPTIONS).meta.hash)
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(root / "images" / "0007.png")
    hashes.add(prepare(source(root), tmp_path / "c", OPTIONS).meta.hash)
    assert len(hashes) == 3


def test_supplied_split_is_kept_and_validation_cut(root, tmp_path):
    table = source(root).table.assign(split=["train"] * 40 + ["test"] * 20)
    dataset = prepare(source(root, table=table), tmp_path / "out", PrepareOptions(size=16, validation=0.3))
    split = dataset.table["split"]
    assert (split[40:] == "test").all()
    assert set(split[:40]) == {"train", "validation"}
    assert dataset.meta.policies["split"] == "supplied"
    table.loc[39, "split"] = "validation"
    with pytest.raises(InputError, match="patient 'p19' is in the splits 'train' and 'validation'"):
        prepare(source(root, table=table), tmp_path / "leak", OPTIONS)


def test_stop_names_the_file_and_skip_lists_it(root, tmp_path):
    spoil(root)
    with pytest.raises(InputError, match=r"images/0033\.png does not exist .with on-error skip"):
        prepare(source(root), tmp_path / "out", OPTIONS)
    pictures(root, 60)
    spoil(root)
    (root / "images" / "0033.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"images/0005\.png is empty \(0 bytes\) .with on-error skip"):
        prepare(source(root), tmp_path / "out", OPTIONS)
    # The same output goes on with the decision to skip.
    dataset = prepare(source(root), tmp_path / "out", PrepareOptions(size=16, workers=1, on_error="skip"))
    assert len(dataset) == 57
    assert not {"0005", "0017", "0033"} & set(dataset.table["image"])
    assert dataset.meta.exclusions == {
        "file is empty": 1,
        "file is damaged": 1,
        "file is not PNG, JPEG, TIFF, WebP, DICOM or NIfTI": 1,
    }
    listed = pd.read_csv(dataset.root / "exclusions.csv", dtype=str)
    assert listed["image"].tolist() == ["0005", "0017", "0033"]
    assert listed["detail"][0] == "images/0005.png is empty (0 bytes)"
    for row, image in enumerate(dataset.table["image"]):
        assert (dataset.images[row, 0] == np.asarray(Image.open(root / "images" / f"{image}.png"))).all()


def test_nothing_usable(root, tmp_path):
    for file in (root / "images").iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match=r"not one image could be used: .*0000\.png is empty"):
        prepare(source(root), tmp_path / "out", PrepareOptions(size=16, workers=1, on_error="skip"))


def test_any_column_can_be_an_attribute(root, tmp_path):
    table = source(root).table.assign(view=["AP", "PA", None] * 20)
    options = PrepareOptions(size=16, workers=1, attribute=("view", "sex"))
    dataset = prepare(source(root, table=table), tmp_path / "out", options)
    assert dataset.meta.attributes == {"sex": ["male", "female"], "view": ["AP", "PA"]}
    assert dataset.task("y", "view").group[:3].tolist() == [0, 1, -1]
    for name, message in (("vew", r"no column 'vew' .*\(did you mean 'view'\?\)"), ("y", "no column 'y'")):
        with pytest.raises(InputError, match=message):
            prepare(source(root, table=table), tmp_path / "no", PrepareOptions(attribute=(name,)))
    table["view"] = table["image"]
    with pytest.raises(InputError, match="'view' has 60 different numbers, too many to be groups: divide"):
        prepare(source(root, table=table), tmp_path / "no", PrepareOptions(attribute=("view",)))


@pytest.mark.parametrize(
    "path", ["../secret.png", "images/../../secret.png", "{abs}", "link.png", "folder/secret.png"]
)
def test_paths_that_lead_out(root, tmp_path, path):
    picture = np.asarray(Image.open(root / "images" / "0000.png"))
    Image.fromarray(picture).save(tmp_path / "secret.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "folder").symlink_to(tmp_path)
    table = source(root).table
    table.loc[2, "path"] = path.format(abs=tmp_path / "secret.png")
    with pytest.raises(InputError, match=r"path '.*' leads out of .*source"):
        prepare(source(root, table=table), tmp_path / "out", OPTIONS)
    allowed = prepare(
        source(root, table=table), tmp_path / "out", PrepareOptions(size=16, workers=1, outside=True)
    )
    assert (allowed.images[2, 0] == picture).all()


def test_links_within_the_root_are_followed(root, tmp_path):
    (root / "link.png").symlink_to("images/0001.png")
    (root / "there").symlink_to("images")
    table = source(root).table
    table.loc[2, "path"], table.loc[3, "path"] = "link.png", "there/../images/0003.png"
    dataset = prepare(source(root, table=table), tmp_path / "out", OPTIONS)
    assert (dataset.images[2] == dataset.images[1]).all()
    plain = prepare(source(root), tmp_path / "plain", OPTIONS)
    assert (dataset.images[3] == plain.images[3]).all()


def test_rendered_source(tmp_path):
    def render(rows):
        return np.repeat(rows.astype(np.uint8), 3 * 8 * 8).reshape(-1, 3, 8, 8)

    table = source(tmp_path).table.drop(columns="path")
    rendered = source(tmp_path, table=table, render=render, settings={"strength": 0.5})
    dataset = prepare(rendered, tmp_path / "out", PrepareOptions(workers=1))
    assert dataset.images.shape == (60, 3, 8, 8)
    assert dataset.images[:, 2, 7, 7].tolist() == list(range(60))
    assert dataset.meta.settings == {"strength": 0.5}
    assert "geometry" not in dataset.meta.policies
    with pytest.raises(InputError, match="rendered at size 8 with 3 channels, not at size=64"):
        prepare(rendered, tmp_path / "other", PrepareOptions(size=64))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("image", "0001", "image '0001' is listed twice"),
        ("patient", " ", "image '0002' has no patient"),
        ("patient", None, "image '0002' has no patient"),
        ("y", 2, "image '0002' has '2' in column 'y', not one of 0, 1"),
        ("sex", "Male", "image '0002' has 'Male' in column 'sex', not one of male, female"),
    ],
)
def test_contradictory_source(root, tmp_path, column, value, message):
    table = source(root).table
    table.loc[2, column] = value
    with pytest.raises(InputError, match=message):
        prepare(source(root, table=table), tmp_path / "out", OPTIONS)


def test_unknown_label_and_group_are_kept_as_null(root, tmp_path):
    table = source(root).table
    table.loc[2, "y"] = pd.NA
    table.loc[3, "sex"] = None
    task = prepare(source(root, table=table), tmp_path / "out", OPTIONS).task()
    assert task.label[:4].tolist() == [0, 1, -1, 1]
    assert task.group[:4].tolist() == [0, 1, 1, -1]


def test_empty_source_says_why(root):
    empty = source(
        root, table=source(root).table.iloc[:0], exclusions=exclude(pd.Series(["a", "b"]), "lateral view")
    )
    with pytest.raises(InputError, match=r"no image is left to prepare .2 left out: lateral view"):
        prepare(empty, root / "out", OPTIONS)


def test_importing_it_imports_no_torch():
    code = "import sys, fairdx.data.prepare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_open_after_prepare_is_what_prepare_returned(root, tmp_path):
    dataset = prepare(source(root), tmp_path / "out", OPTIONS)
    assert PreparedDataset.open(tmp_path / "out").meta == dataset.meta


def odd_source(root, **columns):
    given = source(root)
    return Source(**{**vars(given), "table": given.table.assign(**columns)})


@pytest.mark.parametrize("word", ["nan", "NA", "unknown", "?", " None "])
def test_a_patient_who_is_nobody_is_refused(root, tmp_path, word):
    names = [word if row == 3 else f"p{row}" for row in range(len(source(root).table))]
    with pytest.raises(InputError, match=rf"the patient '{re.escape(word)}', which names nobody"):
        prepare(odd_source(root, patient=names), tmp_path / "out", OPTIONS)


@pytest.mark.parametrize("word", ["1.0", "01", "1.", " 1"])
def test_one_number_as_two_patients_is_refused(root, tmp_path, word):
    names = [word if row == 3 else str(row) for row in range(len(source(root).table))]
    with pytest.raises(InputError, match=rf"the patients '1' and '{re.escape(word)}' are one number"):
        prepare(odd_source(root, patient=names), tmp_path / "out", OPTIONS)


def test_patients_that_look_alike_are_warned_of(root, tmp_path, caplog):
    names = ["P1" if row == 3 else f"p{row}" for row in range(len(source(root).table))]
    prepare(odd_source(root, patient=names), tmp_path / "out", OPTIONS)
    assert "the patients 'p1' and 'P1' differ in case or unseen signs alone" in caplog.text


@pytest.mark.parametrize("detour", ["./{}", "x/../{}", ".//{}"])
def test_one_file_under_two_names_is_refused(root, tmp_path, detour):
    paths = source(root).table["path"].tolist()
    paths[3] = detour.format(paths[0])
    with pytest.raises(InputError, match=r"are one file: list each image once"):
        prepare(odd_source(root, path=paths), tmp_path / "out", OPTIONS)
