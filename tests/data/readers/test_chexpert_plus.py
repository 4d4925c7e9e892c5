import csv
import json

import numpy as np
import pytest
from PIL import Image

from fairdx.core.errors import InputError
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.readers.chexpert_plus import read_chexpert_plus
from fairdx.data.readers.observations import OBSERVATIONS

# The header of the real table, in its order; the first column is an index without a name.
HEADER = [
    "",
    *["path_to_image", "path_to_dcm", "frontal_lateral", "ap_pa", "deid_patient_id"],
    *["patient_report_date_order", "report"],
    *(f"section_{name}" for name in ["narrative", "clinical_history", "history", "comparison", "technique"]),
    *(f"section_{name}" for name in ["procedure_comments", "findings", "impression", "end_of_impression"]),
    *["section_summary", "section_accession_number", "age", "sex", "race", "ethnicity", "interpreter_needed"],
    *["insurance_type", "recent_bmi", "deceased", "split"],
]
TABLE, LABELS = "df_chexpert_plus_240401.csv", "chexbert_labels/impression_fixed.json"
REPORT = 'NARRATIVE:\nCHEST, "portable", 2 views\n\n\nIMPRESSION:\n1. Clear, as before.'
PEOPLE = [  # image, view, position, age, sex, race, insurance, impression, pneumonia
    ("train/patient1/study1/view1_frontal.jpg", "Frontal", "AP", 68, "Female", "White, non-Hispanic",
     "Medicare", "x", 1.0),
    ("train/patient1/study1/view2_lateral.jpg", "Lateral", "", 68, "Female", "White", "Medicare", "x", 1.0),
    ("train/patient2/study1/view1_frontal.jpg", "Frontal", "PA", 30, "Male", "Black", "Medicaid", "x", -1.0),
    ("train/patient3/study1/view1_frontal.jpg", "Frontal", "AP", 0, "Unknown", "Patient Refused", "Unknown",
     "x", 0.0),
    ("train/patient4/study1/view1_frontal.jpg", "Frontal", "LL", 50, "Male", "Asian", "", "x", None),
    ("train/patient5/study1/view1_frontal.jpg", "Frontal", "PA", 60, "Male", "Klingon", "Medicare", "", None),
    ("valid/patient64541/study1/view1_frontal.jpg", "Frontal", "AP", 73, "Male", "Other", "", "x", 1.0),
]  # fmt: skip


def write_labels(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def label_rows(healthy="train/patient5"):
    for image, *_, pneumonia in PEOPLE:
        none = 1.0 if image.startswith(healthy) else None
        yield {
            "path_to_image": image,
            **dict.fromkeys(OBSERVATIONS),
            "Pneumonia": pneumonia,
            "No Finding": none,
        }


@pytest.fixture
def root(tmp_path):
    with (tmp_path / TABLE).open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER, restval="", lineterminator="\n")
        writer.writeheader()
        for place, (image, side, position, age, sex, race, insurance, impression, _) in enumerate(PEOPLE):
            writer.writerow(
                {
                    "": place,
                    "path_to_image": image,
                    "frontal_lateral": side,
                    "ap_pa": position,
                    "deid_patient_id": image.split("/")[1],
                    "report": REPORT,
                    "section_impression": impression and REPORT,
                    "age": age,
                    "sex": sex,
                    "race": race,
                    "insurance_type": insurance,
                    "ethnicity": "Unknown",
                    "split": image.split("/")[0],
                }
            )
            path = tmp_path / "PNG" / "PNG" / image.replace(".jpg", ".png")  # the table says jpg
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((32, 39), 90, np.uint8)).save(path)
    (tmp_path / "chexbert_labels").mkdir()
    write_labels(tmp_path / LABELS, label_rows())
    return tmp_path


def test_defaults_counted_by_hand(root):
    source = read_chexpert_plus(root)
    table = source.table
    assert table["patient"].tolist() == ["patient1", "patient2", "patient3", "patient5", "patient64541"]
    assert table["path"].iloc[0] == "PNG/PNG/train/patient1/study1/view1_frontal.png"
    # patient5 has no impression: the labeller's "No Finding" is of an empty text.
    assert table["Pneumonia"].fillna(-1).tolist() == [1, -1, 0, -1, 1]
    assert table["No Finding"].fillna(-1).tolist() == [0, 0, 0, -1, 0]
    assert table["sex"].fillna("?").tolist() == ["female", "male", "?", "male", "male"]
    assert table["age"].fillna(-1).tolist() == [68, 30, -1, 60, 73]
    assert table["race"].fillna("?").tolist() == ["white", "black", "?", "other", "other"]
    assert table["insurance"].fillna("?").tolist() == ["Medicare", "Medicaid", "?", "Medicare", "?"]
    assert table["split"].tolist() == ["train"] * 4 + ["test"]
    assert "report" not in table
    assert source.exclusions["reason"].tolist() == ["view is lateral", "view is LL"]
    assert source.settings == {
        "age_zero_taken_as_unknown": 1,
        "impossible_ages": 0,
        "images_without_impression": 1,
        "labels_without_image": 0,
        "images_of_unrecognised_race": 1,
        "missing_words_of_insurance": 1,
    }
    pooled = read_chexpert_plus(root, official_split=False).table
    assert "split" not in pooled


def test_it_prepares(root, tmp_path):
    options = PrepareOptions(size=16, test=0.5, validation=0, workers=1)
    dataset = prepare(read_chexpert_plus(root, official_split=False), tmp_path / "out", options)
    assert dataset.meta.counts["images"] == 5
    assert (dataset.images.max(axis=(1, 2, 3)) == 90).all()


def test_images_of_chexpert_itself_and_unlisted_ones(root):
    (root / "PNG").rename(root / "unused")
    for image, *_ in PEOPLE:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).touch()
    (root / "train/patient1/study9.jpg").touch()
    source = read_chexpert_plus(root)
    assert source.table["path"].tolist() == source.table["image"].tolist()
    assert source.exclusions.loc[source.exclusions["reason"] == "not in the table", "image"].tolist() == [
        "train/patient1/study9.jpg"
    ]


def test_labels_of_other_sections_and_joins(root):
    rows = [row for row in label_rows("none") if "patient1/" not in row["path_to_image"]]
    write_labels(root / "report_fixed.json", [*rows, {**rows[0], "path_to_image": "train/patient9/x.jpg"}])
    source = read_chexpert_plus(root, section="report", unmentioned="ignore")
    assert source.settings["labels_without_image"] == 1
    assert source.settings["images_without_report"] == 0
    assert source.exclusions["reason"].tolist().count("image without labels") == 2
    assert source.table["Pneumonia"].fillna(-1).tolist() == [-1, 0, -1, 1]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (TABLE, "Female", "F", r"row 2: 'sex' is 'F'"),
        (TABLE, ",train/", ",tests/", r"row 2: 'path_to_image' is 'tests/"),
        (TABLE, "deid_patient_id", "patient", "no column 'deid_patient_id'"),
        (LABELS, '"Pneumonia": -1.0', '"Pneumonia": 7', "row 3: 'Pneumonia' is '7'"),
        (LABELS, "{", "", "line 1 is not JSON"),
        (LABELS, "{", '["a"]\n{', "line 1 is not an object"),
        (LABELS, "Edema", "Oedema", "line 1 has no 'Edema'"),
        (LABELS, "view2_lateral", "view1_frontal", "row 2: image .* listed twice"),
    ],
)  # fmt: skip
def test_files_that_are_wrong(root, file, old, new, message):
    path = root / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_chexpert_plus(root)


def test_files_that_are_not_there(root):
    with pytest.raises(InputError, match=r"no findings_fixed\.json"):
        read_chexpert_plus(root, section="findings")
    (root / "PNG").rename(root / "unused")
    with pytest.raises(InputError, match=r"has no image train/patient1.*unpack the images there"):
        read_chexpert_plus(root)
