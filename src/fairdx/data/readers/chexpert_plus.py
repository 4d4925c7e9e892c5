"""CheXpert Plus (Chambon et al., 2024): the images of CheXpert, with reports and demographics of each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import pandas as pd

from fairdx.core.errors import InputError
from fairdx.data.cells import (
    age_groups,
    each_value_a_group,
    parse_ages,
    parse_groups,
    require_words,
    row_of,
    without_missing,
)
from fairdx.data.checks import nearest, require_choice
from fairdx.data.files import find_file, found_in, source_folder, unlisted_files
from fairdx.data.readers.observations import (
    CLASSES,
    RaceMap,
    Uncertain,
    Unmentioned,
    View,
    list_exclusions,
    order_labels,
    parse_observations,
    parse_race,
    require_some,
    view_exclusions,
)
from fairdx.data.source import Source
from fairdx.data.tabular import read_text_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Section = Literal["impression", "findings", "report"]

_COLUMNS = (
    "path_to_image",
    "frontal_lateral",
    "ap_pa",
    "deid_patient_id",
    "age",
    "sex",
    "race",
    "split",
)
_KEPT = ("ethnicity", "insurance_type", "interpreter_needed", "recent_bmi", "deceased")
"""Further columns that are taken over as they are, where they are there; reports are not."""
_TEXTS: Final = {"impression": "section_impression", "findings": "section_findings", "report": "report"}
_LABELS = ("{}_fixed.json", "chexbert_labels/{}_fixed.json", "*/{}_fixed.json", "*/*/{}_fixed.json")
_FOLDERS = ("train", "valid")
_BASES = ("", "PNG", "PNG/PNG", "PNGs", "DICOM", "DICOM/DICOM")
_ENDINGS = (".jpg", ".png", ".dcm")
_TRIED = 50
_SEX = {"Male": "male", "Female": "female", "Unknown": None}
_SPLITS = {"train": "train", "valid": "test"}


def read_chexpert_plus(  # noqa: PLR0913 - one argument for each policy
    root: str | Path,
    *,
    finding: str = "Pneumonia",
    section: Section = "impression",
    uncertain: Uncertain = "ignore",
    unmentioned: Unmentioned = "zeros",
    view: View = "frontal",
    age_bins: Sequence[float] = (60,),
    race_map: RaceMap = "white_black_asian_other",
    official_split: bool = True,
    scan_files: bool = True,
) -> Source:
    """Read CheXpert Plus, with sex, age, race and insurance of its own table.

    Example: `fairdx prepare chexpert-plus --root chexpert-plus --out prepared/plus`

    Args:
        root: Holds `df_chexpert_plus_240401.csv`, the labels `impression_fixed.json` (here or in
            `chexbert_labels/`), and the images: `train/` and `valid/`, here or in `PNG/`, `PNG/PNG/` or
            `DICOM/`. The images of CheXpert itself will do.
        finding: The main label.
        section: What the labels were read from: the impression, the findings, or the whole report, which
            also speaks of earlier images and of the patient's history.
        uncertain: What a label of -1 becomes.
        unmentioned: What a blank label becomes.
        view: Which views to keep.
        age_bins: Ages in years at which a new age group begins.
        race_map: Which races to tell apart.
        official_split: Whether to train on the rows called train and to test on those called valid, some 200
            patients, too few for rates of groups; otherwise all are pooled and split by patient.
        scan_files: Whether to look through all folders for images that the table does not mention, and to
            list these as left out.

    Returns:
        The 14 observations as labels; sex, age group, race and insurance as attributes. Images whose report
        lacks the section have unknown labels: the labeller calls an empty text healthy.

    Raises:
        InputError: A missing file or column, an unknown policy, a value that means nothing.
    """
    require_choice("section", section, get_args(Section))
    folder = source_folder(root)
    labels = order_labels(finding)
    out, text, ages = _rows(find_file(folder, "df_chexpert_plus*.csv*"), section)
    file = find_file(folder, *(pattern.format(section) for pattern in _LABELS))
    codes = _labels(file, labels, uncertain, unmentioned)
    met = found_in(out["image"], codes.index)
    require_some(int(met.sum()), "The table and the labels of CheXpert Plus")
    out = out.join(codes, on="image")
    silent = met & ~text.to_numpy(bool)
    out.loc[silent, list(labels)] = pd.NA
    settings: dict[str, Any] = ages | {
        f"images_without_{section}": int(silent.sum()),
        "labels_without_image": int((~found_in(codes.index, out["image"])).sum()),
    }
    out["age_group"], age_names = age_groups(out["age"], age_bins)
    race, race_names, settings["images_of_unrecognised_race"] = parse_race(out["race"], race_map)
    out["race"] = race
    attributes = {"sex": ("male", "female"), "age_group": age_names, "race": race_names}
    if "insurance_type" in out:
        known, settings["missing_words_of_insurance"] = without_missing(out.pop("insurance_type"))
        out["insurance"], attributes["insurance"] = known, each_value_a_group(known, "insurance_type", folder)
    base, ending = _where(folder, out["image"])
    out["path"] = base + out["image"].str.rpartition(".")[0] + ending
    reason = view_exclusions(out.pop("view"), view).mask(~met, "image without labels")
    exclusions = list_exclusions(folder, out, reason, ())
    if scan_files:
        unlisted = unlisted_files(folder, [base + name for name in _FOLDERS], out["path"], (ending,))
        exclusions = pd.concat([exclusions, unlisted], ignore_index=True)
    return Source(
        name="chexpert-plus",
        table=out[reason.isna()].drop(columns=[] if official_split else ["split"]),
        labels=dict.fromkeys(labels, CLASSES),
        attributes=attributes,
        root=folder,
        policies={
            "finding": finding,
            "section": section,
            "uncertain": uncertain,
            "unmentioned": unmentioned,
            "view": view,
            "age_bins": list(age_bins),
            "race_map": race_map,
            "official_split": official_split,
            "scan_files": scan_files,
        },
        exclusions=exclusions,
        settings=settings,
    )


def _rows(file: Path, section: Section) -> tuple[pd.DataFrame, pd.Series[bool], dict[str, int]]:
    """What is known of each image, whether its report has the section, and what was odd about ages."""
    wanted = {*_COLUMNS, *_KEPT, _TEXTS[section]}
    table = read_text_table(file, (*_COLUMNS, _TEXTS[section]), only=lambda name: name in wanted)
    wrong = ~table["path_to_image"].str.fullmatch(rf"({'|'.join(_FOLDERS)})/.+\.\w+").fillna(False)
    if wrong.any():
        value = table.loc[wrong, "path_to_image"].iloc[0]
        raise InputError(
            f"{file} row {row_of(table, wrong)}: 'path_to_image' is {value!r}, not like "
            "train/patient00001/study1/view1_frontal.jpg"
        )
    require_words(table, "frontal_lateral", ("Frontal", "Lateral"), file)
    age, impossible = parse_ages(table, "age", file)
    rows = pd.DataFrame(
        {
            "image": table["path_to_image"],
            "patient": table["deid_patient_id"],
            "sex": parse_groups(table, "sex", _SEX, file),
            "age": age.mask(age == 0),
            "race": table["race"],
            # As in CheXpert: some images are called frontal and yet have a lateral position.
            "view": table["ap_pa"].where(table["frontal_lateral"] == "Frontal", "lateral"),
            "split": parse_groups(table, "split", _SPLITS, file),
            **{name: table[name] for name in _KEPT if name in table},
        }
    )
    found = {"age_zero_taken_as_unknown": int((age == 0).sum()), "impossible_ages": impossible}
    return rows, table[_TEXTS[section]].notna(), found


def _labels(
    file: Path, labels: Sequence[str], uncertain: Uncertain, unmentioned: Unmentioned
) -> pd.DataFrame:
    """The codes of each image: one object of JSON a line, 1, 0, -1 or null for each observation."""
    rows = []
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    rows.append(_label_row(line, labels, f"{file} line {number}"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    table = pd.DataFrame(rows, columns=["path_to_image", *labels], dtype=pd.StringDtype(na_value=np.nan))
    table.index -= 1  # `row_of` counts a header, of which these files have none
    twice = table["path_to_image"].duplicated() | table["path_to_image"].isna()
    if twice.any():
        value = table.loc[twice, "path_to_image"].iloc[0]
        raise InputError(f"{file} row {row_of(table, twice)}: image {value!r} is blank or listed twice")
    codes = parse_observations(table, labels, file, uncertain=uncertain, unmentioned=unmentioned)
    return codes.set_index(table["path_to_image"])


def _label_row(line: str, labels: Sequence[str], where: str) -> list[str | None]:
    """Image and labels of one line, as text."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise InputError(f"{where} is not an object of JSON, with a label for each observation")
    for name in ("path_to_image", *labels):
        if name not in row:
            raise InputError(f"{where} has no {name!r} ({nearest(name, row)})")
    return [None if row[name] is None else str(row[name]) for name in ("path_to_image", *labels)]


def _where(root: Path, images: pd.Series[str]) -> tuple[str, str]:
    """The folder that the paths of the table start from, and the ending of the files, which it has wrong."""
    stems = images.iloc[:_TRIED].str.rpartition(".")[0]
    for base in (f"{name}/" if name else "" for name in _BASES):
        if any((root / base / name).is_dir() for name in _FOLDERS):
            for ending in _ENDINGS:
                if any((root / f"{base}{stem}{ending}").is_file() for stem in stems):
                    return base, ending
    first = images.iloc[0] if len(images) else "train/..."
    raise InputError(
        f"{root} has no image {first}, nor the same as .png or .dcm, here or in {', '.join(_BASES[1:])}: "
        "unpack the images there"
    )
