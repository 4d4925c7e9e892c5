import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fairdx.core.errors import InputError
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.readers.table import read_table
from fairdx.data.source import check_source

HEADER = ["file", "who", "ill", "stage", "sex", "years", "fold", "site"]
ROWS = [
    ["a/1.png", "p1", "0", "early", "f", "39", "train", "x"],
    ["a/2.png", "p1", "1", "late", "f", "40", "Training", "y"],
    ["b/3.png", "p2", "", "late", "m", "", "val", ""],
    ["b/4.png", "p3", "1", "", "", "75.5", "test", "x"],
]
COLUMNS = {"image": "file", "patient": "who"}


def layout(root, rows=ROWS, name="my.csv"):
    table = pd.DataFrame(rows, columns=HEADER)
    table.to_csv(root / name, index=False)
    for number, path in enumerate(["a/1.png", "a/2.png", "b/3.png", "b/4.png"]):
        (root / path).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 50 * number, np.uint8)).save(root / path)
    return root


def read(root, **options):
    return read_table(root, **(COLUMNS | {"label": ["ill"], "attribute": ["sex"]} | options))


def test_labels_attributes_bins_and_further_columns(tmp_path):
    source = read(
        layout(tmp_path),
        label=["stage:early|late", "ill"],
        attribute=["years@40,60", "sex:m|f"],
        split="fold",
    )
    assert list(source.labels.items()) == [("stage", ("early", "late")), ("ill", ("0", "1"))]
    assert source.table["stage"].fillna(-1).tolist() == [0, 1, 1, -1]
    assert source.table["ill"].fillna(-1).tolist() == [0, 1, -1, 1]
    assert source.attributes == {"years_group": ("under 40", "40 to 59", "60 and over"), "sex": ("m", "f")}
    assert source.table["years_group"].fillna("?").tolist() == ["under 40", "40 to 59", "?", "60 and over"]
    assert source.table["split"].tolist() == ["train", "train", "validation", "test"]
    assert source.table["site"].fillna("?").tolist() == ["x", "y", "?", "x"]
    dataset = prepare(source, tmp_path / "out", PrepareOptions(size=8, workers=1))
    assert dataset.images[:, 0, 3, 3].tolist() == [0, 50, 100, 150]
    assert dataset.table["years"].fillna("?").tolist() == ["39", "40", "?", "75.5"]


def test_parquet_with_numbers_and_booleans(tmp_path):
    layout(tmp_path)
    table = pd.DataFrame(ROWS, columns=HEADER).drop(columns=["stage", "fold"])
    typed = table.assign(ill=[False, True, True, False], who=[1, 1, 2, 3], years=[39.0, 40.0, np.nan, 75.5])
    typed.to_parquet(tmp_path / "my.parquet")
    source = read(tmp_path, table="my.parquet", attribute=["years@60"])
    assert source.table["ill"].tolist() == [0, 1, 1, 0]
    assert source.table["patient"].tolist() == ["1", "1", "2", "3"]
    assert source.table["years_group"].fillna("?").tolist() == ["under 60", "under 60", "?", "60 and over"]


@pytest.mark.parametrize(
    ("row", "column", "value", "options", "message"),
    [
        (1, "ill", "2", {}, r"row 3: 'ill' is '2'"),
        (1, "ill", "-1", {}, r"row 3: 'ill' is '-1'"),
        (
            3,
            "stage",
            "Late",
            {"label": ["stage:early|late"]},
            r"row 5: 'stage' is 'Late' \(did you mean 'late'\?\)",
        ),
        (0, "sex", "x", {"attribute": ["sex:m|f"]}, "row 2: 'sex' is 'x'"),
        (2, "years", "old", {"attribute": ["years@60"]}, "row 4: 'years' is 'old', not a number"),
        (2, "years", "inf", {"attribute": ["years@60"]}, "row 4: 'years' is 'inf', not a number"),
        (2, "fold", "", {"split": "fold"}, r"row 4: 'fold' is '\(blank\)'"),
        (2, "file", "", {}, "row 4: 'file' is blank"),
        (0, "who", "x", {"attribute": ["years@sixty"]}, "attribute 'years@sixty' does not end in numbers"),
        (0, "who", "x", {"label": ["il"]}, r"no column 'il' \(did you mean 'ill'\?\)"),
        (0, "who", "x", {"patient": "patient"}, "no column 'patient'"),
        (0, "who", "x", {"table": "other.csv"}, r"other\.csv does not exist"),
        (0, "who", "x", {"table": "other.parquet"}, r"other\.parquet cannot be read as a table"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, row, column, value, options, message):
    rows = [list(cells) for cells in ROWS]
    rows[row][HEADER.index(column)] = value
    with pytest.raises(InputError, match=message):
        read(layout(tmp_path, rows), **options)


def test_no_patient_a_leak_and_two_tables(tmp_path):
    rows = [list(cells) for cells in ROWS]
    rows[2][1] = " "
    layout(tmp_path, rows)
    with pytest.raises(InputError, match=r"image 'b/3\.png' has no patient"):
        prepare(read(tmp_path), tmp_path / "out")
    rows[2][1] = "p3"
    layout(tmp_path, rows)
    with pytest.raises(InputError, match="patient 'p3' is in the splits 'validation' and 'test'"):
        prepare(read(tmp_path, split="fold"), tmp_path / "out")
    layout(tmp_path, name="second.csv")
    with pytest.raises(InputError, match=r"has both my\.csv and second\.csv"):
        read(tmp_path)


cells = st.one_of(
    st.sampled_from(
        ["", "0", "1", "-1", "p1", "train", "test", "a/1.png", "../x", "nan", "None", '"', "1e999", "f"]
    ),
    st.text(max_size=6),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(cells, min_size=8, max_size=8), min_size=1, max_size=4), st.binary(max_size=30))
def test_fuzzed_cells_are_read_as_they_are_or_refused(tmp_path_factory, rows, tail):
    root = tmp_path_factory.mktemp("fuzz")
    pd.DataFrame(rows, columns=HEADER).to_csv(root / "my.csv", index=False)
    with (root / "my.csv").open("ab") as file:
        file.write(tail)
    try:
        source = read(root, attribute=["sex", "years@60"], split="fold")
        check_source(source)
    except InputError:
        return
    assert source.table["ill"].dropna().isin([0, 1]).all()
    assert source.table["split"].isin(["train", "validation", "test"]).all()
    assert source.table["patient"].str.strip().ne("").all()
