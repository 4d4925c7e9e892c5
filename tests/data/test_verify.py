"""Prepared data sets that a disk or a person has changed: never trained on as if they were whole."""

import json

import numpy as np
import pandas as pd
import pytest

from fairdx.core.errors import InputError
from fairdx.data.base import PreparedDataset
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.source import Source
from fairdx.data.verify import verified


def source(count=60):
    rows = np.arange(count)
    table = pd.DataFrame(
        {
            "image": [f"i{i}" for i in rows],
            "patient": [f"p{i // 2}" for i in rows],
            "y": pd.array(rows // 3 % 2, dtype="Int16"),
            "sex": np.where(rows % 4 < 2, "male", "female"),
        }
    )
    pictures = np.random.default_rng(0).integers(0, 256, (count, 1, 8, 8), np.uint8)
    return Source(
        name="made",
        table=table,
        labels={"y": ("no", "yes")},
        attributes={"sex": ("male", "female")},
        render=lambda rows: pictures[rows],
    )


@pytest.fixture
def root(tmp_path):
    return prepare(source(), tmp_path / "set", PrepareOptions(test=0.3, validation=0.2)).root


def edit_bytes(root, at=None, more=b""):
    file = root / "images.npy"
    data = bytearray(file.read_bytes())
    if at is not None:
        data[at] ^= 1
    file.write_bytes(bytes(data) + more)


def edit_images(root, change):
    np.save(root / "images.npy", change(np.load(root / "images.npy")))


def edit_table(root, change):
    change(pd.read_parquet(root / "table.parquet")).to_parquet(root / "table.parquet")


def edit_meta(root, change):
    meta = json.loads((root / "meta.json").read_text())
    change(meta)
    del meta["seal"]  # which would tell first
    (root / "meta.json").write_text(json.dumps(meta))


def swap(names):
    names.reverse()


EDITS = {
    "a flipped bit": (lambda root: edit_bytes(root, at=1000), "is not what was prepared"),
    "a byte too many": (lambda root: edit_bytes(root, more=b"\0"), "1 bytes behind its last image"),
    "a byte too few": (
        lambda root: (root / "images.npy").write_bytes((root / "images.npy").read_bytes()[:-1]),
        "cannot be read as images",
    ),
    "other numbers": (lambda root: edit_images(root, lambda x: x.astype(np.float32)), "holds float32"),
    "another order": (lambda root: edit_images(root, np.asfortranarray), "another order of axes"),
    "two rows swapped": (lambda root: edit_images(root, lambda x: x[::-1]), "is not what was prepared"),
    "swapped labels": (
        lambda root: edit_table(root, lambda t: t.assign(y=1 - t["y"])),
        "is not what was prepared",
    ),
    "code 7": (
        lambda root: edit_table(root, lambda t: t.assign(y=t["y"].mask(t["image"] == "i3", 7))),
        r"table\.parquet: image 'i3' has the code 7 of 'y', not in meta\.json",
    ),
    "an unknown split": (
        lambda root: edit_table(root, lambda t: t.assign(split=t["split"].mask(t["image"] == "i3", "dev"))),
        r"table\.parquet: image 'i3' has the split 'dev'",
    ),
    "a patient in two splits": (
        lambda root: edit_table(root, lambda t: t.assign(patient=t["patient"].replace("p0", "p29"))),
        "is not what was prepared|in the splits",
    ),
    "an unknown group": (
        lambda root: edit_table(root, lambda t: t.assign(sex=t["sex"].replace("male", "man"))),
        "has the group 'man'",
    ),
    "swapped groups": (
        lambda root: edit_meta(root, lambda m: swap(m["attributes"]["sex"])),
        "is not what was prepared",
    ),
    "swapped classes": (
        lambda root: edit_meta(root, lambda m: swap(m["labels"]["y"])),
        "is not what was prepared",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_what_was_changed_is_refused(root, edit):
    change, message = EDITS[edit]
    verified(root).task("y", "sex")
    change(root)
    with pytest.raises(InputError, match=message):
        verified(root).task("y", "sex")


def test_codes_and_splits_are_checked_even_without_the_hash(root):
    edit_table(root, lambda t: t.assign(split=["train", "test"] * 30))
    with pytest.raises(InputError, match=r"table\.parquet: patient 'p0' is in the splits 'train' and 'test'"):
        PreparedDataset.open(root).task("y", "sex")


def test_a_set_of_the_first_format_keeps_its_hash(root):
    whole = verified(root)
    import hashlib

    digest = hashlib.sha256(np.load(root / "images.npy").tobytes())
    digest.update(whole.table.to_csv(index=False, lineterminator="\n").encode())
    edit_meta(root, lambda meta: meta.update(format=1, hash=digest.hexdigest()))
    assert verified(root).meta.format == 1
    edit_bytes(root, at=1000)
    with pytest.raises(InputError, match="is not what was prepared"):
        verified(root)


@pytest.mark.parametrize(
    ("key", "value"), [("policies", {"window": [40, 401]}), ("counts", {"images": 7}), ("source", "other")]
)
def test_what_decides_how_new_images_are_made_is_sealed(root, key, value):
    PreparedDataset.open(root)
    meta = json.loads((root / "meta.json").read_text())
    meta[key] = {**meta[key], **value} if isinstance(value, dict) else value
    (root / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match=r"meta\.json was edited or damaged"):
        PreparedDataset.open(root)


@pytest.mark.parametrize("column", ["patient", "split"])
def test_a_column_of_lists_is_refused(root, column):
    edit_table(root, lambda table: table.assign(**{column: [["a"]] * len(table)}))
    with pytest.raises(InputError, match=f"the column '{column}' holds lists"):
        verified(root)


def test_an_empty_file_of_images_is_named_and_not_taken_for_a_closed_input(root, here):
    (root / "images.npy").write_bytes(b"")
    told = here("inspect", root)
    assert told.returncode == 2
    assert "images.npy cannot be read as images" in told.stderr


def test_counts_that_say_nothing_are_refused(root):
    edit_meta(root, lambda meta: meta.update(counts={}))
    with pytest.raises(InputError, match="does not say how many images"):
        PreparedDataset.open(root)
