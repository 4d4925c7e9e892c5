"""Tables of published data sets and spreadsheets, read as they are."""

import gzip
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairdx.core.errors import InputError
from fairdx.data.readers.table import read_table


def published(root, table, images, **options):
    """A table as its owners publish it, with an image for each path; the value of its pixels is its place."""
    for number, path in enumerate(images):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(root / path)
    for name, text in table.items():
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(root, **options)


PAD_UFES = """patient_id,lesion_id,smoke,age,fitspatrick,gender,diagnostic,itch,img_id,biopsed
PAT_1516,1765,,8,,,NEV,False,PAT_1516_1765_530.png,False
PAT_46,881,False,55,3.0,FEMALE,BCC,True,PAT_46_881_939.png,True
PAT_9,1,True,148,1.0,MALE,MEL,UNK,PAT_9_1_2.png,True
PAT_10,2,True,79,2.0,MALE,ACK,True,PAT_10_2_3.png,True
"""


PAD_IMAGES = [
    "images/imgs_part_1/imgs_part_1/PAT_1516_1765_530.png",
    "images/imgs_part_2/imgs_part_2/PAT_46_881_939.png",
    "images/imgs_part_3/imgs_part_3/PAT_9_1_2.png",
    "images/imgs_part_3/imgs_part_3/PAT_10_2_3.png",
]


def test_pad_ufes_20_as_published(tmp_path):
    source = published(
        tmp_path,
        {"metadata.csv": PAD_UFES},
        PAD_IMAGES,
        image=["img_id"],
        patient="patient_id",
        label=["diagnostic:malignant=MEL,BCC", "biopsed"],
        attribute=["gender", "age@60", "fitspatrick:light=1.0,2.0|dark=3.0", "itch"],
    )
    assert source.table["path"].tolist() == PAD_IMAGES
    assert source.labels == {"diagnostic": ("not malignant", "malignant"), "biopsed": ("0", "1")}
    assert source.table["diagnostic"].tolist() == [0, 1, 1, 0]
    assert source.table["diagnostic_in_table"].tolist() == ["NEV", "BCC", "MEL", "ACK"]
    assert source.table["biopsed"].tolist() == [0, 1, 1, 1]
    assert source.table["age_group"].fillna("?").tolist() == ["under 60", "under 60", "?", "60 and over"]
    assert source.table["fitspatrick"].fillna("?").tolist() == ["?", "dark", "light", "light"]
    assert source.table["itch"].fillna("?").tolist() == ["False", "True", "?", "True"]
    assert source.settings == {
        "images_found_by_name": 4,
        "impossible_ages_of_age": 1,
        "missing_words_of_itch": 1,
    }


def test_fitzpatrick17k_as_published(tmp_path):
    head = (
        "md5hash,fitzpatrick_scale,fitzpatrick_centaur,label,nine_partition_label,three_partition_label,url"
    )
    rows = [
        f"{name},{scale},-1,eczema,inflammatory,{kind},https://x.y/{name}.jpg"
        for name, scale, kind in (("aa", 3, "non-neoplastic"), ("bb", -1, "benign"), ("cc", 6, "malignant"))
    ]
    source = published(
        tmp_path,
        {"fitzpatrick17k.csv": "\n".join([head, *rows])},
        ["images/aa.jpg", "images/bb.jpg", "images/cc.jpg"],
        image=["md5hash"],
        patient="md5hash",
        label=["three_partition_label:malignant=malignant"],
        attribute=["fitzpatrick_scale"],
    )
    assert source.table["path"].tolist() == ["images/aa.jpg", "images/bb.jpg", "images/cc.jpg"]
    assert source.attributes == {"fitzpatrick_scale": ("3", "6")}
    assert source.table["fitzpatrick_scale"].fillna("?").tolist() == ["3", "?", "6"]
    assert source.settings["missing_words_of_fitzpatrick_scale"] == 1
    assert source.table["three_partition_label"].tolist() == [0, 0, 1]


EYES = """ID,Left-Fundus,Right-Fundus,Sex,N,D
0,0_left.jpg,0_right.jpg,Female,1,0
1,1_left.jpg,,Male,0,1
"""


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz", "gz called csv", "xlsx", "semicolons", "latin-1"])
def test_two_images_a_row_in_every_kind_of_table(tmp_path, kind):
    options = {
        "image": ["Left-Fundus", "Right-Fundus"],
        "patient": "ID",
        "label": ["D"],
        "attribute": ["Sex"],
    }
    frame = pd.read_csv(io.StringIO(EYES), dtype=str)
    files = {
        "csv": {"eyes.csv": EYES},
        "tsv": {"eyes.tsv": EYES.replace(",", "\t")},
        "csv.gz": {"eyes.csv.gz": gzip.compress(EYES.encode())},
        "gz called csv": {"eyes.csv": gzip.compress(EYES.encode())},
        "semicolons": {"eyes.csv": EYES.replace(",", ";")},
        "latin-1": {"eyes.csv": EYES.replace("Male", "Männlich").encode("latin-1")},
        "xlsx": {},
    }[kind]
    if kind == "xlsx":
        pytest.importorskip("openpyxl", reason="the extra `excel` is not installed")
        with pd.ExcelWriter(tmp_path / "eyes.xlsx") as book:
            pd.DataFrame({"notes": ["x"]}).to_excel(book, sheet_name="Readme", index=False)
            frame.to_excel(book, sheet_name="Eyes", index=False)
    if kind == "latin-1":
        options["encoding"] = "latin-1"
    source = published(tmp_path, files, ["0_left.jpg", "0_right.jpg", "1_left.jpg"], **options)
    assert source.table["image"].tolist() == ["0_left.jpg", "0_right.jpg", "1_left.jpg"]
    assert source.table["image_column"].tolist() == ["Left-Fundus", "Right-Fundus", "Left-Fundus"]
    assert source.table["patient"].tolist() == ["0", "0", "1"]
    assert source.table["D"].tolist() == [0, 0, 1]
    assert source.table["Sex"].tolist() == ["Female", "Female", "Männlich" if kind == "latin-1" else "Male"]
    assert source.settings == {"images_missing_of_a_row": 1}


def test_sex_and_age_from_headers_where_the_table_lacks_them(tmp_path):
    pydicom = pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
    people = {"1.dcm": ("F", "058Y"), "2.dcm": ("M", "011M"), "3.dcm": ("O", None), "4.dcm": (None, "148Y")}
    for name, (sex, age) in people.items():
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2"
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        image = pydicom.dataset.FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
        image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2"
        image.PatientSex, image.PatientAge = sex, age
        image.save_as(tmp_path / name, enforce_file_format=True)
    text = "image,patient,ill,sex\n1.dcm,a,0,\n2.dcm,b,1,female\n3.dcm,c,0,\n4.dcm,d,1,\n5.png,e,1,\n"
    (tmp_path / "my.csv").write_text(text)
    source = read_table(tmp_path, label=["ill"], attribute=["sex", "age@40"], ask_headers=True)
    assert source.table["sex"].fillna("?").tolist() == ["female", "female", "?", "?", "?"]
    assert source.table["age_group"].fillna("?").tolist() == ["40 and over", "under 40", "?", "?", "?"]
    assert source.settings == {
        "sex_taken_from_headers": 1,
        "age_taken_from_headers": 3,
        "impossible_ages_of_age": 1,
    }
    with pytest.raises(InputError, match="no column 'age'"):
        read_table(tmp_path, label=["ill"], attribute=["sex", "age@40"])
