import json
import pickle

import numpy as np
import pandas as pd
import pytest

from fairdx.core.errors import InputError
from fairdx.data.base import Meta, PreparedDataset


def write(root, **changes):
    """A prepared data set by hand: 6 images of 5 patients, with unknown labels and groups."""
    root.mkdir(exist_ok=True)
    images = np.arange(6 * 1 * 4 * 4, dtype=np.uint8).reshape(6, 1, 4, 4)
    np.save(root / "images.npy", images)
    table = pd.DataFrame(
        {
            "image": list("abcdef"),
            "patient": ["p1", "p1", "p2", "p3", "p4", "p5"],
            "split": ["train", "train", "train", "test", "test", "validation"],
            "Pneumonia": pd.array([0, 1, 1, 0, 1, None], dtype="Int16"),
            "Edema": pd.array([0, 0, 0, 0, 0, 0], dtype="Int16"),
            "sex": ["male", "female", "male", "female", None, "male"],
            "age_group": ["old", "old", "young", "old", "young", "old"],
        }
    )
    table.to_parquet(root / "table.parquet")
    meta = {
        "source": "hand",
        "version": "0",
        "created": "2026-01-01T00:00:00+00:00",
        "size": 4,
        "channels": 1,
        "labels": {"Pneumonia": ["absent", "present"], "Edema": ["absent", "present"]},
        "attributes": {"sex": ["male", "female"], "age_group": ["young", "old"]},
        "policies": {},
        "counts": {"images": 6, "patients": 5},
        "exclusions": {},
        "seed": 0,
        "settings": {},
        "fingerprint": "",
        "hash": "",
    } | changes
    (root / "meta.json").write_text(json.dumps(meta))
    return images


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "set")
    return tmp_path / "set"


def test_codes_come_from_meta_and_unknown_is_minus_one(root):
    task = PreparedDataset.open(root).task()
    assert (task.label_name, task.attribute_name) == ("Pneumonia", "sex")
    assert task.class_names == ("absent", "present")
    assert task.label.tolist() == [0, 1, 1, 0, 1, -1]
    assert task.group.tolist() == [0, 1, 0, 1, -1, 0]
    assert task.usable.tolist() == [True, True, True, True, False, False]
    assert task.indices("train").tolist() == [0, 1, 2]
    assert task.indices("validation").tolist() == []
    assert task.indices("test").tolist() == [3]


def test_intersections_are_the_combinations_that_occur(root):
    task = PreparedDataset.open(root).task(attribute="sex & age_group")
    # Nobody is female and young, so that is no group.
    assert task.group_names == ("male & young", "male & old", "female & old")
    assert task.group.tolist() == [1, 2, 0, 2, -1, 1]


def test_read_equals_the_map_in_any_order_and_in_another_process(root):
    dataset = PreparedDataset.open(root)
    rows = np.array([5, 0, 0, 3])
    assert (dataset.read(rows) == dataset.images[rows]).all()
    assert dataset.read(rows).flags.owndata
    copy = pickle.loads(pickle.dumps(dataset))
    assert (copy.read([2]) == dataset.images[2]).all()
    assert dataset.read([]).shape == (0, 1, 4, 4)


def test_read_of_a_missing_row_or_file(root):
    dataset = PreparedDataset.open(root)
    for row in (6, -1):
        with pytest.raises(InputError, match="has the images 0 to 5"):
            dataset.read([row])
    assert dataset.read([0]).shape == (1, 1, 4, 4)
    with (root / "images.npy").open("r+b") as file:
        file.truncate(128 + 16 * 3 + 5)
    with pytest.raises(InputError, match="ends before image 3"):
        dataset.read([2, 3])
    (root / "images.npy").unlink()
    with pytest.raises(InputError, match=r"images\.npy cannot be read: No such file"):
        dataset.read([0])


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"label": "Pneumonai"}, "no label 'Pneumonai' .did you mean 'Pneumonia'"),
        ({"attribute": "race"}, "no attribute 'race' .known: 'sex', 'age_group'"),
        ({"attribute": "sex & agegroup"}, "no attribute 'agegroup' .did you mean 'age_group'"),
        ({"label": "Edema"}, "class 'present' of 'Edema' is empty"),
    ],
)
def test_impossible_task(root, choice, message):
    with pytest.raises(InputError, match=message):
        PreparedDataset.open(root).task(**choice)


def test_empty_group(tmp_path):
    write(tmp_path, attributes={"sex": ["male", "female", "other"], "age_group": ["young", "old"]})
    with pytest.raises(InputError, match="group 'other' of 'sex' is empty"):
        PreparedDataset.open(tmp_path).task()


def test_group_that_meta_does_not_list(tmp_path):
    write(tmp_path, attributes={"sex": ["male"]})
    with pytest.raises(InputError, match=r"has the group 'female' of 'sex', not in meta\.json"):
        PreparedDataset.open(tmp_path).task()


def test_one_group(tmp_path):
    root = tmp_path / "table.parquet"
    write(tmp_path, attributes={"sex": ["male"]})
    pd.read_parquet(root).replace({"sex": {"female": None}}).to_parquet(root)
    with pytest.raises(InputError, match=r"'sex' of .* has the one group male: two are needed"):
        PreparedDataset.open(tmp_path).task()


def test_folds_cover_the_usable_rows_once(root):
    task = PreparedDataset.open(root).task()
    tested = [row for i in range(3) for row in task.fold(i, 3, seed=0).indices("test")]
    assert sorted(tested) == [0, 1, 2, 3]
    one = task.fold(0, 3, seed=0)
    assert not set(one.patient[one.indices("test")]) & set(one.patient[one.indices("train")])
    with pytest.raises(InputError, match="fold 3 is not one of 3"):
        task.fold(3, 3, seed=0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "meta.json").unlink(), r"has no meta\.json"),
        (lambda root: (root / "meta.json").write_text("{"), r"meta\.json is not valid at the whole file"),
        (lambda root: (root / "images.npy").write_bytes(b"x"), r"images\.npy cannot be read as images"),
        (lambda root: np.save(root / "images.npy", np.zeros((6, 1, 4, 5), np.uint8)), "has the shape"),
        (
            lambda root: (root / "table.parquet").write_bytes(b"x"),
            r"table\.parquet cannot be read as a table",
        ),
        (
            lambda root: (
                pd.read_parquet(root / "table.parquet").drop(columns="sex").to_parquet(root / "table.parquet")
            ),
            "no column 'sex'",
        ),
        (
            lambda root: pd.read_parquet(root / "table.parquet").iloc[:5].to_parquet(root / "table.parquet"),
            "has 5 rows for 6 images",
        ),
    ],
)
def test_spoilt_folder(root, spoil, message):
    spoil(root)
    with pytest.raises(InputError, match=message):
        PreparedDataset.open(root)


def test_no_folder_and_newer_format(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        PreparedDataset.open(tmp_path / "nowhere")
    write(tmp_path / "set", format=99)
    with pytest.raises(InputError, match="format 99, newer than"):
        PreparedDataset.open(tmp_path / "set")


def test_meta_is_frozen(root):
    meta = PreparedDataset.open(root).meta
    with pytest.raises(ValueError, match="frozen"):
        meta.seed = 1
    assert Meta.model_validate_json(meta.model_dump_json()) == meta
