"""Ways in which an auditor's table can be read as something else: each is read right, said, or refused."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairdx.auditing import audit, read_predictions
from fairdx.auditing.gate import parse_condition
from fairdx.core.errors import InputError
from fairdx.core.missing import BY_PEOPLE, unknown_attribute

RNG = np.random.default_rng(0)
N = 400
SEX = RNG.choice(["F", "M"], N)
TRUTH = (RNG.random(N) < 0.4).astype(int)
SCORE = np.clip(0.3 * TRUTH + 0.7 * RNG.random(N), 0, 1).round(4)
PATIENT = [f"p{i // 2}" for i in range(N)]
BASE = pd.DataFrame({"sex": SEX, "y": TRUTH, "p": SCORE, "patient": PATIENT})


def read(tmp_path, frame, *, text=None, kind="csv", **columns):
    path = tmp_path / f"table.{kind}"
    if text is not None:
        path.write_bytes(text)
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    return read_predictions(path, **{"label": "y", "score": "p", "groups": "sex", **columns})


def sizes(column):
    return dict(zip(column.names, np.bincount(column.codes).tolist(), strict=True))


@pytest.mark.parametrize("word", ["unknown", "Not Reported", " UNKNOWN ", "?", "prefer not to say", "--"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_people_write_for_an_unknown_attribute_is_missing(tmp_path, word, kind):
    hidden = np.arange(N) % 3 == 0
    found = read(tmp_path, BASE.assign(sex=np.where(hidden, word, SEX)), kind=kind)
    assert sizes(found.sensitive_features["sex"])["(missing)"] == hidden.sum()
    assert any("written as" in note for note in found.notes)
    result = audit(
        found.y_true,
        found.y_score,
        sensitive_features=found.sensitive_features,
        n_replicates=20,
        explore=False,
    )
    assert result.attributes["sex"].reference != "(missing)"


def test_words_that_were_named_are_read_as_they_were_named(tmp_path):
    frame = BASE.assign(sex=np.where(SEX == "F", "known", "unknown"))
    found = read(tmp_path, frame, groups="sex:known|unknown")
    assert found.sensitive_features["sex"].names == ("known", "unknown")
    found = read(tmp_path, frame, missing=["NA"])
    assert found.sensitive_features["sex"].names == ("known", "unknown")


def test_a_minus_beside_a_plus_is_a_value(tmp_path):
    found = read(tmp_path, BASE.assign(sex=np.where(SEX == "F", "+", "-")))
    assert set(found.sensitive_features["sex"].names) == {"+", "-"}
    assert unknown_attribute(["-", "x"]) == {"-"}


def test_an_unknown_truth_is_no_healthy_one(tmp_path):
    words = np.where(np.arange(N) % 10 == 0, "unknown", np.where(TRUTH == 1, "malignant", "benign"))
    found = read(tmp_path, BASE.assign(y=words))
    assert found.positive_class == "malignant"
    assert len(found.y_true) == N - 40
    assert any(
        "40 of 400 rows have no label in y, written as 'unknown', and are left out" in n for n in found.notes
    )


@pytest.mark.parametrize("word", ["none", "No", "-"])
def test_a_word_for_healthy_is_no_missing_label(tmp_path, word):
    found = read(tmp_path, BASE.assign(y=np.where(TRUTH == 1, "edema", word)), positive="edema")
    assert len(found.y_true) == N


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_the_line_that_excel_puts_before_the_header_is_none(tmp_path, sign):
    text = f"sep={sign}\r\n".encode() + BASE.to_csv(index=False, sep=sign).encode()
    found = read(tmp_path, None, text=text)
    assert found.y_score == pytest.approx(SCORE)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("note", ["{y},{p},{sex},{note}", "{y},{p},{note},{sex}"], ids=["last", "inside"])
@pytest.mark.parametrize("marked", [(3,), (3, 200), tuple(range(0, N, 9))], ids=["one", "two", "many"])
def test_a_quotation_mark_that_nobody_closes_loses_no_rows(tmp_path, end, note, marked):
    def lines(mark):
        rows = zip(TRUTH, SCORE, SEX, strict=True)
        yield note.format(y="y", p="p", sex="sex", note="note")
        for row, (y, p, sex) in enumerate(rows):
            yield note.format(y=y, p=p, sex=sex, note=mark if row in marked else "")

    def text(mark):
        return end.join([*lines(mark), ""]).encode()

    with pytest.raises(InputError, match=r"quotation mark in line 5|in line 2|has \d fields"):
        read(tmp_path, None, text=text('"5 inch'))
    for fine in ('5" inch', '"two, or""' + end + "three" + end + end + 'lines"'):
        assert read(tmp_path, None, text=text(fine)).y_score == pytest.approx(SCORE)


@pytest.mark.parametrize("above", ["\n\n", " \n\t\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_blank_lines_above_the_header_are_none(tmp_path, above, encoding):
    found = read(tmp_path, None, text=(above + BASE.to_csv(index=False)).encode(encoding))
    assert found.y_score == pytest.approx(SCORE)


@pytest.mark.parametrize(
    ("ill", "written", "healthy", "positive"),
    [("ill", "ILL ", "well", "ill"), ("1", "1.0", "0", "1"), ("2", "2.0", "1", "2")],
)
def test_a_named_disease_that_is_written_in_two_ways_is_one(tmp_path, ill, written, healthy, positive):
    words = np.where(TRUTH == 1, np.where(np.arange(N) % 2, ill, written), healthy)
    found = read(tmp_path, BASE.assign(y=words), positive=positive)
    assert found.y_true.codes == pytest.approx(TRUTH)
    assert any("all of them count as positive" in note for note in found.notes)


def test_a_patient_who_is_nobody_is_refused(tmp_path):
    frame = BASE.assign(patient=np.where(np.arange(N) % 4 == 0, "unknown", PATIENT))
    with pytest.raises(InputError, match=r"'patient' is empty .as 'unknown'. in 100 rows"):
        read(tmp_path, frame, patient="patient")


@pytest.mark.parametrize("size", [b"", b'<dimension ref="A1"/>', b'<dimension ref="A1:E100"/>'])
def test_the_size_that_a_workbook_claims_cuts_nothing_off(tmp_path, size):
    frame = BASE.assign(note=np.where(np.arange(N) == 3, "x", None))  # most rows end before the last column
    frame.to_excel(tmp_path / "whole.xlsx", index=False)
    whole = zipfile.ZipFile(tmp_path / "whole.xlsx")
    with zipfile.ZipFile(tmp_path / "table.xlsx", "w") as archive:
        for name in whole.namelist():
            content = whole.read(name)
            if name.endswith("sheet1.xml"):
                content, n = re.subn(rb"<dimension[^>]*/>", size, content)
                assert n == 1
            archive.writestr(name, content)
    columns = {"label": "y", "score": "p", "groups": ["sex", "note"]}
    found = read_predictions(tmp_path / "table.xlsx", **columns)
    assert found.y_score == pytest.approx(SCORE)
    assert sizes(found.sensitive_features["note"]) == {"x": 1, "(missing)": N - 1}


def test_a_group_of_one_patient_is_no_reference():
    group = np.where(np.arange(N) < 100, "a", np.where(np.arange(N) < 190, "b", "large"))
    patients = np.where(group == "large", "one", np.arange(N).astype(str))
    result = audit(
        TRUTH, SCORE, sensitive_features={"g": group}, patients=patients, n_replicates=20, explore=False
    )
    assert result.attributes["g"].reference == "a"
    assert list(result.effects["g"]) == ["b"]
    assert any(
        "fewer than 30 images or too few patients" in n.text and "large (210)" in n.text for n in result.notes
    )


def test_decimal_commas_are_read_and_weights_too(tmp_path):
    frame = BASE.assign(p=BASE.p.map(lambda v: str(v).replace(".", ",")), w="1,5")
    found = read(tmp_path, None, text=frame.to_csv(index=False, sep=";").encode(), weight="w")
    assert found.y_score == pytest.approx(SCORE)
    assert set(found.weight) == {1.5}


@pytest.mark.parametrize("column", ["p", "sex"])
def test_the_truth_is_neither_score_nor_group(tmp_path, column):
    given = {"p": {"score": "y"}, "sex": {"groups": "y"}}[column]
    with pytest.raises(InputError, match="is no truth"):
        read(tmp_path, BASE, **given)


def test_patients_that_differ_in_spaces_are_said(tmp_path):
    frame = BASE.assign(patient=[p + " " * (i % 2) for i, p in enumerate(PATIENT)])
    found = read(tmp_path, frame, patient="patient")
    assert len(found.patients.names) == N
    assert any(
        "200 patients are written like another but for capitals, spaces or a last .0" in n
        for n in found.notes
    )


def test_patients_as_numbers_that_coincide_are_refused(tmp_path):
    frame = BASE.assign(patient=(10**17 + np.arange(N)).astype(float))
    with pytest.raises(InputError, match="beyond 2"):
        read(tmp_path, frame, kind="parquet", patient="patient")
    found = read(tmp_path, frame.assign(patient=10**17 + np.arange(N)), kind="parquet", patient="patient")
    assert len(found.patients.names) == N


@pytest.mark.parametrize(
    ("one", "other"), [("1", "1.0"), ("F", "f"), ("F", "F\u00a0"), ("Mädchen", "Ma\u0308dchen"), ("7", "07")]
)
def test_groups_that_are_written_in_two_ways_are_said(tmp_path, one, other):
    frame = BASE.assign(sex=["x" if s == "M" else (one if i % 2 else other) for i, s in enumerate(SEX)])
    found = read(tmp_path, frame)
    assert len(found.sensitive_features["sex"].names) == 3
    assert any("differ only in how they are written" in note for note in found.notes)


@pytest.mark.parametrize("code", [-1, 999])
def test_codes_for_an_unknown_age_are_said(tmp_path, code):
    age = np.where(np.arange(N) % 8 == 0, code, RNG.integers(20, 90, N))
    found = read(tmp_path, BASE.assign(sex=age), groups="sex@40,60")
    assert any(f"sex is {code} or as strange in 50 rows" in note for note in found.notes)
    clean = read(tmp_path, BASE.assign(sex=RNG.integers(20, 99, N)), groups="sex@40,60")
    assert not any("strange" in note for note in clean.notes)


def test_an_unknown_age_in_words_is_missing(tmp_path):
    age = np.where(np.arange(N) % 8 == 0, "unknown", RNG.integers(20, 90, N).astype(str))
    found = read(tmp_path, BASE.assign(sex=age), groups="sex@40,60")
    assert sizes(found.sensitive_features["sex"])["(missing)"] == 50


@pytest.mark.parametrize(
    "values",
    [
        pd.Categorical(SEX, ["M", "F", "X"]),
        pd.Series(SEX == "F"),
        pd.Series(np.where(SEX == "F", 1.0, 2.0)),
        pd.Timestamp("2020-01-01", tz="Europe/Berlin") + pd.to_timedelta((SEX == "F") * 1.0, unit="D"),
    ],
    ids=["unused level", "boolean", "float codes", "time zone"],
)
def test_groups_of_other_types_are_the_same_groups(tmp_path, values):
    found = read(tmp_path, BASE.assign(sex=values), kind="parquet")
    assert sorted(sizes(found.sensitive_features["sex"]).values()) == sorted(
        np.unique(SEX, return_counts=True)[1]
    )


def test_a_duplicated_index_is_no_column(tmp_path):
    found = read(tmp_path, BASE.set_index(pd.Index([7] * N, name="image")), kind="parquet")
    assert found.y_score == pytest.approx(SCORE)


def test_a_group_and_its_first_letter_are_said(tmp_path):
    words = ["Female" if (s == "F" and i % 2) else s for i, s in enumerate(SEX)]
    found = read(tmp_path, BASE.assign(sex=words))
    assert any("is 'F' short for 'Female'?" in note for note in found.notes)
    assert not any("short for" in note for note in read(tmp_path, BASE).notes)


def test_rows_in_another_order_are_refused():
    order = RNG.permutation(N)
    truth, score, sex = (pd.Series(column) for column in (TRUTH, SCORE, SEX))
    with pytest.raises(InputError, match="same index in another order"):
        audit(truth, score.iloc[order], sensitive_features=sex)
    with pytest.raises(InputError, match="same index in another order"):
        audit(truth, score, sensitive_features={"sex": sex.iloc[order]})
    shifted = score.set_axis(np.arange(N) + 5)
    audit(truth, shifted, sensitive_features=sex, n_replicates=20, explore=False)


def test_a_perfect_score_is_said():
    assert "Does the truth stand in for it" in notes_of(TRUTH * 0.5 + 0.2)
    assert "Does the truth stand in for it" not in notes_of(SCORE)


def notes_of(score, **more):
    result = audit(TRUTH, score, sensitive_features=SEX, n_replicates=20, explore=False, **more)
    return " ".join(note.text for note in result.notes if note.kind == "caution")


def test_scores_that_decide_nothing_are_said():
    assert "no image is decided positive" in notes_of(SCORE / 100)
    assert "every image is decided positive" in notes_of(0.9 + SCORE / 100)
    assert "is decided positive" not in notes_of(SCORE)


def test_scores_that_are_decisions_are_said():
    assert "next to 0 or 1" in notes_of((SCORE > 0.5).astype(float))
    assert "next to 0 or 1" not in notes_of(SCORE)


def test_the_list_of_words_is_in_lower_case_and_in_the_guide():
    guide = Path("docs/how-to/audit.md").read_text(encoding="utf-8").replace("\n", " ")
    for word in BY_PEOPLE:
        assert word == word.casefold()
        assert f"`{word}`" in guide or word == "'--"


@pytest.mark.parametrize(
    ("bad", "told"), [("-1", "negative"), ("", "no finite weight"), ("0", "0 in every row")]
)
def test_weights_that_cannot_be(tmp_path, bad, told):
    with pytest.raises(InputError, match=told):
        read(tmp_path, BASE.assign(w=bad), weight="w")


@pytest.mark.parametrize(("column", "is_the"), [("y", "label"), ("sex", "group"), ("p@0.5", "score")])
def test_a_covariate_is_neither_label_nor_group_nor_score(tmp_path, column, is_the):
    with pytest.raises(InputError, match=f"is given as a covariate and as the {is_the}"):
        read(tmp_path, BASE, covariates=[column])


def test_labels_of_a_second_file_may_be_written_otherwise_but_not_differ(tmp_path):
    first, second = BASE.assign(image=np.arange(N)), BASE.assign(image=np.arange(N), p=1 - SCORE)
    second["y"] = np.where(second.image < 5, np.nan, TRUTH.astype(float))  # 1.0, and blank where image < 5
    second.sample(frac=1, random_state=0).to_csv(tmp_path / "second.csv", index=False)
    asked = {"identifier": "image", "compare_to": tmp_path / "second.csv"}
    assert read(tmp_path, first, **asked).compare_to == pytest.approx(1 - SCORE)
    second.assign(y=1 - TRUTH).to_csv(tmp_path / "second.csv", index=False)
    with pytest.raises(InputError, match="'y' differs from that"):
        read(tmp_path, first, **asked)


def test_digits_of_a_condition_are_not_joined():
    assert parse_condition("eo>0.05").limit == 0.05
    with pytest.raises(InputError, match="not of the form"):
        parse_condition("eo>0_05")  # which Python takes for 5
