import numpy as np
import pytest
from PIL import Image

from fairdx.core.errors import InputError
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.readers.nih import FINDINGS, read_nih

# The headers as they are in the wild: both editions, with the commas that split them, and the Kaggle sample.
V2020 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
V2020_SEX = V2020.replace("Patient Gender", "Patient Sex")
V2017 = V2020 + ","
SAMPLE = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y"
)
ROWS = [
    "00000001_000.png,Cardiomegaly,0,1,58,M,PA,2682,2749,0.143,0.143",
    "00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.143,0.143",
    "00000002_000.png,No Finding,0,2,81,M,PA,2500,2048,0.171,0.171",
    "00000003_000.png,Hernia,0,3,60,F,AP,2582,2991,0.143,0.143",
    "00000003_001.png,Pneumonia|Pleural_Thickening,1,3,61,F,AP,2582,2991,0.143,0.143",
]


def layout(root, header=V2020, rows=ROWS, table="Data_Entry_2017_v2020.csv", folders=("images",), end="\n"):
    root.mkdir(exist_ok=True)
    (root / table).write_bytes((header + end + end.join(rows) + end).encode())
    for number, row in enumerate(rows):
        folder = root / folders[number % len(folders)]
        folder.mkdir(parents=True, exist_ok=True)
        name = row.partition(",")[0]
        if name:
            Image.fromarray(np.full((8, 8), number * 10, np.uint8)).save(folder / name)
    return root


@pytest.mark.parametrize(
    ("header", "table", "end"),
    [
        (V2020, "Data_Entry_2017_v2020.csv", "\n"),
        (V2020_SEX, "Data_Entry_2017_v2020.csv", "\r\n"),
        (V2017, "Data_Entry_2017.csv", ",\n"),
        (SAMPLE, "sample_labels.csv", "\n"),
        ("\ufeff" + V2020, "Data_Entry_2017.csv", "\n"),
    ],
    ids=["2020", "sex and CRLF", "2017 with trailing commas", "Kaggle sample", "byte order mark"],
)
def test_every_header_gives_the_same(tmp_path, header, table, end):
    source = read_nih(layout(tmp_path, header.rstrip(",") if end == ",\n" else header, ROWS, table, end=end))
    assert source.table["patient"].tolist() == ["1", "1", "2", "3", "3"]
    assert source.table["sex"].tolist() == ["male", "male", "male", "female", "female"]
    assert source.table["age_group"].tolist() == [
        "under 60",
        "under 60",
        "60 and over",
        "60 and over",
        "60 and over",
    ]
    assert source.table["Pneumonia"].tolist() == [0, 0, 0, 0, 1]
    assert source.table["Cardiomegaly"].tolist() == [1, 1, 0, 0, 0]
    assert source.table["view"].tolist() == ["PA", "PA", "PA", "AP", "AP"]
    # Counted by hand: 2 Cardiomegaly, 1 each of Emphysema, Hernia, Pneumonia and Pleural_Thickening.
    assert int(source.table[list(FINDINGS)].sum().sum()) == 6
    assert list(source.labels) == ["Pneumonia", *(f for f in FINDINGS if f != "Pneumonia")]


def test_several_findings_make_one_label(tmp_path):
    source = read_nih(layout(tmp_path), finding=["Hernia", "Emphysema"])
    assert next(iter(source.labels)) == "Hernia or Emphysema"
    assert source.table["Hernia or Emphysema"].tolist() == [0, 1, 0, 1, 0]
    assert source.table["Hernia"].tolist() == [0, 0, 0, 1, 0]


def test_ages_of_the_sample_and_of_the_first_edition(tmp_path):
    ages = ["058Y", "011M", "005D", "414", ""]
    rows = [
        ",".join([*row.split(",")[:4], age, *row.split(",")[5:]]) for row, age in zip(ROWS, ages, strict=True)
    ]
    source = read_nih(layout(tmp_path, rows=rows), age_bins=(1, 60))
    assert source.table["age"].round(3).fillna(-1).tolist() == [58, 0.917, 0.014, -1, -1]
    assert source.table["age_group"].fillna("?").tolist() == ["1 to 59", "under 1", "under 1", "?", "?"]
    assert source.settings == {"impossible_ages": 1}


def test_twelve_folders_and_what_is_not_in_the_table(tmp_path):
    root = layout(tmp_path / "source", folders=("images_001/images", "images_012/images"))
    (root / "images_012" / "images" / "00099999_000.png").touch()
    source = read_nih(root)
    assert source.exclusions.to_dict("records") == [
        {"image": "00099999_000.png", "reason": "not in the table", "detail": ""}
    ]
    dataset = prepare(source, tmp_path / "out", PrepareOptions(size=8, test=0.5, validation=0, workers=1))
    assert dataset.images[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]
    assert dataset.meta.exclusions == {"not in the table": 1}


def test_archives_and_other_files_beside_the_folders_are_passed_over(tmp_path):
    """As the official script for the download leaves them."""
    root = layout(tmp_path, folders=("images_001/images", "images_002/images"))
    for name in (
        "images_001.tar.gz",
        "images_012.zip",
        "images_003",
        "._Data_Entry_2017_v2020.csv",
        "README",
    ):
        (root / name).write_bytes(b"not an image")
    (root / "Data_Entry_2017_v2020.csv.d").mkdir()
    source = read_nih(root)
    assert source.table["path"].str.startswith(("images_001/images/", "images_002/images/")).all()
    assert source.exclusions.empty


def lists(root, train, test):
    (root / "train_val_list.txt").write_text("\n".join(train))
    (root / "test_list.txt").write_text("\n".join(test))


def test_official_lists(tmp_path):
    root = layout(tmp_path / "source")
    names = [row.partition(",")[0] for row in ROWS]
    lists(root, names[:2], names[3:])
    source = read_nih(root)
    assert source.table["split"].tolist() == ["train", "train", "test", "test"]
    assert source.exclusions["reason"].tolist() == ["in neither official list"]
    assert "split" not in read_nih(root, official_split=False).table
    (root / "train_val_list.txt").write_text("\n".join(names[:2]), encoding="utf-8-sig")
    assert read_nih(root).table["split"].tolist() == ["train", "train", "test", "test"]
    (root / "train_val_list.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"train_val_list\.txt cannot be read"):
        read_nih(root)
    lists(root, names[:4], names[4:])
    with pytest.raises(InputError, match="patient '3' is in the splits 'train' and 'test'"):
        prepare(read_nih(root), tmp_path / "out")
    lists(root, names[:4], names[3:])
    with pytest.raises(
        InputError, match=r"image '00000003_000\.png' is in both train_val_list\.txt and test_list\.txt"
    ):
        read_nih(root)
    (root / "test_list.txt").unlink()
    with pytest.raises(InputError, match=r"has train_val_list\.txt without test_list\.txt"):
        read_nih(root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Finding Labels", "Findings", r"no column 'Finding Labels' \(did you mean 'Findings'\?\)"),
        ("Patient Gender", "Gender", "no column 'Patient Gender' or 'Patient Sex'"),
        ("Hernia", "Hernai", "row 5: 'Finding Labels' is 'Hernai', which is not"),
        (
            "Cardiomegaly|Emphysema",
            "Cardiomegaly|No Finding",
            "row 3: 'Finding Labels' is 'Cardiomegaly.No Finding'",
        ),
        ("No Finding", "", "row 4: 'Finding Labels' is ''"),
        ("60,F", "60,female", r"row 5: 'Patient Gender' is 'female' \(known: 'M', 'F'\)"),
        ("60,F", "sixty,F", "row 5: 'Patient Age' is 'sixty', not an age"),
        ("81,M,PA", "81,M,PA,extra,", r"cannot be read as a table: .*line 4"),
    ],
)
def test_a_table_that_is_wrong(tmp_path, old, new, message):
    root = layout(tmp_path)
    path = root / "Data_Entry_2017_v2020.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_nih(root)


def test_a_folder_that_is_wrong(tmp_path):
    with pytest.raises(InputError, match="nowhere is not a folder"):
        read_nih(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"has no Data_Entry_2017_v2020\*\.csv or"):
        read_nih(tmp_path)
    root = layout(tmp_path / "source")
    with pytest.raises(InputError, match=r"finding='pneumonai' is not possible \(did you mean 'Pneumonia'"):
        read_nih(root, finding=["pneumonai"])
    with pytest.raises(InputError, match=r"age bins \[60, 40\] are not possible"):
        read_nih(root, age_bins=(60, 40))
    (root / "images" / "00000002_000.png").unlink()
    with pytest.raises(InputError, match=r"images/00000002_000\.png does not exist"):
        prepare(read_nih(root), tmp_path / "out", PrepareOptions(test=0.5, validation=0))
    (root / "Data_Entry_2017_v2020.csv").write_bytes(b"\xff\xfe\x00I")
    with pytest.raises(InputError, match="not in UTF-8"):
        read_nih(root)
    (root / "Data_Entry_2017_v2020.csv").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_nih(root)
