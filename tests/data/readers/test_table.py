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
        (2, "years", "old", {"attribute": ["years@60"]}, "row 4: 'years' is 'old', not an age"),
        (2, "years", "inf", {"attribute": ["years@60"]}, "row 4: 'years' is 'inf', not an age"),
        (2, "fold", "", {"split": "fold"}, r"row 4: 'fold' is '\(blank\)'"),
        (2, "file", "", {}, "row 4: 'file' is blank"),
        (0, "who", "x", {"attribute": ["years@sixty"]}, "'years@sixty' does not end in numbers"),
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


def with_column(root, name, values):
    rows = pd.DataFrame(ROWS, columns=HEADER).assign(**{name: values})
    layout(root)
    rows.to_csv(root / "my.csv", index=False)
    return root


MISSING_WORDS = ["-1", "unknown", "nan", "NaN", "Prefer not to say", "n/a", "None", "UNK", " Unknown "]


@pytest.mark.parametrize("word", MISSING_WORDS)
def test_words_for_the_unknown_are_no_group_unless_they_are_named(tmp_path, word):
    root = with_column(tmp_path, "skin", ["1", word, "2", "2"])
    source = read(root, attribute=["skin"])
    assert source.attributes == {"skin": ("1", "2")}
    assert source.table["skin"].fillna("?").tolist() == ["1", "?", "2", "2"]
    assert source.settings == {"missing_words_of_skin": 1}
    named = read(root, attribute=[f"skin:1|2|{word.strip()}"])
    assert named.attributes["skin"] == ("1", "2", word.strip())
    assert named.table["skin"].tolist()[1] == word.strip()


def test_further_words_for_the_unknown(tmp_path):
    root = with_column(tmp_path, "skin", ["1", "999", "keine Angabe", "2"])
    source = read(root, attribute=["skin"], missing=["999", "Keine Angabe"])
    assert source.attributes == {"skin": ("1", "2")}
    assert source.settings == {"missing_words_of_skin": 2}
    label = with_column(tmp_path, "ill", ["1", "9", "0", "1"])
    assert read(label, missing=["9"]).table["ill"].fillna(-1).tolist() == [1, -1, 0, 1]
    others = with_column(tmp_path, "dx", ["mel", "unknown", "nv", "bcc"])
    assert read(others, label=["dx:bad=mel,bcc"]).table["dx"].fillna(-1).tolist() == [1, -1, 0, 1]


@pytest.mark.parametrize("age", ["148", "155", "999", "-1", "150Y", "999.0"])
def test_ages_that_nobody_has_are_in_no_group(tmp_path, age):
    root = with_column(tmp_path, "PatientAge", ["39", age, "075Y", "61.5"])
    source = read(root, attribute=["PatientAge@40"])
    assert source.table["PatientAge_group"].fillna("?").tolist() == [
        "under 40",
        "?",
        "40 and over",
        "40 and over",
    ]
    assert sum(source.settings.values()) == 1
    weight = with_column(tmp_path, "weight", ["39", "148", "75", "61.5"])
    assert read(weight, attribute=["weight@40"]).table["weight_group"].tolist()[1] == "40 and over"


def test_a_column_called_split_is_used_only_where_it_is_named(tmp_path):
    root = with_column(tmp_path, "split", ["0", "0", "1", "2"])
    source = read(root)
    assert "split" not in source.table
    assert source.table["split_in_table"].tolist() == ["0", "0", "1", "2"]
    with pytest.raises(InputError, match=r"row 2: 'split' is '0' \(known: 'train'"):
        read(root, split="split")
    mapped = read(root, split="split:train=0|validation=1|test=2")
    assert mapped.table["split"].tolist() == ["train", "train", "validation", "test"]
    rest = read(root, split="split:train=*|test=2")
    assert rest.table["split"].tolist() == ["train", "train", "train", "test"]
    with pytest.raises(InputError, match=r"split='training' is not possible"):
        read(root, split="split:training=0|test=1,2")


def test_other_columns_with_the_names_of_ours_are_kept(tmp_path):
    source = read(with_column(tmp_path, "path", ["w", "x", "y", "z"]))
    assert source.table["path_in_table"].tolist() == ["w", "x", "y", "z"]
    assert source.table["path"].tolist() == [row[0] for row in ROWS]


def test_classes_and_groups_in_a_column_each(tmp_path):
    root = tmp_path
    text = "image,patient,MEL,NV,white,black\na/1.png,p1,1.0,0.0,TRUE,FALSE\na/2.png,p2,0.0,1.0,no,yes\n"
    (layout(root) / "my.csv").write_text(text + "b/3.png,p3,0,0,0,0\n")
    source = read_table(root, label=["dx=MEL+NV"], attribute=["race=white+black"])
    assert source.labels == {"dx": ("MEL", "NV")}
    assert source.table["dx"].fillna(-1).tolist() == [0, 1, -1]
    assert source.table["race"].fillna("?").tolist() == ["white", "black", "?"]
    (root / "my.csv").write_text(text + "b/3.png,p3,1,1,0,0\n")
    with pytest.raises(InputError, match="row 4: 'MEL' and 'NV' are both 1"):
        read_table(root, label=["dx=MEL+NV"], attribute=["race=white+black"])


@pytest.mark.parametrize("words", ["TRUE FALSE", "true false", "Yes No", "1 0", "1.0 0.0"])
def test_words_for_yes_and_no(tmp_path, words):
    yes, no = words.split()
    assert read(with_column(tmp_path, "ill", [no, yes, yes, no])).table["ill"].tolist() == [0, 1, 1, 0]


def test_a_number_as_attribute_is_refused_with_a_hint(tmp_path):
    rows = [[f"a/{i}.png", f"p{i}", "0", "early", "f", str(i), "train", "x"] for i in range(160)]
    with pytest.raises(InputError, match=r"'years' has 160 different numbers.* as years@40,60"):
        read(layout(tmp_path, rows), attribute=["years"])
    words = [[*row[:5], f"name {row[5]}", *row[6:]] for row in rows]
    with pytest.raises(
        InputError, match=r"'years' has 160 values, over 50 groups: .* years:first=a,b\|second=c"
    ):
        read(layout(tmp_path, words), attribute=["years"])


def test_images_that_are_found_twice_or_by_an_absolute_path(tmp_path):
    layout(tmp_path)
    (tmp_path / "b" / "1.png").write_bytes((tmp_path / "a" / "1.png").read_bytes())
    rows = [list(row) for row in ROWS]
    rows[0][0] = "1"
    rows[1][0] = str(tmp_path / "a" / "2.png")
    rows[2][0] = "b\\3.png"
    layout(tmp_path, rows)
    with pytest.raises(InputError, match=r"holds image '1' twice: as a/1\.png and as b/1\.png; give"):
        read(tmp_path)
    (tmp_path / "b" / "1.png").unlink()
    dataset = prepare(
        read(tmp_path), tmp_path / "out", PrepareOptions(size=8, workers=1, test=0.5, validation=0, seed=1)
    )
    assert dataset.images[:, 0, 3, 3].tolist() == [0, 50, 100, 150]


def test_specs_that_cannot_be_read(tmp_path):
    layout(tmp_path)
    for options, message in (
        ({"label": ["ill", "ill"]}, "'ill' is named twice"),
        ({"label": ["stage:early=early|late=early"]}, "names a word twice"),
        ({"label": ["stage:=early|late"]}, "has a group without a name"),
        (
            {"label": ["stage:bad=worse|good=early"]},
            "has no row with 'worse' in 'stage', which",
        ),
        ({"attribute": ["x=sex+:"]}, "cannot be read"),
        ({"attribute": ["x=sex+rex"]}, r"no column 'rex' \(did you mean 'sex'\?\)"),
        ({"encoding": "latin-99"}, "encoding='latin-99' is not known"),
        ({"sheet": "x"}, "is not a workbook"),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path, **options)


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


@pytest.mark.parametrize("words", [("Male", "male"), ("f", "f\u200b"), ("ｆ", "f"), ("un  said", "un said")])
def test_groups_that_a_person_would_take_for_one_are_refused(tmp_path, words):
    lines = [f"{row}.png,p{row},{row % 2},{words[row % 2]}" for row in range(4)]
    (tmp_path / "t.csv").write_text("\n".join(["image,patient,ill,sex", *lines]) + "\n")
    with pytest.raises(InputError, match=r"'sex' has the values .* which differ in case or in unseen signs"):
        read_table(tmp_path, label=["ill"], attribute=["sex"])
    merged = f"sex:one={words[0]},{words[1]}"
    assert set(read_table(tmp_path, label=["ill"], attribute=[merged]).table["sex"]) == {"one"}


def test_a_sex_that_is_written_in_two_ways_is_refused(tmp_path):
    words = ("M", "male", "F", "female")
    lines = [f"{row}.png,p{row},{row % 2},{words[row]}" for row in range(4)]
    (tmp_path / "t.csv").write_text("\n".join(["image,patient,ill,sex", *lines]) + "\n")
    with pytest.raises(InputError, match="'M' and 'male', which are one sex: merge"):
        read_table(tmp_path, label=["ill"], attribute=["sex"])
    merged = read_table(tmp_path, label=["ill"], attribute=["sex:male=M,male|female=F,female"])
    assert merged.table["sex"].tolist() == ["male", "male", "female", "female"]


def test_errors_of_a_spreadsheet_are_no_groups(tmp_path):
    words = ["m", "f", "#N/A", "#REF!", "<NA>"]
    lines = [f"{row}.png,p{row},{row % 2},{words[row]}" for row in range(5)]
    (tmp_path / "t.csv").write_text("\n".join(["image,patient,ill,sex", *lines]) + "\n")
    source = read_table(tmp_path, label=["ill"], attribute=["sex"])
    assert source.attributes["sex"] == ("f", "m")
    assert source.settings["missing_words_of_sex"] == 3


def test_rows_that_lack_cells_are_counted(tmp_path):
    (tmp_path / "t.csv").write_text("image,patient,ill,sex\n0.png,p0,1,m\n1.png,p1,0\n2.png,p2,0,f\n")
    source = read_table(tmp_path, label=["ill"], attribute=["sex"])
    assert source.settings["rows_with_too_few_cells"] == 1


def test_text_with_null_bytes_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"image,patient,ill,sex\n0.png,p\x000,1,m\n")
    with pytest.raises(InputError, match=r"t\.csv holds null bytes: it is damaged, or not in UTF-8"):
        read_table(tmp_path, label=["ill"], attribute=["sex"])
