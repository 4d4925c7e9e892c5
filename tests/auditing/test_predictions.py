"""Tables as people have them: encodings, packings, words for missing, and every way to be wrong."""

import bz2
import gzip
import io
import lzma
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest

from fairdx.auditing import read_predictions
from fairdx.auditing.source import open_source
from fairdx.auditing.table import read_table
from fairdx.core.errors import InputError
from fairdx.core.missing import BY_PROGRAMS


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "image": [f"i{k}" for k in range(8)],
            "patient": [1, 1, 2, 2, 3, 3, 4, 4],
            "y": [0, 1] * 4,
            "p": np.linspace(0.05, 0.95, 8),
            "sex": ["Mädchen", "Frau"] * 4,
            "age": [30, 40, 50, 60] * 2,
        }
    )


def read(path, **change):
    keywords = {"label": "y", "score": "p", "groups": ["sex"], "patient": "patient", **change}
    return read_predictions(path, **keywords)


def told(codes):
    """A column as a list of text."""
    return [codes.names[c] for c in codes.codes]


def same(one, two):
    assert told(one.y_true) == told(two.y_true)
    assert one.y_score.tolist() == pytest.approx(two.y_score.tolist(), rel=1e-15, abs=0)
    assert told(one.patients) == told(two.patients)
    for name in one.sensitive_features:
        assert told(one.sensitive_features[name]) == told(two.sensitive_features[name])
    assert one.positive_class == two.positive_class


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_encodings_and_separators(frame, tmp_path, encoding, separator):
    path = tmp_path / "p.csv"
    decimal = "," if separator == ";" else "."
    frame.to_csv(path, index=False, sep=separator, encoding=encoding, decimal=decimal)
    found = read(path, covariates=["age"])
    assert found.y_score.tolist() == frame["p"].tolist()
    assert told(found.y_true) == [str(v) for v in frame["y"]]
    assert told(found.sensitive_features["sex"]) == frame["sex"].tolist()
    assert told(found.patients) == [str(v) for v in frame["patient"]]
    assert told(found.covariates["age"]) == [str(v) for v in frame["age"]]


def test_windows_letters(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes("y,p,sex\n0,0.1,M\u2019\n1,0.2,F\n".encode("cp1252"))
    assert told(read(path, patient=None).sensitive_features["sex"]) == ["M\u2019", "F"]


def test_every_packing_and_form_holds_the_same_table(frame, tmp_path, monkeypatch):
    csv = frame.to_csv(index=False).encode()
    parquet = io.BytesIO()
    frame.to_parquet(parquet)
    excel = io.BytesIO()
    frame.to_excel(excel, index=False)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("folder/p.csv", csv)
        archive.writestr("__MACOSX/folder/._p.csv", b"\0")
    forms = {
        "p.csv": csv,
        "p.csv.gz": gzip.compress(csv),
        "p.csv.bz2": bz2.compress(csv),
        "p.csv.xz": lzma.compress(csv),
        "p.zip": zipped.getvalue(),
        "p.tsv": frame.to_csv(index=False, sep="\t").encode(),
        "p.parquet": parquet.getvalue(),
        "p.parquet.gz": gzip.compress(parquet.getvalue()),
        "p.xlsx": excel.getvalue(),
        "no_ending": parquet.getvalue(),
    }
    expected = None
    for name, content in forms.items():
        path = tmp_path / name
        path.write_bytes(content)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        for given in (path, "-"):
            found = read(given)
            expected = expected or found
            same(found, expected)


def test_ids_and_groups_are_text_exactly_as_written(tmp_path):
    ids = ["7.1", "7.10", "07", "7", "3E12", "3000000000000", "1_0", "True", "0x10", " 7"]
    path = tmp_path / "p.csv"
    rows = [f"{k % 2},0.5,{v},{v}" for k, v in enumerate(ids)]
    path.write_text("\n".join(["y,p,patient,site", *rows]))
    found = read(path, groups="site")
    assert told(found.patients) == told(found.sensitive_features["site"]) == ids
    assert "the groups ' 7' and '07' differ only in how they are written" in " ".join(found.notes)


def test_missing_words_are_the_same_in_every_form(frame, tmp_path):
    words = ["F", "NA", "None", "null", "", "nan", "M", "01"]
    frame["sex"] = words
    paths = [tmp_path / name for name in ("p.csv", "p.parquet", "p.xlsx")]
    frame.to_csv(paths[0], index=False)
    frame.to_parquet(paths[1])
    frame.to_excel(paths[2], index=False)
    for path in paths:
        found = read(path)
        assert told(found.sensitive_features["sex"]) == ["F", *["(missing)"] * 5, "M", "01"]
        assert (
            "sex is missing in 5 rows (first: row 3), written as 'NA' or 'None' or 'nan' or 'null'"
            in (found.notes[0])
        )
        kept = read(path, missing=["01"])
        assert told(kept.sensitive_features["sex"])[:5] == ["F", "NA", "None", "null", "(missing)"]
        assert told(kept.sensitive_features["sex"])[-1] == "(missing)"
    assert "NA" in BY_PROGRAMS


def test_missing_values_of_parquet(tmp_path):
    frame = pd.DataFrame({"y": [0, 1, 1], "p": [0.1, 0.2, 0.3], "sex": ["F", None, "M"]})
    frame.to_parquet(tmp_path / "p.parquet")
    frame.to_csv(tmp_path / "p.csv", index=False)
    one, two = (read(tmp_path / name, patient=None) for name in ("p.parquet", "p.csv"))
    assert (
        told(one.sensitive_features["sex"]) == told(two.sensitive_features["sex"]) == ["F", "(missing)", "M"]
    )


def test_the_positive_class(frame, tmp_path):
    path = tmp_path / "p.csv"
    for values, positive in (
        (["healthy", "diseased"], "diseased"),
        (["diseased", "healthy"], "diseased"),
        ([False, True], "True"),
        (["0.0", "1.0"], "1.0"),
        ([-1, 1], "1"),
        (["+", "-"], "+"),
    ):
        frame.assign(y=values * 4).to_csv(path, index=False)
        found = read(path)
        assert found.positive_class == positive
        assert [v == positive for v in told(found.y_true)] == [v == positive for v in map(str, values * 4)]
    for values in ([9, 10], ["a", "b"], [1, 2]):
        frame.assign(y=values * 4).to_csv(path, index=False)
        with pytest.raises(InputError, match="which of them is the disease; say which with --positive VALUE"):
            read(path)
        assert read(path, positive=str(values[0])).y_true.codes.tolist() == [1, 0] * 4
    frame.assign(y=["a", "b", "c", "b"] * 2).to_csv(path, index=False)
    found = read(path, positive="b")
    assert found.y_true.names == ("a, c", "b")
    assert "all of 'a', 'c' count as negative" in " ".join(found.notes)
    with pytest.raises(InputError, match="'x' is no value of"):
        read(path, positive="x")


@pytest.mark.parametrize(
    ("values", "rules", "codes", "left_out"),
    [
        (["0", "1", "", "-1", "0", "1", "-1", ""], {}, [0, 1, 0, 1], 2),
        (["0", "1", "", "-1", "0", "1", "-1", ""], {"uncertain": "positive"}, [0, 1, 1, 0, 1, 1], 1),
        (["0", "1", "", "-1", "0", "1", "-1", ""], {"unlabelled": "negative"}, [0, 1, 0, 0, 1, 0], 1),
        (["-1", "1"] * 4, {}, [0, 1] * 4, 0),
        (["-1", "1", "", "1"] * 2, {"unlabelled": "negative"}, [1, 0, 1, 1, 0, 1], 1),
    ],
)
def test_missing_and_uncertain_labels_go_by_policy_and_are_counted(
    frame, tmp_path, values, rules, codes, left_out
):
    path = tmp_path / "p.csv"
    frame.assign(y=values).to_csv(path, index=False)
    found = read(path, **rules)
    assert found.y_true.codes.tolist() == codes
    assert len(found.y_score) == len(found.patients) == len(codes)
    assert sum("left out" in note for note in found.notes) == left_out


def test_findings_have_their_own_rows(frame, tmp_path):
    path = tmp_path / "p.csv"
    frame["edema"] = [0, 1, "", -1, 0, 1, "", 0]
    frame["nodule"] = [1, 0, 1, 1, "", 0, "", 0]
    frame["p_nodule"], frame["p_edema"] = frame["p"], 1 - frame["p"]
    frame.to_csv(path, index=False)
    found = read(path, label=["edema", "nodule"], score=["p_nodule", "p_edema"])
    assert found.y_true["edema"].isna().tolist() == [False, False, True, True, False, False, False]
    assert found.y_true["nodule"].isna().tolist() == [False] * 4 + [True] + [False] * 2
    rows = [0, 1, 2, 3, 4, 5, 7]  # the row without any label is gone
    assert found.y_score[:, 0].tolist() == frame["p_edema"][rows].tolist()  # by name, not by place
    assert found.patients.codes.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert any("2 of 8 rows have no label in edema and are left out" in note for note in found.notes)
    assert any("1 of 8 rows have an uncertain label (-1) in edema" in note for note in found.notes)
    with pytest.raises(InputError, match="Say so as edema=COLUMN"):
        read(path, label=["edema", "nodule"], score=["p_nodule", "p"])
    found = read(path, label=["edema", "nodule"], score=["nodule=p_nodule", "edema=p"])
    assert found.y_score[:, 1].tolist() == frame["p_nodule"][rows].tolist()


def test_missing_groups_become_the_last_group_with_a_note(frame, tmp_path):
    path = tmp_path / "p.csv"
    frame.assign(sex=["F", None, "M", "F", "M", "F", "M", "F"]).to_csv(path, index=False)
    found = read(path)
    assert found.sensitive_features["sex"].names == ("F", "M", "(missing)")
    assert "missing in 1 row (first: row 3)" in found.notes[0]
    assert "'(missing)' has a single image" in found.notes[1]


def test_bins_and_levels_keep_their_order(frame, tmp_path):
    path = tmp_path / "p.csv"
    frame["stage"] = ["III", "I", "II", "I", "III", "I", "II", "I"]
    frame["dose"] = [0.1, 0.5, 1, 2] * 2
    frame["a@b"] = ["x", "y"] * 4
    frame.to_csv(path, index=False)
    found = read(path, groups=["age@40,60", "stage:I|III|II", "dose@0.5", "a@b"], covariates=["age@50"])
    names = {name: column.names for name, column in found.sensitive_features.items()}
    assert names == {
        "age": ("under 40", "40 to 59", "60 and over"),
        "stage": ("I", "III", "II"),
        "dose": ("under 0.5", "0.5 and over"),
        "a@b": ("x", "y"),
    }
    assert told(found.sensitive_features["age"])[:4] == ["under 40", "40 to 59", "40 to 59", "60 and over"]
    assert told(found.covariates["age"])[:4] == ["under 50", "under 50", "50 and over", "50 and over"]
    assert read(path, groups="age").sensitive_features["age"].names == ("30", "40", "50", "60")
    for spec, reason in (
        ("age@60,40", "does not end in ascending numbers"),
        ("age@old", "does not end in ascending numbers"),
        ("sex@40", "holds 'Mädchen', no number, in 8 rows"),
        ("stage:I|II", "has a value that is not listed: 'III'"),
        ("stage:I|II|III|IV", "has no row with the group: 'IV'"),
        ("age@20", "single value '20 and over'"),
    ):
        with pytest.raises(InputError, match=r".*") as error:
            read(path, groups=spec)
        assert reason in str(error.value)


def test_the_order_of_parquets_categories_is_kept(frame, tmp_path):
    stage = pd.Categorical(["low", "high", "mid", "low"] * 2, ["low", "mid", "high"], ordered=True)
    frame.assign(stage=stage).to_parquet(tmp_path / "p.parquet")
    found = read(tmp_path / "p.parquet", groups="stage").sensitive_features["stage"]
    assert found.names == ("low", "mid", "high")
    assert told(found) == list(stage)


def test_images_that_are_counted_more_than_once(frame, tmp_path):
    path = tmp_path / "p.csv"
    both = pd.concat([frame.assign(model="old"), frame.assign(model="new", p=1 - frame["p"])])
    both.to_csv(path, index=False)
    with pytest.raises(InputError, match=r"each model \(new, old\); choose one with --where model=new"):
        read(path)
    assert len(read(path, where={"model": "old"}).y_score) == 8
    both.drop(columns="model").to_csv(path, index=False)
    assert "image repeats in 8 of 16 rows" in " ".join(read(path).notes)
    with pytest.raises(InputError, match="repeats identifiers in 8 rows"):
        read(path, identifier="image")
    both.drop(columns="image").to_csv(path, index=False)
    assert "model has 2 values (new, old), whose rows are audited as one" in " ".join(read(path).notes)
    rng = np.random.default_rng(0)
    n = 100
    many = pd.DataFrame({"y": rng.integers(0, 2, n), "p": rng.random(n), "sex": rng.choice(["F", "M"], n)})
    pd.concat([many, many]).to_csv(path, index=False)
    assert "Every row occurs 2 times or a multiple of it" in " ".join(read(path, patient=None).notes)
    pd.concat([many, many[:20]]).to_csv(path, index=False)
    assert "20 of 120 rows are copies of others" in " ".join(read(path, patient=None).notes)
    many.to_csv(path, index=False)
    assert not read(path, patient=None).notes


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("p", [0.1, None] * 4, "no finite score in 4 rows (first: row 3)"),
        ("p", [0.1, 1.5] * 4, "outside [0, 1] in 4 rows (first: row 3), with 1.5"),
        ("p", ["0.1", "high"] * 4, "holds 'high', no number, in 4 rows (first: row 3)"),
        ("p", ["10%", "85%"] * 4, "holds '10%', no number"),
        ("y", [1] * 8, "single class '1'"),
        ("y", [None] * 8, "is empty in every row"),
        ("y", [0, 1, 2, 3] * 2, "4 distinct values (0, 1, 2, 3); say which with --positive VALUE"),
        ("sex", ["F"] * 8, "single value 'F'"),
        ("patient", [1, None] * 4, "patient column 'patient' is empty"),
        ("patient", ["1", "NA"] * 4, "patient column 'patient' is empty (as 'NA') in 4 rows"),
        ("image", ["a"] * 8, "repeats identifiers in 7 rows (first: row 3), such as 'a'"),
    ],
)
def test_bad_columns(frame, tmp_path, column, values, reason):
    path = tmp_path / "p.csv"
    frame[column] = values
    frame.to_csv(path, index=False)
    with pytest.raises(InputError) as error:
        read(path, identifier="image")
    assert reason in str(error.value)
    assert str(path) in str(error.value)


def test_scores_in_unusual_writing(frame, tmp_path):
    path = tmp_path / "p.csv"
    frame["p"] = ["+0.5", "1e-3", " 0.25", "1", "0", "1.0000001", ".5", "-1e-9"]
    frame.to_csv(path, index=False)
    assert read(path).y_score.tolist() == [0.5, 0.001, 0.25, 1, 0, 1, 0.5, 0]


def test_missing_columns_name_the_nearest(frame, tmp_path):
    path = tmp_path / "p.csv"
    frame.to_csv(path, index=False)
    with pytest.raises(InputError, match="no column 'Sexe'; did you mean 'sex'"):
        read(path, groups=["Sexe"])
    with pytest.raises(InputError, match="no column 'quux'; it has 'image', 'patient'"):
        read(path, groups=["quux"])
    for change in ({"groups": ["sex", "sex"]}, {"label": ["y", "y"], "score": ["p", "age"]}):
        with pytest.raises(InputError, match="is given twice"):
            read(path, **change)


@pytest.mark.parametrize("form", ["csv", "parquet", "xlsx"])
def test_two_columns_of_one_name(tmp_path, form):
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / f"p.{form}"
    columns = [["0", "1"], ["0.1", "0.2"], ["0.3", "0.4"], ["F", "M"], ["a", "b"], ["c", "d"]]
    names = ["y", "p", "p", "sex", "x", "x"]
    if form == "parquet":
        parquet.write_table(pa.table(columns, names=names), path)
    elif form == "csv":
        path.write_text("\n".join([",".join(names), *(",".join(row) for row in zip(*columns, strict=True))]))
    else:
        frame = pd.DataFrame(dict(enumerate(columns)))
        frame.columns = names
        frame.to_excel(path, index=False)
    with pytest.raises(InputError, match="more than one column 'p'"):
        read(path, patient=None)


def test_only_needed_columns_are_read(frame, tmp_path):
    path = tmp_path / "p.csv"
    wide = pd.DataFrame(np.zeros((8, 500)), columns=[f"pixel{k}" for k in range(500)])
    pd.concat([frame, wide], axis=1).to_csv(path, index=False)
    source = open_source(path)
    assert len(source.columns) == 506
    assert source.read(["p", "y"]).column_names == ["p", "y"]
    assert read(path).y_score.tolist() == frame["p"].tolist()


def test_where_takes_text_first_and_numbers_next(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("y,p,sex,visit\n0,0.1,F,1.0\n1,0.2,M,1.0\n1,0.3,M,2.0\n")
    assert len(read(path, patient=None, where={"visit": "1"}).y_score) == 2
    path.write_text("y,p,sex,visit\n0,0.1,F,01\n1,0.2,M,01\n1,0.3,M,1\n")
    assert len(read(path, patient=None, where={"visit": "01"}).y_score) == 2
    with pytest.raises(InputError, match="no row has visit = 3; there is 01, 1"):
        read(path, patient=None, where={"visit": "3"})


def test_a_group_column_of_identifiers(tmp_path):
    path = tmp_path / "p.csv"
    n = 5000
    pd.DataFrame({"y": np.arange(n) % 2, "p": 0.5, "sex": np.arange(n)}).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"5,000 distinct values, more than 200; .*--group sex@40,60"):
        read(path, patient=None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"y,p,sex,patient\n", "no rows"),
        (
            b"y,p,sex,patient\n0,0.1,F,1\n1,0.2,M,2,3,4\n",
            "no regular table: row 3 has 6 fields",
        ),
        (b"y,p,sex,patient\n0,0.1,F,1\n1,0.2,M\n", "row 3 has 3 fields and the header 4"),
        (b"\x89PNG\x00\x00\x00", "no text file"),
        (b"\xff\xfe\x00", "UTF-16"),
        (b"\x1f\x8b\x08broken", "cannot be unpacked"),
        (b"PK\x03\x04broken", "cannot be unpacked"),
        (b"PAR1broken", "cannot be read as Parquet"),
        (b"\xd0\xcf\x11\xe0old", "save it as .xlsx"),
    ],
)
def test_bad_files(tmp_path, content, reason):
    path = tmp_path / "p.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read(path)


def test_no_such_file_and_no_parquet(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path)
    path = tmp_path / "p.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read(path)
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("a.csv", "y\n1\n")
        archive.writestr("b.csv", "y\n1\n")
    with pytest.raises(InputError, match=r"holds 2 files \(a.csv, b.csv\)"):
        read(tmp_path / "p.zip")


def test_all_columns_of_a_table(frame, tmp_path):
    frame.to_csv(tmp_path / "p.csv", index=False)
    table = read_table(tmp_path / "p.csv")
    assert table.columns == tuple(frame.columns)
    assert len(table.take(np.array([True, False] * 4))) == 4
