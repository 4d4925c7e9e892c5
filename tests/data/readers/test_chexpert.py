import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairdx.core.errors import InputError
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.readers.chexpert import read_chexpert

# The header of the real train.csv, in its order.
HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,"
    "Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,"
    "Fracture,Support Devices"
)


def row(path, sex, age, side, position, pneumonia, edema="", no_finding=""):
    cells = dict.fromkeys(HEADER.split(","), "")
    cells |= {"Path": f"CheXpert-v1.0-small/{path}", "Sex": sex, "Age": age, "Frontal/Lateral": side}
    cells |= {"AP/PA": position, "Pneumonia": pneumonia, "Edema": edema, "No Finding": no_finding}
    return ",".join(cells.values())


TRAIN = [
    row("train/patient00001/study1/view1_frontal.jpg", "Female", "68", "Frontal", "AP", "1.0", "0.0"),
    row("train/patient00001/study1/view2_lateral.jpg", "Female", "68", "Lateral", "", "1.0", "0.0"),
    row("train/patient00002/study1/view1_frontal.jpg", "Male", "30", "Frontal", "PA", "-1.0", "-1.0"),
    row("train/patient00003/study2/view1_frontal.jpg", "Unknown", "0", "Frontal", "AP", "0.0"),
    row("train/patient00004/study1/view1_frontal.jpg", "Male", "90", "Frontal", "LL", "", no_finding="1.0"),
    row("train/patient00005/study1/view1_frontal.jpg", "Male", "60", "Frontal", "PA", "", no_finding="1.0"),
]
VALID = [
    row("valid/patient64541/study1/view1_frontal.jpg", "Male", "73", "Frontal", "AP", "1.0", "0.0", "0.0")
]
DEMOGRAPHICS = [
    ("patient00001", "Female", 68, "White, non-Hispanic", "Non-Hispanic/Non-Latino"),
    ("patient00002", "Female", 31, "Black or African American", "Non-Hispanic/Non-Latino"),
    ("patient00003", "Unknown", 44, "Patient Refused", "Unknown"),
    ("patient00005", "Male", 80, "Asian - Historical Conv", "Unknown"),
    ("patient64541", "Male", 73, "Other", "Hispanic/Latino"),
    ("patient64541", "Male", 73, "White", "Hispanic/Latino"),
]
DEMO_HEADER = ["PATIENT", "GENDER", "AGE_AT_CXR", "PRIMARY_RACE", "ETHNICITY"]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "CheXpert-v1.0-small"
    folder.mkdir()
    (folder / "train.csv").write_text("\n".join([HEADER, *TRAIN]) + "\n")
    (folder / "valid.csv").write_text("\n".join([HEADER, *VALID]) + "\n")
    for line in [*TRAIN, *VALID]:
        path = tmp_path / line.partition(",")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 39), 90, np.uint8)).save(path)
    return folder


def test_defaults_counted_by_hand(root, tmp_path):
    source = read_chexpert(root)
    table = source.table
    assert table["image"].tolist()[0] == "train/patient00001/study1/view1_frontal.jpg"
    assert table["patient"].tolist() == [
        "patient00001",
        "patient00002",
        "patient00003",
        "patient00005",
        "patient64541",
    ]
    assert table["Pneumonia"].fillna(-1).tolist() == [1, -1, 0, 0, 1]
    assert table["Edema"].fillna(-1).tolist() == [0, -1, 0, 0, 0]
    assert table["No Finding"].tolist() == [0, 0, 0, 1, 0]
    assert table["sex"].fillna("?").tolist() == ["female", "male", "?", "male", "male"]
    assert table["age"].fillna(-1).tolist() == [68, 30, -1, 60, 73]
    assert table["split"].tolist() == ["train"] * 4 + ["test"]
    assert source.exclusions["reason"].tolist() == ["view is lateral", "view is LL"]
    assert len(table) + len(source.exclusions) == len(TRAIN) + len(VALID)
    assert source.settings == {"age_zero_taken_as_unknown": 1, "impossible_ages": 0}
    assert next(iter(source.labels)) == "Pneumonia"
    dataset = prepare(source, tmp_path / "out", PrepareOptions(size=16, validation=0.5, workers=1))
    assert dataset.meta.policies["uncertain"] == "ignore"
    assert dataset.meta.exclusions == {"view is lateral": 1, "view is LL": 1}


@pytest.mark.parametrize(
    ("uncertain", "unmentioned", "pneumonia", "edema"),
    [
        ("ignore", "zeros", [1, -1, 0, 0, 1], [0, -1, 0, 0, 0]),
        ("zeros", "zeros", [1, 0, 0, 0, 1], [0, 0, 0, 0, 0]),
        ("ones", "zeros", [1, 1, 0, 0, 1], [0, 1, 0, 0, 0]),
        ("ones", "ignore", [1, 1, 0, -1, 1], [0, 1, -1, -1, 0]),
    ],
)
def test_uncertain_and_unmentioned_are_separate_choices(root, uncertain, unmentioned, pneumonia, edema):
    table = read_chexpert(root, uncertain=uncertain, unmentioned=unmentioned).table
    assert table["Pneumonia"].fillna(-1).tolist() == pneumonia
    assert table["Edema"].fillna(-1).tolist() == edema
    assert table["No Finding"].tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize(("view", "kept"), [("frontal", 5), ("AP", 3), ("PA", 2), ("all", 7)])
def test_views(root, view, kept):
    source = read_chexpert(root, view=view)
    assert (len(source.table), len(source.exclusions)) == (kept, 7 - kept)


def test_images_that_the_tables_do_not_mention_are_listed(root):
    for path in ("train/patient00009/study1/view1_frontal.jpg", "valid/._hidden.JPG", "other/x.jpg"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    exclusions = read_chexpert(root).exclusions
    assert exclusions.loc[exclusions["reason"] == "not in the table", "image"].tolist() == [
        "train/patient00009/study1/view1_frontal.jpg",
        "valid/._hidden.JPG",
    ]
    source = read_chexpert(root, scan_files=False)
    assert "not in the table" not in set(source.exclusions["reason"])
    assert source.policies["scan_files"] is False


def test_impossible_ages_are_unknown_and_counted(root):
    path = root / "train.csv"
    path.write_text(path.read_text().replace("Male,30", "Male,-30").replace("Male,60", "Male,600"))
    source = read_chexpert(root)
    assert source.table["age"].fillna(-1).tolist() == [68, -1, -1, -1, 73]
    assert source.settings["impossible_ages"] == 2


def test_by_patient_leaves_the_split_to_prepare(root):
    assert "split" not in read_chexpert(root, official_split=False).table


def add_test_set(root, table, header=HEADER, name="CheXpert-v1.0-small/"):
    """A test set as Stanford gives it out, or as CheXlocalize does: with labels alone."""
    views = [f"patient6474{i}/study1/view{v}" for i in (1, 2) for v in ("1_frontal", "2_lateral")]
    lines = []
    for view in views:
        cells = row(
            f"test/{view}.jpg", "Male", "50", "Frontal" if "frontal" in view else "Lateral", "AP", "1"
        )
        values = dict(zip(HEADER.split(","), cells.split(","), strict=True))
        lines.append(name + ",".join(values[h] for h in header.split(",")).partition("/")[2])
        (root / "test" / view).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 39), 90, np.uint8)).save(root / "test" / f"{view}.jpg")
    (root / table).write_text("\n".join([header, *lines]) + "\n")


LABELS_ALONE = ",".join(["Path", *HEADER.split(",")[5:]])


@pytest.mark.parametrize(
    ("table", "header", "name"),
    [
        ("test.csv", HEADER, "CheXpert-v1.0-small/"),
        ("test.csv", LABELS_ALONE, "CheXpert-v1.0/"),
        ("test_labels.csv", LABELS_ALONE, ""),
    ],
)
def test_the_test_set_is_used_where_it_is_there(root, table, header, name):
    add_test_set(root, table, header, name)
    source = read_chexpert(root)
    assert source.table["split"].tolist() == ["train"] * 4 + ["validation"] + ["test"] * 2
    assert source.table["image"].tolist()[-1] == "test/patient64742/study1/view1_frontal.jpg"
    assert source.table["Pneumonia"].tolist()[-2:] == [1, 1]
    assert source.exclusions["reason"].tolist() == ["view is lateral", "view is LL"] + ["view is lateral"] * 2
    known = source.table["sex"].fillna("?").tolist()[-2:]
    assert known == (["male", "male"] if header == HEADER else ["?", "?"])
    pooled = read_chexpert(root, official_split=False)
    assert "split" not in pooled.table
    assert len(pooled.table) == 7


def test_sex_and_age_of_the_test_set_come_from_the_demographics(root):
    add_test_set(root, "test_labels.csv", LABELS_ALONE, "")
    people = [*DEMOGRAPHICS, ("patient64741", "Female", 44, "Caucasian", "x")]
    pd.DataFrame(people, columns=DEMO_HEADER).to_csv(root / "CHEXPERT DEMO.csv", index=False)
    last = read_chexpert(root).table.iloc[-2:]
    assert last["sex"].fillna("?").tolist() == ["female", "?"]
    assert last["age"].fillna(-1).tolist() == [44, -1]
    assert last["race"].fillna("?").tolist() == ["white", "?"]


def test_files_of_a_test_set_without_its_table_are_listed(root):
    add_test_set(root, "test.csv")
    (root / "test.csv").unlink()
    assert read_chexpert(root).exclusions["reason"].value_counts()["not in the table"] == 4


def test_one_table_is_enough_without_the_official_split(root):
    (root / "valid.csv").unlink()
    assert len(read_chexpert(root, official_split=False).table) == 4
    with pytest.raises(InputError, match=r"valid\.csv does not exist: add it, or do not use the official"):
        read_chexpert(root)
    add_test_set(root, "test.csv")
    assert read_chexpert(root).table["split"].tolist() == ["train"] * 4 + ["test"] * 2
    add_test_set(root, "test_labels.csv")
    with pytest.raises(InputError, match=r"has both test\.csv and test_labels\.csv"):
        read_chexpert(root)


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_demographics(root, kind):
    sheet = pd.DataFrame(DEMOGRAPHICS, columns=DEMO_HEADER)
    if kind == "csv":
        sheet.to_csv(root / "CHEXPERT DEMO.csv", index=False)
    else:
        pytest.importorskip("openpyxl", reason="the extra `excel` is not installed")
        with pd.ExcelWriter(root / "CHEXPERT DEMO.xlsx") as book:
            pd.DataFrame({"notes": ["x"]}).to_excel(book, sheet_name="Readme", index=False)
            sheet.to_excel(book, sheet_name="CheXpert Demo 11-13", index=False)
    source = read_chexpert(root)
    # patient64541 is once Other and once White: a tie, so not known.
    assert source.table["race"].fillna("?").tolist() == ["white", "black", "?", "asian", "?"]
    assert source.attributes["race"] == ("white", "black", "asian", "other")
    assert source.table["ethnicity"].fillna("?").tolist() == [
        "Non-Hispanic/Non-Latino",
        "Non-Hispanic/Non-Latino",
        "Unknown",
        "Unknown",
        "Hispanic/Latino",
    ]
    assert source.settings == {
        "age_zero_taken_as_unknown": 1,
        "impossible_ages": 0,
        "images_without_demographics": 1,
        "images_whose_sex_contradicts_the_demographics": 1,
        "images_whose_age_contradicts_the_demographics": 1,
        "patients_of_contradictory_race": 1,
        "patients_of_undecided_race": 1,
        "records_of_unrecognised_race": 0,
    }
    assert read_chexpert(root, race_map="white_other").table["race"].fillna("?").tolist() == [
        "white",
        "other",
        "?",
        "other",
        "?",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Path,Sex", "Path,Gender", "no column 'Sex'"),
        (",Pneumonia,", ",Pneumonia ?,", r"no column 'Pneumonia' \(did you mean 'Pneumonia \?'"),
        ("Female,68,Frontal", "F,68,Frontal", "row 2: 'Sex' is 'F'"),
        ("Male,30", "Male,thirty", "row 4: 'Age' is 'thirty', not an age"),
        ("-1.0", "-2.0", "row 4: 'Edema' is '-2.0'"),
        ("Lateral,,", "Sideways,,", "row 3: 'Frontal/Lateral' is 'Sideways'"),
        ("small/train/patient00002", "small/train/person2", "row 4: 'Path' is '.*person2.*', not like"),
    ],
)
def test_a_table_that_is_wrong(root, old, new, message):
    path = root / "train.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=rf"train\.csv.*{message}"):
        read_chexpert(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uncertain": "one"}, r"uncertain='one' is not possible \(did you mean 'ones'"),
        ({"unmentioned": "ones"}, "unmentioned='ones' is not possible"),
        ({"view": "lateral"}, "view='lateral'"),
        ({"race_map": "x"}, "race_map='x'"),
        ({"finding": "pneumonia"}, r"finding='pneumonia' is not possible \(did you mean 'Pneumonia'"),
    ],
)
def test_unknown_policies(root, options, message):
    pd.DataFrame(DEMOGRAPHICS, columns=DEMO_HEADER).to_csv(root / "CHEXPERT DEMO.csv", index=False)
    with pytest.raises(InputError, match=message):
        read_chexpert(root, **options)


def test_demographics_of_something_else(root):
    (root / "CHEXPERT DEMO.xlsx").write_bytes(b"no workbook")
    pytest.importorskip("openpyxl", reason="the extra `excel` is not installed")
    with pytest.raises(InputError, match=r"CHEXPERT DEMO\.xlsx cannot be read as a workbook"):
        read_chexpert(root)
    (root / "CHEXPERT DEMO.csv").write_text(",".join(DEMO_HEADER) + "\npatient9,Male,5,White,x\n")
    with pytest.raises(InputError, match="not one row of the two belongs together"):
        read_chexpert(root)
    (root / "valid.csv").unlink()
    with pytest.raises(InputError, match=r"valid\.csv does not exist"):
        read_chexpert(root)
