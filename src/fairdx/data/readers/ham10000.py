"""HAM10000 dermatoscopy (Tschandl, Rosendahl, Kittler, Scientific Data 2018, doi 10.1038/sdata.2018.161)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd

from fairdx.data.cells import age_groups, parse_ages, parse_codes, parse_groups
from fairdx.data.checks import require_choice
from fairdx.data.files import find_file, images_in, source_folder
from fairdx.data.source import Source, exclude
from fairdx.data.tabular import read_text_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DIAGNOSES: Final = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
MALIGNANT: Final = ("akiec", "bcc", "mel")
"""Actinic keratosis and intraepithelial carcinoma, basal cell carcinoma, melanoma."""

_SEX = {"male": "male", "female": "female", "unknown": None}


def read_ham10000(
    root: str | Path, *, malignant: Sequence[str] = MALIGNANT, age_bins: Sequence[float] = (60,)
) -> Source:
    """Read the HAM10000 data set.

    There is no patient in it: several pictures of one lesion stay together instead.

    Example: `fairdx prepare ham10000 --root HAM10000 --out prepared/skin`

    Args:
        root: Holds `HAM10000_metadata.csv` and the pictures, in `HAM10000_images/` or in
            `HAM10000_images_part_1/` and `HAM10000_images_part_2/`.
        malignant: The diagnoses that are malignant; some authors count actinic keratosis (akiec) as benign.
        age_bins: Ages in years at which a new age group begins.

    Returns:
        Malignant (by default actinic keratosis, basal cell carcinoma, melanoma) and the diagnosis as labels;
        sex and age group as attributes.

    Raises:
        InputError: A missing file or column, or a value that means nothing.
    """
    for name in malignant:
        require_choice("malignant", name, DIAGNOSES)
    folder = source_folder(root)
    file = find_file(folder, "HAM10000_metadata.csv", "HAM10000_metadata")
    table = read_text_table(file, ("lesion_id", "image_id", "dx", "age", "sex"))
    age, impossible = parse_ages(table, "age", file)
    age_group, age_names = age_groups(age, age_bins)
    paths = images_in(folder, ("HAM10000_images*",), (".jpg",), stem=True)
    out = pd.DataFrame(
        {
            "image": table["image_id"],
            "path": [paths.get(name, f"HAM10000_images/{name}.jpg") for name in table["image_id"]],
            "patient": table["lesion_id"],
            "malignant": parse_codes(table, "dx", {dx: int(dx in malignant) for dx in DIAGNOSES}, file),
            "diagnosis": parse_codes(table, "dx", {dx: code for code, dx in enumerate(DIAGNOSES)}, file),
            "sex": parse_groups(table, "sex", _SEX, file),
            "age_group": age_group,
            "age": age,
        }
    )
    kept = [column for column in ("dx_type", "localization") if column in table]
    return Source(
        name="ham10000",
        table=pd.concat([out, table[kept]], axis=1),
        labels={"malignant": ("benign", "malignant"), "diagnosis": DIAGNOSES},
        attributes={"sex": ("male", "female"), "age_group": age_names},
        root=folder,
        policies={
            "table": file.name,
            "malignant": list(malignant),
            "age_bins": list(age_bins),
            "patient": "lesion",
        },
        exclusions=exclude(pd.Series(sorted(set(paths) - set(out["image"])), dtype=str), "not in the table"),
        settings={"impossible_ages": impossible},
        channels=3,
    )
