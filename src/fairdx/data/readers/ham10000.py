"""HAM10000 dermatoscopy (Tschandl, Rosendahl, Kittler, Scientific Data 2018, doi 10.1038/sdata.2018.161)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd

from fairdx.core.errors import InputError
from fairdx.data.files import (
    age_groups,
    find_file,
    known_ages,
    parse_codes,
    parse_groups,
    parse_numbers,
    read_text_table,
    source_folder,
)
from fairdx.data.source import Source, exclude

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DIAGNOSES: Final = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
MALIGNANT: Final = ("akiec", "bcc", "mel")
"""Actinic keratosis and intraepithelial carcinoma, basal cell carcinoma, melanoma."""

_SEX = {"male": "male", "female": "female", "unknown": None}


def read_ham10000(root: str | Path, *, age_bins: Sequence[float] = (60,)) -> Source:
    """Read the HAM10000 data set.

    There is no patient in it: several pictures of one lesion stay together instead.

    Example: `fairdx prepare ham10000 --root HAM10000 --out prepared/skin`

    Args:
        root: Holds `HAM10000_metadata.csv` and the pictures, in `HAM10000_images/` or in
            `HAM10000_images_part_1/` and `HAM10000_images_part_2/`.
        age_bins: Ages in years at which a new age group begins.

    Returns:
        Malignant (actinic keratosis, basal cell carcinoma, melanoma) and the diagnosis as labels; sex and age
        group as attributes.

    Raises:
        InputError: A missing file or column, or a value that means nothing.
    """
    folder = source_folder(root)
    file = find_file(folder, "HAM10000_metadata.csv", "HAM10000_metadata")
    table = read_text_table(file, ("lesion_id", "image_id", "dx", "age", "sex"))
    age, impossible = known_ages(parse_numbers(table, "age", file))
    age_group, age_names = age_groups(age, age_bins)
    paths = _image_paths(folder)
    out = pd.DataFrame(
        {
            "image": table["image_id"],
            "path": [paths.get(name, f"HAM10000_images/{name}.jpg") for name in table["image_id"]],
            "patient": table["lesion_id"],
            "malignant": parse_codes(table, "dx", {dx: int(dx in MALIGNANT) for dx in DIAGNOSES}, file),
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
            "malignant": list(MALIGNANT),
            "age_bins": list(age_bins),
            "patient": "lesion",
        },
        exclusions=exclude(pd.Series(sorted(set(paths) - set(out["image"])), dtype=str), "not in the table"),
        settings={"impossible_ages": impossible},
        channels=3,
    )


def _image_paths(root: Path) -> dict[str, str]:
    """Path of each picture below the root, by the name of the image."""
    paths: dict[str, str] = {}
    for file in sorted(root.glob("HAM10000_images*/*.jpg")):
        path = file.relative_to(root).as_posix()
        if paths.setdefault(file.stem, path) != path:
            raise InputError(f"{root} holds image {file.stem!r} twice: as {paths[file.stem]} and as {path}")
    return paths
