"""Groups from headers and tables."""

import pytest

from fairdx.core.errors import InputError
from fairdx.data.cells import age_groups
from fairdx.deploy.groups import FileGroups, header_groups


@pytest.mark.parametrize(
    ("attribute", "groups", "header", "expected"),
    [
        ("sex", ("male", "female"), {"PatientSex": "F"}, "female"),
        ("Patient Gender", ("M", "F"), {"PatientSex": "m "}, "M"),
        ("sex", ("male", "female"), {"PatientSex": "O"}, None),
        ("sex", ("men", "women", "other"), {"PatientSex": "O"}, "other"),
        ("sex", ("male", "female"), {}, None),
        ("age_group", ("under 40", "40 to 59", "60 and over"), {"PatientAge": "039Y"}, "under 40"),
        ("age_group", ("under 40", "40 to 59", "60 and over"), {"PatientAge": "059Y"}, "40 to 59"),
        ("age_group", ("under 40", "40 to 59", "60 and over"), {"PatientAge": "100Y"}, "60 and over"),
        ("age", ("<1", "1-17", "18+"), {"PatientAge": "011M"}, "<1"),
        ("age", ("<1", "1-17", "18+"), {"PatientAge": "053W"}, "1-17"),
        ("age", ("<1", "1-17", "18+"), {"PatientAge": "unknown"}, None),
        ("age", ("<1", "1-17", "18+"), {"PatientAge": "999Y"}, None),
        ("age", ("<1", "1-17", "18+"), {"PatientBirthDate": "20200101", "StudyDate": "19990101"}, None),
        (
            "age",
            ("under 18", "18 and over"),
            {"PatientBirthDate": "20000229", "StudyDate": "20180228"},
            "under 18",
        ),
    ],
)
def test_what_a_header_says(attribute, groups, header, expected):
    assert header_groups(attribute, groups).find(header) == expected


def test_every_name_that_prepare_gives_an_age_is_understood():
    import pandas as pd

    ages = pd.Series([float(age) for age in range(100)])
    named, names = age_groups(ages, (18, 40, 65))
    found = header_groups("age_group", names)
    assert [found.find({"PatientAge": f"{int(age):03}Y"}) for age in ages] == named.tolist()


@pytest.mark.parametrize(
    ("attribute", "groups"),
    [
        ("race", ("Asian", "White")),
        ("sex", ("0", "1")),
        ("age_group", ("young", "old")),
        ("image", ("0", "1")),
    ],
)
def test_what_a_header_cannot_say(attribute, groups):
    assert header_groups(attribute, groups) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,group\na.png,X\n", r"row 2: 'group' is 'X'"),
        ("path,group\na.png,A\na.png,B\n", "two groups"),
        ("file,group\na.png,A\n", "no column 'path'"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, words):
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        FileGroups(tmp_path / "groups.csv", ("A", "B"), ["a.png"])
