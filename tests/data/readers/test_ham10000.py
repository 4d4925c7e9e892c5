import numpy as np
import pytest
from PIL import Image

from fairdx.core.errors import InputError
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.readers.ham10000 import read_ham10000

TABLE = """lesion_id,image_id,dx,dx_type,age,sex,localization
HAM_0000118,ISIC_0027419,bkl,histo,80.0,male,scalp
HAM_0000118,ISIC_0025030,bkl,histo,80.0,male,scalp
HAM_0002730,ISIC_0026769,mel,histo,,female,scalp
HAM_0001466,ISIC_0031633,akiec,histo,60.0,unknown,ear
HAM_0002761,ISIC_0029176,bcc,histo,55.0,female,face
HAM_0005132,ISIC_0025837,nv,follow_up,0.0,male,back
"""


def layout(root, folders=("HAM10000_images",), table=TABLE):
    root.mkdir(exist_ok=True)
    (root / "HAM10000_metadata.csv").write_text(table)
    for number, row in enumerate(TABLE.splitlines()[1:]):
        folder = root / folders[number % len(folders)]
        folder.mkdir(exist_ok=True)
        picture = Image.fromarray(np.full((15, 20, 3), (200, 10 * number, 0), np.uint8))
        picture.save(folder / f"{row.split(',')[1]}.jpg", quality=95)
    return root


@pytest.mark.parametrize(
    "folders", [("HAM10000_images",), ("HAM10000_images_part_1", "HAM10000_images_part_2")]
)
def test_labels_groups_and_lesions(tmp_path, folders):
    source = read_ham10000(layout(tmp_path / "source", folders))
    assert source.table["malignant"].tolist() == [0, 0, 1, 1, 1, 0]
    assert source.table["diagnosis"].tolist() == [2, 2, 4, 0, 1, 5]
    assert source.table["sex"].fillna("?").tolist() == ["male", "male", "female", "?", "female", "male"]
    assert source.table["age_group"].fillna("?").tolist() == [
        "60 and over",
        "60 and over",
        "?",
        "60 and over",
        "under 60",
        "under 60",
    ]
    assert source.table["patient"].tolist()[:2] == ["HAM_0000118"] * 2
    options = PrepareOptions(size=16, geometry="crop", test=0.4, validation=0, workers=1)
    dataset = prepare(source, tmp_path / "out", options)
    assert dataset.images.shape == (6, 3, 16, 16)
    expected = np.array([[200, 10 * n, 0] for n in range(6)])
    assert np.abs(dataset.images[:, :, 8, 8].astype(int) - expected).max() <= 3
    task = dataset.task()
    assert task.label_name == "malignant"
    assert task.usable.tolist() == [True, True, True, False, True, True]


def test_what_is_malignant_is_a_choice(tmp_path):
    chosen = read_ham10000(layout(tmp_path / "source"), malignant=["mel"])
    assert chosen.table["malignant"].tolist() == [0, 0, 1, 0, 0, 0]
    assert chosen.policies["malignant"] == ["mel"]
    with pytest.raises(InputError, match=r"malignant='melanoma' is not possible"):
        read_ham10000(tmp_path / "source", malignant=["melanoma"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lesion_id,", "lesion,", r"no column 'lesion_id' \(did you mean 'lesion'\?\)"),
        ("mel,", "mell,", r"row 4: 'dx' is 'mell' \(did you mean 'mel'\?\)"),
        ("unknown,", "other,", "row 5: 'sex' is 'other'"),
        ("55.0", "55 years", "row 6: 'age' is '55 years', not an age"),
    ],
)
def test_a_table_that_is_wrong(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message):
        read_ham10000(layout(tmp_path, table=TABLE.replace(old, new, 1)))


def test_pictures_twice_missing_and_unlisted(tmp_path):
    root = layout(tmp_path / "source")
    folder = root / "HAM10000_images"
    (folder / "ISIC_0000000.jpg").write_bytes((folder / "ISIC_0027419.jpg").read_bytes())
    (folder / "ISIC_0025837.jpg").unlink()
    source = read_ham10000(root)
    assert source.exclusions["image"].tolist() == ["ISIC_0000000"]
    options = PrepareOptions(size=16, test=0.4, validation=0, workers=1, on_error="skip")
    assert prepare(source, tmp_path / "out", options).meta.exclusions == {
        "not in the table": 1,
        "file does not exist": 1,
    }
    (root / "HAM10000_images_part_1").mkdir()
    (folder / "ISIC_0000000.jpg").rename(root / "HAM10000_images_part_1" / "ISIC_0027419.jpg")
    with pytest.raises(InputError, match="holds image 'ISIC_0027419' twice"):
        read_ham10000(root)
