"""Tables as people have them: encodings, separators, and every way to be wrong."""

import numpy as np
import pandas as pd
import pytest

from fairdx.auditing import read_predictions
from fairdx.core.errors import InputError


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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_encodings_and_separators(frame, tmp_path, encoding, separator):
    path = tmp_path / "p.csv"
    decimal = "," if separator == ";" else "."
    frame.to_csv(path, index=False, sep=separator, encoding=encoding, decimal=decimal)
    found = read(path, covariates=["age"])
    assert found.y_score == pytest.approx(frame["p"].to_numpy())
    assert found.y_true.tolist() == frame["y"].tolist()
    assert list(found.sensitive_features["sex"]) == frame["sex"].tolist()
    assert list(found.patients) == [str(v) for v in frame["patient"]]
    assert list(found.covariates["age"]) == [str(v) for v in frame["age"]]


def test_parquet(frame, tmp_path):
    path = tmp_path / "p.parquet"
    frame.to_parquet(path)
    assert read(path).y_score == pytest.approx(frame["p"].to_numpy())


def test_text_labels_and_booleans(frame, tmp_path):
    path = tmp_path / "p.csv"
    frame.assign(y=["benign", "malignant"] * 4).to_csv(path, index=False)
    assert set(read(path).y_true) == {"benign", "malignant"}
    frame.assign(y=[False, True] * 4).to_csv(path, index=False)
    assert read(path).y_true.tolist() == [0, 1] * 4


def test_missing_groups_become_a_group_with_a_note(frame, tmp_path):
    path = tmp_path / "p.csv"
    frame.assign(sex=["F", None, "M", "F", "M", "F", "M", "F"]).to_csv(path, index=False)
    found = read(path)
    assert found.sensitive_features["sex"][1] == "(missing)"
    assert "missing in 1 row (first: row 3)" in found.notes[0]
    assert "'(missing)' has a single image" in found.notes[1]


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("p", [0.1, None] * 4, "no finite score in 4 rows (first: row 3)"),
        ("p", [0.1, 1.5] * 4, "outside [0, 1] in 4 rows (first: row 3), with 1.5"),
        ("p", ["0.1", "high"] * 4, "holds 'high', no number, in 4 rows (first: row 3)"),
        ("y", [1] * 8, "single class '1'"),
        ("y", [0, None] * 4, "label column 'y' is empty in 4 rows"),
        ("y", [0, 1, 2, -1] * 2, "code a truth of two classes as 0 and 1"),
        ("sex", ["F"] * 8, "single value 'F'"),
        ("patient", [1, None] * 4, "patient column 'patient' is empty"),
        ("image", ["a"] * 8, "repeats identifiers in 7 rows (first: row 3), such as 'a'"),
    ],
)
def test_bad_columns(frame, tmp_path, column, values, told):
    path = tmp_path / "p.csv"
    frame[column] = values
    frame.to_csv(path, index=False)
    with pytest.raises(InputError) as error:
        read(path, identifier="image")
    assert told in str(error.value)
    assert str(path) in str(error.value)


def test_missing_columns_name_the_nearest(frame, tmp_path):
    path = tmp_path / "p.csv"
    frame.to_csv(path, index=False)
    with pytest.raises(InputError, match="no column 'Sexe'; did you mean 'sex'"):
        read(path, groups=["Sexe"])
    with pytest.raises(InputError, match="no column 'quux'; it has 'image', 'patient'"):
        read(path, groups=["quux"])


def test_a_group_column_of_identifiers(tmp_path):
    path = tmp_path / "p.csv"
    n = 5000
    pd.DataFrame({"y": np.arange(n) % 2, "p": 0.5, "sex": np.arange(n)}).to_csv(path, index=False)
    with pytest.raises(InputError, match="5,000 distinct values, more than 200"):
        read(path, patient=None)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"y,p,sex,patient\n", "no rows"),
        (b"y,p,sex,patient\n0,0.1,F,1\n1,0.2,M,2,3,4\n", "no regular table"),
        (b"\x89PNG\x00\x00\x00", "no text file"),
        (b"\xff\xfe\x00", "UTF-16"),
    ],
)
def test_bad_files(tmp_path, content, told):
    path = tmp_path / "p.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told):
        read(path)


def test_no_such_file_and_no_parquet(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "absent.csv")
    path = tmp_path / "p.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read(path)
