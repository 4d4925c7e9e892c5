import json
import os
import re
import resource
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairdx.core.errors import InputError
from fairdx.data import writer as writer_module
from fairdx.data.base import PreparedDataset
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.source import Source, exclude

OPTIONS = PrepareOptions(size=16, workers=1)


def pictures(root, count, seed=0):
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(root / "images" / f"{i:04d}.png")


def source(root, count=60, **changes):
    rows = np.arange(count)
    table = pd.DataFrame(
        {
            "image": [f"{i:04d}" for i in rows],
            "path": [f"images/{i:04d}.png" for i in rows],
            "patient": [f"p{i // 2}" for i in rows],
            "y": pd.array(rows % 2, dtype="Int16"),
            "sex": np.where(rows % 3 == 0, "male", "female"),
            "age": rows * 1.5,
        }
    )
    fields = {
        "name": "made",
        "table": table,
        "labels": {"y": ("no", "yes")},
        "attributes": {"sex": ("male", "female")},
        "root": root,
        "policies": {"view": "frontal"},
    }
    return Source(**(fields | changes))


@pytest.fixture
def root(tmp_path):
    pictures(tmp_path / "source", 60)
    return tmp_path / "source"


def contents(folder):
    return {name: (folder / name).read_bytes() for name in ("images.npy", "table.parquet", "exclusions.csv")}


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


def spoil(root):
    (root / "images" / "0005.png").write_bytes(b"")
    (root / "images" / "0017.png").write_bytes((root / "images" / "0017.png").read_bytes()[:60])
    (root / "images" / "0033.png").unlink()


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


class Killed(BaseException):
    pass


@pytest.mark.parametrize("blocks", [0, 1, 2, 7])
@pytest.mark.parametrize("damage", ["none", "torn line", "torn block", "flipped bit"])
def test_goes_on_where_it_stopped(root, tmp_path, monkeypatch, blocks, damage):
    monkeypatch.setattr("fairdx.data.prepare._BLOCK_ROWS", 8)
    spoil(root)
    options = PrepareOptions(size=16, workers=1, on_error="skip")
    whole = prepare(source(root), tmp_path / "whole", options)
    add, decoded = writer_module.ImageWriter.add, []

    def counted(self, block):
        if len(decoded) == blocks:
            raise Killed
        decoded.append(block.rows)
        add(self, block)

    monkeypatch.setattr(writer_module.ImageWriter, "add", counted)
    out = tmp_path / "out"
    with pytest.raises(Killed):
        prepare(source(root), out, options)
    partial, journal = out / "images.npy.partial", out / "progress.jsonl"
    if damage == "torn line":
        journal.write_bytes(journal.read_bytes()[:-3])
    elif damage == "torn block":
        partial.write_bytes(partial.read_bytes() + b"half a block")
    elif damage == "flipped bit":
        data = bytearray(partial.read_bytes())
        data[-1:] = bytes([data[-1] ^ 1]) if data else b""
        partial.write_bytes(data)
    decoded.clear()
    blocks = -1
    again = prepare(source(root), out, options)
    assert again.meta.hash == whole.meta.hash
    assert contents(out) == contents(whole.root)


def test_file_replaced_while_stopped_is_decoded_again(root, tmp_path, monkeypatch):
    monkeypatch.setattr("fairdx.data.prepare._BLOCK_ROWS", 8)
    (root / "images" / "0002.png").unlink()
    options = PrepareOptions(size=16, workers=1, on_error="skip")
    finish = writer_module.ImageWriter.finish
    monkeypatch.setattr(writer_module.ImageWriter, "finish", lambda self: exec("raise Killed", globals()))
    with pytest.raises(Killed):
        prepare(source(root), tmp_path / "out", options)
    monkeypatch.setattr(writer_module.ImageWriter, "finish", finish)
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(root / "images" / "0030.png")
    Image.fromarray(np.ones((16, 16), np.uint8)).save(root / "images" / "0002.png")
    resumed = prepare(source(root), tmp_path / "out", options)
    assert resumed.meta.exclusions == {}
    assert (resumed.images[2] == 1).all()
    assert (resumed.images[30] == 0).all()
    assert resumed.meta.hash == prepare(source(root), tmp_path / "whole", options).meta.hash


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


def test_unfinished_set_of_another_source_is_refused(root, tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module.ImageWriter, "finish", lambda self: exec("raise Killed", globals()))
    with pytest.raises(Killed):
        prepare(source(root), tmp_path / "out", OPTIONS)
    with pytest.raises(InputError, match="holds an unfinished data set made from another source"):
        prepare(source(root), tmp_path / "out", PrepareOptions(size=16, geometry="crop"))


def test_stopped_between_the_last_two_renames(root, tmp_path):
    whole = prepare(source(root), tmp_path / "out", OPTIONS)
    before = contents(whole.root)
    journal = [{"fingerprint": whole.meta.fingerprint}]
    (whole.root / "meta.json").unlink()
    (whole.root / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in journal))
    assert prepare(source(root), tmp_path / "out", OPTIONS).meta.hash == whole.meta.hash
    assert contents(whole.root) == before


def test_images_of_something_else_are_not_touched(root, tmp_path):
    np.save(tmp_path / "images.npy", np.arange(5))
    with pytest.raises(InputError, match=r"holds an images\.npy of something else"):
        prepare(source(root), tmp_path, OPTIONS)
    assert np.load(tmp_path / "images.npy").tolist() == [0, 1, 2, 3, 4]


HOLD = """
import sys
from pathlib import Path
from fairdx.core.locks import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_refuse_each_other(root, tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"is being written by process {other.pid}: wait"):
            prepare(source(root), tmp_path, OPTIONS)
        other.communicate()
    prepare(source(root), tmp_path, OPTIONS)


def test_system_without_locks_is_refused_clearly(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(InputError, match="needs Linux or macOS"):
        prepare(source(root), tmp_path, OPTIONS)


def test_full_disk_is_one_sentence_and_goes_on_later(root, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # a write beyond fails as on a full disk
    try:
        with pytest.raises(InputError, match=r"cannot write to .*out: File too large; .*: free some space"):
            prepare(source(root), tmp_path / "out", OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    whole = prepare(source(root), tmp_path / "whole", OPTIONS)
    assert prepare(source(root), tmp_path / "out", OPTIONS).meta.hash == whole.meta.hash


def test_too_small_a_disk_is_seen_before_the_work(root, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 100}))
    with pytest.raises(InputError, match=r"out needs 15\.4 kB and its disk has \d+ bytes free"):
        prepare(source(root), tmp_path / "out", OPTIONS)


def test_folder_that_cannot_be_written(root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write to .*file/out: Not a directory"):
        prepare(source(root), tmp_path / "file" / "out", OPTIONS)
    with pytest.raises(InputError, match=r"cannot write to .*file: File exists"):
        prepare(source(root), tmp_path / "file", OPTIONS)


def test_folder_without_permission(root, tmp_path):
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(InputError, match=r"cannot write to .*out: Permission denied"):
        prepare(source(root), tmp_path / "out", OPTIONS)
    tmp_path.chmod(0o700)


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


@pytest.mark.parametrize("blocks", [False, True])
def test_images_with_odd_bytes_behind_their_pixels(root, tmp_path, caplog, monkeypatch, blocks):
    for number in (3, 40, 41):
        path = root / "images" / f"{number:04d}.png"
        Image.open(path).save(path, "JPEG", quality=95)
        data = path.read_bytes()
        path.write_bytes(data[:-2] + bytes(50) + data[-2:])
    if blocks:
        monkeypatch.setattr("fairdx.data.prepare._BLOCK_ROWS", 7)
    for on_error in ("stop", "skip"):
        out, options = tmp_path / on_error, PrepareOptions(size=16, workers=1, on_error=on_error)
        if on_error == "stop":
            with pytest.raises(
                InputError, match=r"0003\.png has odd bytes .*all its pixels are whole: on-error w"
            ):
                prepare(source(root), out, options)
        else:
            assert prepare(source(root), out, options).meta.counts["images"] == 57
    dataset = prepare(source(root), tmp_path / "out", PrepareOptions(size=16, workers=1, on_error="warn"))
    assert len(dataset) == 60
    assert dataset.meta.warnings == {"has odd bytes behind its last pixel": 3}
    listed = pd.read_csv(tmp_path / "out" / "warnings.csv", dtype=str)
    assert listed["image"].tolist() == ["0003", "0040", "0041"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]  # one for all of them
    assert "0003.png has odd bytes" in caplog.text
    assert "(3 such images" in caplog.text


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
