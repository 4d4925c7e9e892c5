# ruff: noqa: E501 - the lines of the real files are that long
import gzip

import numpy as np
import pytest
from PIL import Image

from fairdx.core.errors import InputError
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.readers.mimic_cxr import read_mimic_cxr

METADATA = """dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning
aaaa0001-1,10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,21800506,213014.531,CHEST (PA AND LAT),postero-anterior,Erect
aaaa0002-1,10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,21800506,213014.531,CHEST (PA AND LAT),lateral,Erect
aaaa0003-1,10000032,53189527,CHEST (PORTABLE AP),AP,3056,2544,21810626,165500.312,CHEST (PORTABLE AP),antero-posterior,
aaaa0004-1,10000764,57375967,CHEST (PORTABLE AP),AP,3056,2544,21321015,83543.656,CHEST (PORTABLE AP),antero-posterior,Recumbent
aaaa0005-1,10000898,50771383,CHEST (PA AND LAT),PA,3056,2544,21880803,221125.984,CHEST (PA AND LAT),postero-anterior,Erect
aaaa0006-1,10000935,50578979,,,2022,1736,21830908,163040.187,,,
aaaa0007-1,10000980,54935705,CHEST (PA AND LAT),PA,2022,1736,21851206,163040.187,CHEST (PA AND LAT),postero-anterior,Erect
"""
SPLIT = """dicom_id,study_id,subject_id,split
aaaa0001-1,50414267,10000032,train
aaaa0002-1,50414267,10000032,train
aaaa0003-1,53189527,10000032,train
aaaa0004-1,57375967,10000764,test
aaaa0005-1,50771383,10000898,validate
aaaa0006-1,50578979,10000935,train
"""
OBSERVED = (
    "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Airspace Opacity,"
    "No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
LABELS = f"""subject_id,study_id,{OBSERVED}
10000032,50414267,,,,,,,,1.0,,,,-1.0,,
10000032,53189527,,,,0.0,,,,,,,,1.0,,
10000764,57375967,,,1.0,,,,,,,,,,,
10000935,50578979,,,,,,,,,1.0,,,,,
10009999,59999999,,,,,,,,,1.0,,,,,
"""
EXPERTS = """study_id,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Lesion,Lung Opacity,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices
57375967,,,,,,,,1.0,,,,,,
"""
PATIENTS = """subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod
10000032,F,52,2180,2014 - 2016,2180-09-09
10000764,M,86,2132,2014 - 2016,
10000935,F,52,2182,2008 - 2010,
"""
ADMISSIONS = """subject_id,hadm_id,admittime,insurance,race
10000032,1,2180-05-06 22:23:00,Medicaid,WHITE
10000032,2,2180-06-26 18:27:00,Medicaid,WHITE - RUSSIAN
10000032,3,2180-08-05 23:44:00,Medicare,UNKNOWN
10000032,4,2180-09-05 23:44:00,Medicaid,BLACK/CAPE VERDEAN
10000764,5,2132-10-14 23:31:00,Medicare,ASIAN - CHINESE
10000764,6,2132-10-14 23:31:00,Medicare,OTHER
"""
NAMES = {
    "mimic-cxr-2.0.0-metadata.csv": METADATA,
    "mimic-cxr-2.0.0-split.csv": SPLIT,
    "mimic-cxr-2.0.0-chexpert.csv": LABELS,
    "mimic-cxr-2.0.0-negbio.csv": LABELS.replace(",1.0,,\n", ",0.0,,\n"),
    "mimic-cxr-2.1.0-test-set-labeled.csv": EXPERTS,
}


def write(root, name, text, *, packed):
    path = root / f"{name}{'.gz' if packed else ''}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())


def layout(root, *, packed=True, module="", race="race"):
    for name, text in NAMES.items():
        write(root, name, text, packed=packed and "2.1.0" not in name)
    write(root, f"{module}patients.csv", PATIENTS, packed=packed)
    write(root, f"{module}admissions.csv", ADMISSIONS.replace("race", race), packed=packed)
    for line in METADATA.splitlines()[1:]:
        image, patient, study, *_ = line.split(",")
        path = root / "files" / f"p{patient[:2]}" / f"p{patient}" / f"s{study}" / f"{image}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 25), 100, np.uint8)).save(path)
    return root


@pytest.mark.parametrize(
    ("packed", "module", "race"),
    [(True, "hosp/", "race"), (False, "", "race"), (True, "core/", "ethnicity")],
)
def test_join_counted_by_hand(tmp_path, packed, module, race):
    source = read_mimic_cxr(layout(tmp_path / "source", packed=packed, module=module, race=race))
    table = source.table.set_index("image")
    assert list(table.index) == ["aaaa0001-1", "aaaa0003-1", "aaaa0004-1"]
    assert table["Pneumonia"].fillna(-1).tolist() == [-1, 1, 0]
    assert table["Lung Opacity"].tolist() == [1, 0, 0]
    assert table["Edema"].tolist() == [0, 0, 0]
    assert table["sex"].tolist() == ["female", "female", "male"]
    # anchor_age + year of the study - anchor_year
    assert table["age"].tolist() == [52, 53, 86]
    # The patient is white in two admissions and black in one; Asian and other tie.
    assert table["race"].fillna("?").tolist() == ["white", "white", "?"]
    assert table["insurance"].tolist() == ["Medicaid", "Medicaid", "Medicare"]
    assert table["split"].tolist() == ["train", "train", "test"]
    assert dict(zip(source.exclusions["image"], source.exclusions["reason"], strict=True)) == {
        "aaaa0002-1": "view is LATERAL",
        "aaaa0005-1": "study without labels",
        "aaaa0006-1": "view is not said",
        "aaaa0007-1": "not in the split table",
    }
    assert source.settings == {
        "labelled_studies_without_image": 1,
        "split_rows_without_image": 0,
        "impossible_ages": 0,
        "images_without_patient_record": 2,
        "images_without_admission": 3,
        "patients_of_contradictory_race": 2,
        "patients_of_undecided_race": 1,
        "admissions_of_unrecognised_race": 0,
    }
    dataset = prepare(source, tmp_path / "out", PrepareOptions(size=16, validation=0, workers=1))
    assert dataset.meta.policies["labeller"] == "chexpert"
    assert dataset.meta.attributes["insurance"] == ["Medicaid", "Medicare"]
    assert len(dataset) == 3


def test_other_policies(tmp_path):
    root = layout(tmp_path)
    assert read_mimic_cxr(root, labeller="negbio").table["Pneumonia"].fillna(-1).tolist() == [-1, 0, 0]
    assert read_mimic_cxr(root, uncertain="ones").table["Pneumonia"].tolist() == [1, 1, 0]
    assert read_mimic_cxr(root, unmentioned="ignore").table["Pneumonia"].fillna(-1).tolist() == [-1, 1, -1]
    experts = read_mimic_cxr(root, expert_test_labels=True)
    assert experts.table["Pneumonia"].fillna(-1).tolist() == [-1, 1, 1]
    assert experts.settings["studies_with_expert_labels"] == 1
    unsplit = read_mimic_cxr(root, official_split=False, view="all")
    assert "split" not in unsplit.table
    # Patient 10000935 has a record, the view is not said; 10000898 and 10000980 have no labels.
    assert unsplit.table["image"].tolist() == [
        "aaaa0001-1",
        "aaaa0002-1",
        "aaaa0003-1",
        "aaaa0004-1",
        "aaaa0006-1",
    ]
    assert unsplit.table["No Finding"].tolist() == [0, 0, 0, 0, 1]


def test_patients_without_a_record_stay_with_unknown_sex(tmp_path):
    root = layout(tmp_path)
    write(root, "patients.csv", PATIENTS.replace("10000764", "19999999"), packed=True)
    source = read_mimic_cxr(root)
    assert source.table["sex"].fillna("?").tolist() == ["female", "female", "?"]
    assert source.table["age_group"].fillna("?").tolist() == ["under 60", "under 60", "?"]
    assert source.settings["images_without_patient_record"] == 3


def test_files_and_rows_that_have_no_counterpart(tmp_path):
    root = layout(tmp_path)
    extra = root / "files" / "p10" / "p10000032" / "s50414267" / "bbbb.jpg"
    extra.touch()
    write(root, "mimic-cxr-2.0.0-split.csv", SPLIT + "bbbb,50414267,10000032,train\n", packed=True)
    write(root, "patients.csv", PATIENTS.replace("F,52,2180", "F,52,2480"), packed=True)
    source = read_mimic_cxr(root)
    assert source.exclusions.iloc[-1].tolist() == [
        "files/p10/p10000032/s50414267/bbbb.jpg",
        "not in the table",
        "",
    ]
    assert source.settings["split_rows_without_image"] == 1
    assert source.settings["impossible_ages"] == 3  # the three images of that patient
    assert len(read_mimic_cxr(root, scan_files=False).exclusions) == len(source.exclusions) - 1


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("mimic-cxr-2.0.0-metadata.csv", "ViewPosition", "View", "no column 'ViewPosition'"),
        ("mimic-cxr-2.0.0-metadata.csv", ",21810626", ",June", "row 4: 'StudyDate' is 'June', not a date"),
        ("mimic-cxr-2.0.0-metadata.csv", "aaaa0003-1", "../secret", r"row 4: 'dicom_id' is '\.\./secret'"),
        ("mimic-cxr-2.0.0-split.csv", "validate", "validation", "row 6: 'split' is 'validation'"),
        (
            "mimic-cxr-2.0.0-split.csv",
            "aaaa0005-1",
            "aaaa0004-1",
            "row 6: image 'aaaa0004-1' is listed twice",
        ),
        ("mimic-cxr-2.0.0-chexpert.csv", "-1.0", "2.0", "row 2: 'Pneumonia' is '2.0'"),
        ("mimic-cxr-2.0.0-chexpert.csv", "Pneumothorax", "Pneumo", "no column 'Pneumothorax'"),
        (
            "mimic-cxr-2.0.0-chexpert.csv",
            "53189527",
            "50414267",
            "row 3: study '50414267' is blank or listed twice",
        ),
        ("patients.csv", ",F,52,2180", ",X,52,2180", "row 2: 'gender' is 'X'"),
        ("patients.csv", "10000764,", "10000032,", "patient '10000032' twice"),
        ("admissions.csv", "race", "colour", "no column 'ethnicity'"),
    ],
)
def test_a_table_that_is_wrong(tmp_path, name, old, new, message):
    root = layout(tmp_path, packed=False)
    text = (root / name).read_text()
    (root / name).write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_mimic_cxr(root)


def test_damaged_and_missing_tables(tmp_path):
    root = layout(tmp_path)
    path = root / "mimic-cxr-2.0.0-split.csv.gz"
    data = path.read_bytes()
    for damaged, message in (
        (data[: len(data) // 2], "cannot be read as a table"),
        (b"no gzip", "no column"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"split\.csv\.gz .*{message}"):
            read_mimic_cxr(root)
    path.unlink()
    with pytest.raises(InputError, match=r"has no mimic-cxr-\*-split\.csv\*"):
        read_mimic_cxr(root)
    with pytest.raises(InputError, match="elsewhere is not a folder"):
        read_mimic_cxr(root, mimic_iv=tmp_path / "elsewhere", official_split=False)
    with pytest.raises(InputError, match="labeller='negbo'"):
        read_mimic_cxr(root, labeller="negbo")
