"""NIH ChestX-ray14 (Wang et al., "ChestX-ray8", CVPR 2017), in the layout of its official download."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd

from fairdx.core.errors import InputError
from fairdx.data.cells import age_groups, parse_ages, parse_groups, row_of
from fairdx.data.checks import require_choice
from fairdx.data.files import find_file, images_in, source_folder
from fairdx.data.source import Source, exclude
from fairdx.data.tabular import read_text_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FINDINGS: Final = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
NO_FINDING: Final = "No Finding"
CLASSES: Final = ("absent", "present")

_TABLES = ("Data_Entry_2017_v2020*.csv", "Data_Entry_2017*.csv", "sample_labels.csv")
_FOLDERS = ("images", "images_*/images", "images_*", "sample/images")
_LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}


def read_nih(
    root: str | Path,
    *,
    finding: Sequence[str] = ("Pneumonia",),
    age_bins: Sequence[float] = (60,),
    official_split: bool = True,
) -> Source:
    """Read the NIH ChestX-ray14 data set.

    Example: `fairdx prepare nih --root CXR14 --finding Pneumonia --out prepared/nih`

    Args:
        root: Holds `Data_Entry_2017*.csv`, `images/` or `images_001/images/` to `images_012/images/`, and
            possibly `train_val_list.txt` and `test_list.txt`.
        finding: The main label; present where any of these findings is.
        age_bins: Ages in years at which a new age group begins.
        official_split: Whether to use the official lists where they are.

    Returns:
        The main label and each of the 14 findings as labels; sex and age group as attributes.

    Raises:
        InputError: A missing file or column, an unknown finding, a value that means nothing.
    """
    chosen = [finding] if isinstance(finding, str) else list(finding)
    for name in chosen:
        require_choice("finding", name, FINDINGS)
    folder = source_folder(root)
    file = find_file(folder, *_TABLES)
    table = read_text_table(
        file, ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "View Position")
    )
    rows, impossible = _rows(table, file)
    rows["age_group"], age_names = age_groups(rows["age"], age_bins)
    paths = images_in(folder, _FOLDERS)
    rows["path"] = [paths.get(name, f"images/{name}") for name in rows["image"]]
    labels = _labels(table, chosen, file)
    exclusions = [exclude(pd.Series(sorted(set(paths) - set(rows["image"])), dtype=str), "not in the table")]
    out = pd.concat([rows, labels], axis=1)
    lists = _official_split(folder) if official_split else None
    if lists is not None:
        out["split"] = out["image"].map(lists)
        listed = out["split"].notna()
        exclusions.append(exclude(out.loc[~listed, "image"], "in neither official list"))
        out = out[listed]
    return Source(
        name="nih",
        table=out,
        labels=dict.fromkeys(map(str, labels), CLASSES),
        attributes={"sex": ("male", "female"), "age_group": age_names},
        root=folder,
        policies={
            "table": file.name,
            "finding": chosen,
            "age_bins": list(age_bins),
            "official_split": lists is not None,
        },
        exclusions=pd.concat(exclusions, ignore_index=True),
        settings={"impossible_ages": impossible},
    )


def _rows(table: pd.DataFrame, file: Path) -> tuple[pd.DataFrame, int]:
    """Image, patient, sex, age and view of each row; how many ages are impossible."""
    sex = "Patient Sex" if "Patient Sex" in table else "Patient Gender"
    if sex not in table:
        raise InputError(f"{file} has no column 'Patient Gender' or 'Patient Sex'")
    age, impossible = parse_ages(table, "Patient Age", file)
    rows = {
        "image": table["Image Index"],
        "patient": table["Patient ID"],
        "sex": parse_groups(table, sex, {"M": "male", "F": "female"}, file),
        "age": age,
        "view": table["View Position"],
    }
    return pd.DataFrame(rows), impossible


def _labels(table: pd.DataFrame, chosen: list[str], file: Path) -> pd.DataFrame:
    """One column of codes for the main label, then one for each finding."""
    words = table["Finding Labels"].fillna("").str.split("|")
    named = words.explode().str.strip()
    wrong = ~named.isin((*FINDINGS, NO_FINDING))
    contradictory = words.map(len).gt(1) & words.map(lambda names: NO_FINDING in names)
    for at_fault in (wrong.groupby(level=0).any(), contradictory):
        if at_fault.any():
            value = table.loc[at_fault, "Finding Labels"].fillna("").iloc[0]
            raise InputError(
                f"{file} row {row_of(table, at_fault)}: 'Finding Labels' is {value!r}, which is not "
                f"{NO_FINDING!r} or some of {', '.join(FINDINGS)}, joined by |"
            )
    present = pd.crosstab(named.index, named).reindex(columns=list(FINDINGS), fill_value=0).clip(upper=1)
    main = present[chosen].max(axis=1).rename(" or ".join(chosen))
    others = present.drop(columns=main.name) if main.name in present else present
    return pd.concat([main, others], axis=1).reindex(table.index).astype("Int16")


def _official_split(root: Path) -> dict[str, str] | None:
    """Split of each image in the official lists, if both are there."""
    present = [name for name in _LISTS if (root / name).exists()]
    if not present:
        return None
    split: dict[str, str] = {}
    for name, side in _LISTS.items():
        if name not in present:
            raise InputError(
                f"{root} has {present[0]} without {name}: add it, or do not use the official split"
            )
        try:
            listed = (root / name).read_text(encoding="utf-8-sig").split()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{root / name} cannot be read: {error}") from error
        for image in listed:
            if split.setdefault(image, side) != side:
                raise InputError(f"image {image!r} is in both {' and '.join(_LISTS)} of {root}")
    return split
