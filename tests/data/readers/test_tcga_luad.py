import json

import numpy as np
import pandas as pd
import pytest

from fairdx.core.errors import InputError
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.readers.tcga_luad import read_tcga_luad

pydicom = pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
from pydicom.dataset import FileDataset, FileMetaDataset  # noqa: E402
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian  # noqa: E402

AXIAL, CORONAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1]
HEADER = (
    "Series UID,Collection,3rd Party Analysis,Data Description URI,Subject ID,Study UID,Study Description,"
    "Study Date,Series Description,Manufacturer,Modality,SOP Class Name,SOP Class UID,Number of Images,"
    "File Size,File Location,Download Timestamp"
)
SUBJECTS = ["TCGA-17-Z001", "TCGA-17-Z002", "TCGA-17-Z003", "TCGA-17-Z004"]
OLD = """case_id\tcase_submitter_id\tproject_id\tage_at_index\tgender\trace\tajcc_pathologic_stage
u1\tTCGA-17-Z001\tTCGA-LUAD\t58\tfemale\twhite\tStage IIB
u1\tTCGA-17-Z001\tTCGA-LUAD\t58\tfemale\twhite\tStage IIB
u2\tTCGA-17-Z002\tTCGA-LUAD\t71\tmale\tblack or african american\tStage IIIA
u2\tTCGA-17-Z002\tTCGA-LUAD\t71\tmale\tblack or african american\t'--
u3\tTCGA-17-Z003\tTCGA-LUAD\t'--\tmale\tnot reported\tStage IV
"""
NEW = """cases.case_id\tcases.submitter_id\tdemographic.age_at_index\tdemographic.gender\tdemographic.sex_at_birth\tdemographic.race\tdiagnoses.ajcc_pathologic_stage
u1\tTCGA-17-Z001\t58\t'--\tfemale\twhite\tStage IIB
u2\tTCGA-17-Z002\t71\t'--\tmale\tblack or african american\tStage IIIA
u3\tTCGA-17-Z003\t'--\t'--\tmale\tnot reported\tStage IV
"""  # noqa: E501
BIOTAB = """bcr_patient_uuid\tbcr_patient_barcode\tgender\trace\tajcc_pathologic_tumor_stage\tage_at_initial_pathologic_diagnosis
bcr_patient_uuid\tbcr_patient_barcode\tgender\trace\tajcc_pathologic_tumor_stage\tage_at_initial_pathologic_diagnosis
CDE_ID:\tCDE_ID:2673794\tCDE_ID:2200604\tCDE_ID:2192199\tCDE_ID:3203222\tCDE_ID:2006657
u1\tTCGA-17-Z001\tFEMALE\tWHITE\tStage IIB\t58
u2\tTCGA-17-Z002\tMALE\tBLACK OR AFRICAN AMERICAN\tStage IIIA\t71
u3\tTCGA-17-Z003\tMALE\t[Not Available]\tStage IV\t[Not Available]
"""  # noqa: E501
CBIOPORTAL = """#Patient Identifier	Sex	Race	Neoplasm Disease Stage	Diagnosis Age
#STRING	STRING	STRING	STRING	NUMBER
PATIENT_ID	SEX	RACE	AJCC_PATHOLOGIC_TUMOR_STAGE	AGE
TCGA-17-Z001	Female	WHITE	STAGE IIB	58
TCGA-17-Z002	Male	BLACK OR AFRICAN AMERICAN	STAGE IIIA	71
TCGA-17-Z003	Male	[Not Available]	STAGE IV	
"""
CLINICAL = {
    "clinical.tsv": OLD,
    "clinical.cart.2026-01-01/clinical.tsv": NEW,
    "nationwidechildrens.org_clinical_patient_luad.txt": BIOTAB,
    "data_clinical_patient.txt": CBIOPORTAL,
}


def write_slice(path, uid, z, orientation=AXIAL, value=0, kind=("ORIGINAL", "PRIMARY", "AXIAL"), **more):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    image.SeriesInstanceUID, image.ImageType = uid, list(kind)
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, z], orientation
    image.Rows = image.Columns = 16
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
    image.RescaleSlope, image.RescaleIntercept = 1, 0
    image.PixelData = np.full((16, 16), value, np.int16).tobytes()
    for name, content in more.items():
        setattr(image, name, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)


@pytest.fixture
def root(tmp_path):
    """Three CT series, one of them reformatted, one at another place than the table says; a PET series."""
    manifest = tmp_path / "manifest-1700000000000"
    rows = []
    for number, subject in enumerate(SUBJECTS):
        uid = f"1.3.6.{number}"
        place = f"TCGA-LUAD/{subject}/01-01-1990-NA-CHEST-{number}/2-AXIAL-{number}"
        if subject == "TCGA-17-Z003":
            rows.append((uid, subject, "CT", 4, ".\\TCGA-LUAD\\moved\\away"))
        else:
            rows.append((uid, subject, "CT", 4 + (number == 1), ".\\" + place.replace("/", "\\")))
        for z in range(3):  # file names run against the positions
            write_slice(manifest / place / f"1-{3 - z:03d}.dcm", uid, 10.0 * z, value=100 * number + 10 * z)
        if number == 0:
            write_slice(manifest / place / "1-004.dcm", uid, 0, CORONAL)
        else:
            write_slice(manifest / place / "1-004.dcm", uid, 0, kind=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    rows.append(("1.3.6.9", "TCGA-17-Z001", "PT", 100, ".\\TCGA-LUAD\\pet"))
    lines = [
        f"{u},TCGA-LUAD,,,{s},1.2,CHEST,01-01-1990,AX,GE,{m},CT,1.2,{n},1 MB,{p},now"
        for u, s, m, n, p in rows
    ]
    (manifest / "metadata.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    return manifest


@pytest.mark.parametrize("name", CLINICAL)
def test_series_joined_to_every_form_of_the_clinical_data(root, name):
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(CLINICAL[name])
    source = read_tcga_luad(root, clinical=root / name if name.startswith("data_") else None)
    table = source.table
    assert table["patient"].tolist() == SUBJECTS[:3]
    assert table["path"].str.endswith("1-002.dcm").all()
    assert table["stage"].tolist() == [0, 1, 1]
    assert table["sex"].tolist() == ["female", "male", "male"]
    assert table["race"].fillna("?").tolist() == ["white", "black", "?"]
    assert table["age_group"].fillna("?").tolist() == ["under 60", "60 and over", "?"]
    assert source.exclusions["reason"].value_counts().to_dict() == {
        "slice not chosen": 6,
        "slice is not axial": 3,
        "patient without clinical data": 4,
    }
    # Every file is in the set or on the list of exclusions.
    on_disk = {file.relative_to(root).as_posix() for file in root.rglob("*.dcm")}
    assert on_disk == {*table["path"], *source.exclusions["image"]}
    assert source.settings["unused_series_without_files"] == 1
    assert source.settings["incomplete_series"] == 1
    assert source.settings["cases_of_contradictory_stage"] == 0


def test_sex_and_age_from_headers_where_the_clinical_data_lack_them(root):
    lines = OLD.replace("71\tmale", "71\t'--")  # Z002 without sex, Z003 without age
    (root / "clinical.tsv").write_text(lines)
    for file in sorted(root.rglob("*.dcm")):
        header = pydicom.dcmread(file)
        header.PatientSex, header.PatientAge = "M", "044Y"
        header.save_as(file)
    plain = read_tcga_luad(root)
    assert plain.table["sex"].fillna("?").tolist() == ["female", "?", "male"]
    source = read_tcga_luad(root, ask_headers=True)
    assert source.table["sex"].tolist() == ["female", "male", "male"]
    assert source.table["age"].tolist() == [58, 71, 44]
    assert source.table["age_group"].tolist() == ["under 60", "60 and over", "under 60"]
    assert source.settings["patients_whose_sex_is_from_headers"] == 1
    assert source.settings["patients_whose_age_is_from_headers"] == 1
    assert "patients_whose_sex_is_from_headers" not in plain.settings


def test_window_and_order_of_slices(root, tmp_path):
    (root / "clinical.tsv").write_text(OLD)
    source = read_tcga_luad(root.parent, clinical=root / "clinical.tsv", slices="all", window="mediastinum")
    assert len(source.table) == 9
    dataset = prepare(source, tmp_path / "out", PrepareOptions(size=16, test=0.5, validation=0, workers=1))
    # Feet to head, through a window from -160 to 240 HU.
    values = np.array([100 * number + 10 * z for number in range(3) for z in range(3)])
    assert np.abs(dataset.images[:, 0, 8, 8] - np.clip((values + 160) / 400, 0, 1) * 255).max() <= 0.51
    assert dataset.meta.policies["window"] == [40.0, 400.0]
    assert read_tcga_luad(root, slices="every", step=3).table["path"].str.endswith("1-002.dcm").all()


def test_damaged_slice_stops_or_is_skipped(root, tmp_path):
    (root / "clinical.tsv").write_text(OLD)
    first = sorted(root.rglob("*.dcm"))[0]
    first.write_bytes(first.read_bytes()[:100])
    options = {"size": 16, "test": 0.5, "validation": 0, "workers": 1}
    with pytest.raises(InputError, match=rf"{first.name} is not PNG, JPEG, TIFF, WebP, DICOM or NIfTI"):
        prepare(read_tcga_luad(root), tmp_path / "out", PrepareOptions(**options))
    dataset = prepare(read_tcga_luad(root), tmp_path / "out", PrepareOptions(**options, on_error="skip"))
    assert dataset.meta.exclusions["file is not PNG, JPEG, TIFF, WebP, DICOM or NIfTI"] == 1
    assert len(dataset) == 3


def test_contradictory_stages_are_unknown_and_counted(root):
    rows = OLD.splitlines()
    rows[2] = rows[2].replace("Stage IIB", "Stage IVA")
    (root / "clinical.tsv").write_text("\n".join(rows))
    source = read_tcga_luad(root)
    assert source.table["stage"].fillna(-1).tolist() == [-1, 1, 1]
    assert source.settings["cases_of_undecided_stage"] == 1


def test_errors_name_the_row_below_comments(root):
    (root / "clinical.tsv").write_text(CBIOPORTAL.replace("IIIA", "V"))
    with pytest.raises(InputError, match=r"clinical\.tsv row 5: .* is 'STAGE V'"):
        read_tcga_luad(root)


def test_without_a_column_of_race(root):
    lines = [line.split("\t") for line in OLD.splitlines()]
    (root / "clinical.tsv").write_text("\n".join("\t".join(cells[:5] + cells[6:]) for cells in lines))
    source = read_tcga_luad(root)
    assert list(source.attributes) == ["sex", "age_group"]
    assert source.policies["race_map"] is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ajcc_pathologic_stage", "stage", r"no column 'diagnoses\.ajcc_pathologic_stage' or"),
        ("Stage IIIA", "Stage V", "row 4: 'ajcc_pathologic_stage' is 'Stage V', not a stage"),
        ("\tmale\tblack", "\tm\tblack", "row 4: the sex is 'm'"),
        ("\t71\tmale", "\told\tmale", "row 4: 'age_at_index' is 'old', not an age"),
        ("TCGA-17", "TCGA-99", "not one row of the two belongs together"),
    ],
)
def test_clinical_data_that_is_wrong(root, old, new, message):
    (root / "clinical.tsv").write_text(OLD.replace(old, new))
    with pytest.raises(InputError, match=message):
        read_tcga_luad(root)


def test_folder_that_is_wrong(root):
    with pytest.raises(InputError, match=r"has no clinical\.tsv or"):
        read_tcga_luad(root)
    (root / "clinical.tsv").write_text(OLD)
    for options, message in (
        ({"slices": "first"}, "slices='first'"),
        ({"window": "bone"}, "window='bone'"),
        ({"slices": "every", "step": 0}, "step=0"),
    ):
        with pytest.raises(InputError, match=message):
            read_tcga_luad(root, **options)


def test_series_that_is_nowhere_and_file_that_is_in_no_series(root, tmp_path):
    (root / "clinical.tsv").write_text(OLD)
    table = pd.read_csv(root / "metadata.csv", dtype=str)
    table.assign(**{"Series UID": table["Series UID"].replace("1.3.6.2", "1.3.6.77")}).to_csv(
        root / "metadata.csv", index=False
    )
    source = read_tcga_luad(root)
    assert source.exclusions["reason"].value_counts()["not in the table"] == 4
    options = {"size": 16, "test": 0.5, "validation": 0, "workers": 1}
    with pytest.raises(InputError, match=r"TCGA-LUAD/moved/away does not exist .with on-error skip"):
        prepare(source, tmp_path / "out", PrepareOptions(**options))
    dataset = prepare(source, tmp_path / "out", PrepareOptions(**options, on_error="skip"))
    assert dataset.meta.exclusions["file does not exist"] == 1


@pytest.fixture
def mixed(tmp_path):
    """One folder: 5 slices of a CT, 9 of a PET, 5 of another CT, and what radiotherapy leaves there."""
    place = tmp_path / "TCGA-LUAD" / "TCGA-17-Z001" / "study"
    for number in range(5):
        more = {"Modality": "CT", "PatientID": "TCGA-17-Z001", "SOPInstanceUID": f"1.{number}"}
        name = ("1-%03d.dcm", "1-%03d.DCM", "IM%04d")[number % 3] % number
        write_slice(place / name, "1.1", 10.0 * number, value=number, **more)
        more["SOPInstanceUID"] = f"2.{number}"
        write_slice(place / f"2-{number:03d}.dcm", "1.2", 10.0 * number, value=100 + number, **more)
    write_slice(place / "1-000 (1).dcm", "1.1", 0, Modality="CT", SOPInstanceUID="1.0")  # loaded down twice
    for number in range(9):
        write_slice(place / f"PT{number}", "1.3", 10.0 * number, value=200, Modality="PT")
    write_slice(place / "scout.dcm", "1.1", 0, kind=("ORIGINAL", "PRIMARY", "LOCALIZER"), Modality="CT")
    write_slice(place / "dose.dcm", "1.1", 20, Modality="RTDOSE")
    write_slice(place / "seg", "1.4", 20, Modality="SEG")
    (place / "LICENSE").write_text("text")
    (place / "._1-000.dcm").write_bytes(b"what macOS leaves")
    rows = [(f"1.{n}", m, n_files) for n, m, n_files in ((1, "CT", 5), (2, "CT", 5), (3, "PT", 9))]
    location = ".\\TCGA-LUAD\\TCGA-17-Z001\\study"
    lines = [
        f"{u},TCGA-LUAD,,,TCGA-17-Z001,1.2,x,y,z,GE,{m},CT,1.2,{n},1 MB,{location},now" for u, m, n in rows
    ]
    (tmp_path / "metadata.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    (tmp_path / "clinical.tsv").write_text(OLD)
    return tmp_path


def test_series_that_share_a_folder_are_not_mixed(mixed):
    source = read_tcga_luad(mixed, slices="all")
    assert source.table["series"].value_counts().to_dict() == {"1.1": 5, "1.2": 5}
    names = source.table["path"].str.rpartition("/")[2]
    assert names[source.table["series"] == "1.1"].tolist() == [
        "1-000 (1).dcm",
        "1-001.DCM",
        "IM0002",
        "1-003.dcm",
        "1-004.DCM",
    ]
    assert names[source.table["series"] == "1.2"].str.startswith("2-").all()
    assert source.exclusions["reason"].value_counts().to_dict() == {
        "modality is PT": 9,
        "copy of another slice": 1,
        "slice is not axial": 1,
        "modality is RTDOSE": 1,
        "not in the table": 1,
    }
    # Every DICOM file is in the set or on the list.
    dicom = {path.relative_to(mixed).as_posix() for path in mixed.rglob("*/study/*")}
    others = {path for path in dicom if path.endswith(("LICENSE", "._1-000.dcm"))}
    assert dicom - others == {*source.table["path"], *source.exclusions["image"]}


def test_one_series_of_the_folder_alone(mixed):
    lines = (mixed / "metadata.csv").read_text().splitlines()
    (mixed / "metadata.csv").write_text("\n".join(lines[:2]))
    source = read_tcga_luad(mixed, slices="all")
    assert source.table["series"].tolist() == ["1.1"] * 5
    assert source.exclusions["reason"].value_counts()["not in the table"] == 5 + 9 + 1


def test_without_a_table_the_files_say_what_they_are(mixed):
    """As the Imaging Data Commons gives the collection out."""
    (mixed / "metadata.csv").unlink()
    source = read_tcga_luad(mixed, slices="all")
    assert source.table["series"].value_counts().to_dict() == {"1.1": 5, "1.2": 5}
    assert set(source.table["patient"]) == {"TCGA-17-Z001"}
    (mixed / "empty").mkdir()
    (mixed / "empty" / "clinical.tsv").write_text(OLD)
    with pytest.raises(InputError, match=r"has no metadata\.csv and no DICOM file"):
        read_tcga_luad(mixed / "empty")


def test_a_series_of_another_patient_than_the_table_says_is_counted(mixed):
    file = mixed / "metadata.csv"
    file.write_text(file.read_text().replace(",,TCGA-17-Z001,", ",,TCGA-17-Z002,", 1))
    assert read_tcga_luad(mixed).settings["series_of_another_patient"] == 1


def test_a_stray_quote_in_the_clinical_table_costs_no_patient(root):
    (root / "clinical.tsv").write_text(OLD.replace("TCGA-LUAD\t58", '"TCGA-LUAD\t58', 1))
    assert read_tcga_luad(root).table["patient"].tolist() == SUBJECTS[:3]


def test_clinical_json_of_the_gdc(root):
    cases = [
        {
            "submitter_id": "TCGA-17-Z001",
            "demographic": {"sex_at_birth": "female", "race": "white", "age_at_index": 58},
            "diagnoses": [
                {"ajcc_pathologic_stage": "Stage IIB", "treatments": []},
                {"ajcc_pathologic_stage": None},
            ],
        },
        {
            "submitter_id": "TCGA-17-Z002",
            "demographic": {"gender": "male", "race": "black or african american", "age_at_index": 71},
            "diagnoses": [{"ajcc_pathologic_stage": "Stage IIIA"}],
        },
        {"submitter_id": "TCGA-17-Z003", "diagnoses": [{"ajcc_pathologic_stage": "Stage IV"}]},
    ]
    (root / "clinical.cart.2026-01-01.json").write_text(json.dumps(cases))
    table = read_tcga_luad(root).table
    assert table["stage"].tolist() == [0, 1, 1]
    assert table["sex"].fillna("?").tolist() == ["female", "?", "?"]  # the first name that has a value
    assert table["race"].fillna("?").tolist() == ["white", "black", "?"]
    assert table["age"].fillna(-1).tolist() == [58, 71, -1]
    for text, message in (("[1]", "is not a list of cases"), ("[]", "has no case"), ("{", "cannot be read")):
        (root / "clinical.cart.2026-01-01.json").write_text(text)
        with pytest.raises(InputError, match=message):
            read_tcga_luad(root)
