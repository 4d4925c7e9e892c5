import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from fairdx.commands.inspect import inspection_page, render
from fairdx.core.errors import InputError
from fairdx.data.base import PreparedDataset
from fairdx.data.inspect import describe
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.readers import READERS
from fairdx.data.source import Source, exclude


def made(tmp_path, count=400, images=None):
    rows = np.arange(count)
    table = pd.DataFrame(
        {
            "image": [f"i{i}" for i in rows],
            "patient": [f"p{i // 2}" for i in rows],
            "y": pd.array(rows % 2, dtype="Int16"),
            "z": pd.array([0] * count, dtype="Int16"),
            "sex": np.where(rows % 4 < 2, "male", "female"),
        }
    )
    table.loc[0, "sex"] = None
    table.loc[1, "y"] = pd.NA
    pictures = (
        np.random.default_rng(0).integers(0, 256, (count, 1, 8, 8), np.uint8) if images is None else images
    )
    source = Source(
        name="made",
        table=table,
        labels={"y": ("no", "yes"), "z": ("no", "yes")},
        attributes={"sex": ("male", "female")},
        exclusions=exclude(pd.Series(["x"]), "lateral view"),
        render=lambda rows: pictures[rows],
    )
    return prepare(source, tmp_path / "out", PrepareOptions(workers=1, test=0.3, validation=0.2))


def test_counts_add_up_and_a_healthy_set_has_no_problems(tmp_path):
    dataset = made(tmp_path)
    description = describe(dataset)
    assert description.problems == ()
    splits = ["train", "validation", "test"]
    assert description.counts.groupby("label")[splits].sum().sum(axis=1).tolist() == [400, 400]
    by_hand = dataset.table.query("y == 1 and sex == 'female' and split == 'test'")
    cells = description.counts.set_index(["label", "class", "group"])
    assert cells.loc[("y", "yes", "female"), "test"] == len(by_hand) > 10
    assert cells.loc[("y", "no", "unknown"), splits].sum() == 1
    assert cells.loc[("y", "unknown", "male"), splits].sum() == 1
    assert description.patients == {
        s: dataset.table.query("split == @s")["patient"].nunique() for s in splits
    }
    console = Console(width=120)
    with console.capture() as capture:
        console.print(render(description))
    shown = " ".join(capture.get().split())
    y = dataset.table.query("split == 'test' and y.notna()")["y"]
    positives = dataset.table.groupby("split")["y"].sum()
    for text in (
        "made: 400 images of 200 patients, 8 x 8, grey; prepared 20",
        f"y yes {positives['train']} (",
        f"{y.sum()} ({y.mean():.1%})",
        "lateral view 1 0.2%",
        "split by patient",
        "No problem found.",
    ):
        assert text in shown


def test_another_label_and_json(tmp_path):
    description = describe(made(tmp_path), pixels=False)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(render(description, label="z"))
    assert "Groups by z:" in capture.get()
    with pytest.raises(InputError, match=r"no label 'x' \(known: 'y', 'z'\)"):
        render(description, label="x")
    found = json.loads(description.to_json())
    assert found["meta"]["counts"]["images"] == 400
    assert sum(row["train"] + row["validation"] + row["test"] for row in found["counts"]) == 800
    assert found["problems"] == list(description.problems)
    assert found["strangest"] == []


def test_problems_are_found(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), np.uint8)
    pictures[3] = 7
    pictures[5] //= 16
    dataset = made(tmp_path, 40, pictures)
    table = dataset.table
    train, test = (int(np.flatnonzero(table["split"] == split)[-1]) for split in ("train", "test"))
    with (dataset.root / "images.npy").open("r+b") as file:  # one picture put in place of another
        file.seek(128 + 64 * test)
        file.write(dataset.images[train].tobytes())
    problems = " ".join(describe(dataset).problems)
    assert "are not those that were prepared (other hash)" in problems
    assert "1 images are blank (one value), the first is 'i3'" in problems
    assert "1 images are dark (all below 32), the first is 'i5'" in problems
    assert "1 pictures occur more than once in different splits" in problems
    assert "1 pictures occur more than once of different patients" in problems
    assert "test images, too few for rates" in problems
    assert "1 test images" not in problems
    assert "hash" not in " ".join(describe(dataset, pixels=False).problems)


def test_the_strangest_images_come_first_on_the_page(tmp_path):
    pictures = np.random.default_rng(0).normal(120, 20, (60, 1, 8, 8)).clip(0, 255).astype(np.uint8)
    pictures[7] = 7  # blank
    pictures[11] = np.indices((8, 8)).sum(axis=0) % 2 * 255  # a chess board: far from the others
    pictures[13] = pictures[13] // 8 + 224  # nearly white
    dataset = made(tmp_path, 60, pictures)
    description = describe(dataset)
    first = description.strangest[:3]
    assert {one.image for one in first} == {"i7", "i11", "i13"}
    assert len(description.strangest) == 20
    looks = {one.image: " ".join(one.looks) for one in first}
    assert looks["i7"] == "blank (one value)"
    assert "far from the others" in looks["i11"]
    assert "nearly white" in looks["i13"]
    # The score of the chess board by hand: its mean step between neighbours is 255.
    steps = np.abs(np.diff(pictures.astype(float), axis=3)).mean(axis=(1, 2, 3))
    spread = 1.4826 * np.median(np.abs(steps - np.median(steps)))
    scores = {one.image: one.score for one in first}
    assert scores["i11"] == pytest.approx((255 - np.median(steps)) / spread, abs=0.01)
    page = inspection_page(dataset, description)
    assert page.count("<img ") == 20
    places = [page.index(f"<strong>{one.image}</strong>") for one in description.strangest]
    assert places == sorted(places)
    held = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in held]
    for one, pixels in zip(description.strangest, shown, strict=True):
        assert (pixels == dataset.images[one.row, 0][..., None]).all()


def test_words_of_the_data_are_no_markup(tmp_path):
    dataset = made(tmp_path, 60)
    names = {"late [/old]": "male", "<b>[unknown]": "female"}
    meta = dataset.meta.model_copy(update={"attributes": {"sex": list(names)}})
    turned = {old: new for new, old in names.items()}
    dataset = PreparedDataset(dataset.root, meta)
    dataset.__dict__["table"] = dataset.table.assign(sex=dataset.table["sex"].map(turned))
    description = describe(dataset)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(render(description))
    assert "late [/old]" in capture.get()
    assert "<b>[unknown]" in capture.get()
    assert "&lt;b&gt;[unknown]" in inspection_page(dataset, description)


def test_leak_and_missing_split(tmp_path):
    dataset = made(tmp_path, 40)
    words = "y = yes: no validation image, so that no threshold can be fixed"
    assert words not in " ".join(describe(dataset, pixels=False).problems)
    one_class = dataset.table.assign(y=dataset.table["y"].mask(dataset.table["split"] == "validation", 0))
    one_class.to_parquet(dataset.root / "table.parquet")
    del dataset.__dict__["table"]
    assert words in " ".join(describe(dataset, pixels=False).problems)
    changed = dataset.table.assign(split=["train", "test"] * 20)
    changed.to_parquet(dataset.root / "table.parquet")
    del dataset.__dict__["table"]
    problems = " ".join(describe(dataset, pixels=False).problems)
    assert "patient 'p0' is in the splits 'train' and 'test' (20 such patients)" in problems
    assert "there is no validation split" in problems


@pytest.mark.parametrize("name", READERS)
def test_every_reader_refuses_a_folder_that_is_not_there(name, tmp_path):
    options = {"label": ["y"], "attribute": ["sex"]} if name == "table" else {}
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        READERS[name](tmp_path / "nowhere", **options)
