"""MIMIC-CXR-JPG 2.0.0 and 2.1.0 (Johnson et al., 2019), with sex, age and race from MIMIC-IV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pandas as pd

from fairdx.core.errors import InputError
from fairdx.data.cells import age_groups, known_ages, parse_ages, parse_groups, parse_numbers, row_of
from fairdx.data.checks import require_choice, require_columns
from fairdx.data.files import find_file, found_in, source_folder
from fairdx.data.readers.observations import (
    ALIASES,
    CLASSES,
    OBSERVATIONS,
    RaceMap,
    Uncertain,
    Unmentioned,
    View,
    list_exclusions,
    most_frequent,
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

Labeller = Literal["chexpert", "negbio"]

_METADATA = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate")
_SPLITS = {"train": "train", "validate": "validation", "test": "test"}
_PATIENTS = ("subject_id", "gender", "anchor_age", "anchor_year")


def read_mimic_cxr(  # noqa: PLR0913 - one argument for each policy
    root: str | Path,
    *,
    mimic_iv: str | Path | None = None,
    finding: str = "Pneumonia",
    labeller: Labeller = "chexpert",
    expert_test_labels: bool = False,
    uncertain: Uncertain = "ignore",
    unmentioned: Unmentioned = "zeros",
    view: View = "frontal",
    age_bins: Sequence[float] = (60,),
    race_map: RaceMap = "white_black_asian_other",
    official_split: bool = True,
    scan_files: bool = True,
) -> Source:
    """Read MIMIC-CXR-JPG, with sex, age, race and insurance from MIMIC-IV.

    Example: `fairdx prepare mimic-cxr --root mimic-cxr-jpg --mimic-iv mimiciv/hosp --out prepared/mimic`

    Args:
        root: Holds `mimic-cxr-2.0.0-metadata.csv.gz`, `-split`, `-chexpert` or `-negbio`, and `files/`.
        mimic_iv: Holds `patients.csv.gz` and possibly `admissions.csv.gz`, itself or in `hosp/` or `core/`;
            the root by default.
        finding: The main label.
        labeller: Whose labels.
        expert_test_labels: Whether the studies of `mimic-cxr-2.1.0-test-set-labeled.csv` take its labels.
        uncertain: What a label of -1 becomes.
        unmentioned: What a blank label becomes.
        view: Which views to keep.
        age_bins: Ages in years at which a new age group begins.
        race_map: Which races to tell apart, where the admissions are there.
        official_split: Whether to use the official split instead of one by patient.
        scan_files: Whether to look through all folders for images that the tables do not mention, and to list
            these as left out; about a second for each 10,000 folders on a local disk.

    Returns:
        The 14 observations as labels; sex, age group and, with the admissions, race and insurance as
        attributes. Patients without a record in MIMIC-IV stay, with unknown sex and age.

    Raises:
        InputError: A missing file or column, an unknown policy, a value that means nothing.
    """
    require_choice("labeller", labeller, get_args(Labeller))
    folder = source_folder(root)
    labels = order_labels(finding)
    out = _rows(find_file(folder, "mimic-cxr-*-metadata.csv*"))
    settings: dict[str, Any] = {}
    studies = _studies(find_file(folder, f"mimic-cxr-*-{labeller}.csv*"), labels, uncertain, unmentioned)
    if expert_test_labels:
        studies, settings["studies_with_expert_labels"] = _with_experts(
            studies, folder, labels, uncertain, unmentioned
        )
    settings["labelled_studies_without_image"] = int((~found_in(studies.index, out["study"])).sum())
    out = out.join(studies, on="study")
    reason = view_exclusions(out["view"], view)
    reason = reason.mask(~found_in(out["study"], studies.index), "study without labels")
    if official_split:
        out["split"], settings["split_rows_without_image"] = _official_split(folder, out)
        reason = reason.mask(out["split"].isna(), "not in the split table")
    attributes, found = _add_patients(out, source_folder(mimic_iv or folder), age_bins, race_map)
    return Source(
        name="mimic-cxr",
        table=out[reason.isna()],
        labels=dict.fromkeys(labels, CLASSES),
        attributes=attributes,
        root=folder,
        policies={
            "finding": finding,
            "labeller": labeller,
            "expert_test_labels": expert_test_labels,
            "uncertain": uncertain,
            "unmentioned": unmentioned,
            "view": view,
            "age_bins": list(age_bins),
            "race_map": race_map if "race" in attributes else None,
            "official_split": official_split,
            "scan_files": scan_files,
            "pixels": "histogram-equalised by the publisher; not to be mixed with DICOM",
        },
        exclusions=list_exclusions(folder, out, reason, ("files",) if scan_files else ()),
        settings=settings | found,
    )


def _rows(file: Path) -> pd.DataFrame:
    """Image, path, patient, study, view and year of each row of the metadata."""
    metadata = read_text_table(file, _METADATA, only=lambda name: name in _METADATA)
    for column in ("dicom_id", "subject_id", "study_id"):
        wrong = ~metadata[column].str.fullmatch(r"[0-9a-fA-F-]+" if column == "dicom_id" else r"\d+").fillna(
            False
        )
        if wrong.any():
            value = metadata.loc[wrong, column].iloc[0]
            raise InputError(
                f"{file} row {row_of(metadata, wrong)}: {column!r} is {value!r}, not an identifier"
            )
    subject, study = metadata["subject_id"], metadata["study_id"]
    year = pd.to_numeric(metadata["StudyDate"].str[:4], errors="coerce")
    wrong = year.isna() & metadata["StudyDate"].notna()
    if wrong.any():
        value = metadata.loc[wrong, "StudyDate"].iloc[0]
        raise InputError(
            f"{file} row {row_of(metadata, wrong)}: 'StudyDate' is {value!r}, not a date YYYYMMDD"
        )
    return pd.DataFrame(
        {
            "image": metadata["dicom_id"],
            "path": "files/p"
            + subject.str[:2]
            + "/p"
            + subject
            + "/s"
            + study
            + "/"
            + metadata["dicom_id"]
            + ".jpg",
            "patient": subject,
            "study": study,
            "view": metadata["ViewPosition"],
            "year": year,
        }
    )


def _studies(
    file: Path, labels: Sequence[str], uncertain: Uncertain, unmentioned: Unmentioned
) -> pd.DataFrame:
    table = read_text_table(
        file, ("study_id",), only=lambda name: name in {"study_id", *OBSERVATIONS, *ALIASES}
    )
    table = table.rename(columns={old: new for old, new in ALIASES.items() if old in table})
    require_columns(table, labels, file)
    twice = table["study_id"].duplicated() | table["study_id"].isna()
    if twice.any():
        value = table.loc[twice, "study_id"].iloc[0]
        raise InputError(f"{file} row {row_of(table, twice)}: study {value!r} is blank or listed twice")
    codes = parse_observations(table, labels, file, uncertain=uncertain, unmentioned=unmentioned)
    return codes.set_index(table["study_id"])


def _with_experts(
    studies: pd.DataFrame, folder: Path, labels: Sequence[str], uncertain: Uncertain, unmentioned: Unmentioned
) -> tuple[pd.DataFrame, int]:
    """Put the radiologists' labels of the test set in place of the labeller's."""
    file = find_file(folder, "mimic-cxr-*-test-set-labeled.csv*")
    experts = _studies(file, labels, uncertain, unmentioned)
    return pd.concat([studies[~found_in(studies.index, experts.index)], experts]), len(experts)


def _official_split(folder: Path, out: pd.DataFrame) -> tuple[pd.Series[str], int]:
    """Split of each image, and how many images of the split are not in the metadata."""
    file = find_file(folder, "mimic-cxr-*-split.csv*")
    table = read_text_table(file, ("dicom_id", "split"), only=lambda name: name in ("dicom_id", "split"))
    twice = table["dicom_id"].duplicated()
    if twice.any():
        value = table.loc[twice, "dicom_id"].iloc[0]
        raise InputError(f"{file} row {row_of(table, twice)}: image {value!r} is listed twice")
    sides = parse_groups(table, "split", _SPLITS, file).set_axis(table["dicom_id"])
    return out["image"].map(sides), int((~found_in(table["dicom_id"], out["image"])).sum())


def _add_patients(
    out: pd.DataFrame, folder: Path, age_bins: Sequence[float], race_map: RaceMap
) -> tuple[dict[str, tuple[str, ...]], dict[str, int]]:
    """Add sex, age, race and insurance in place; give their groups and what did not fit together."""
    file = find_file(folder, "patients.csv*", "hosp/patients.csv*", "core/patients.csv*")
    table = read_text_table(file, _PATIENTS, only=lambda name: name in _PATIENTS)
    patients = pd.DataFrame(
        {
            "sex": parse_groups(table, "gender", {"M": "male", "F": "female"}, file),
            "birth": parse_numbers(table, "anchor_year", file) - parse_ages(table, "anchor_age", file)[0],
        }
    ).set_axis(table["subject_id"])
    if not patients.index.is_unique:
        raise InputError(f"{file} has patient {patients.index[patients.index.duplicated()][0]!r} twice")
    met = found_in(out["patient"], patients.index)
    require_some(int(met.sum()), "MIMIC-CXR and the patients of MIMIC-IV")
    out["sex"] = out["patient"].map(patients["sex"])
    out["age"], impossible = known_ages(out.pop("year") - out["patient"].map(patients["birth"]))
    out["age_group"], age_names = age_groups(out["age"], age_bins)
    found = {"images_without_patient_record": int((~met).sum()), "impossible_ages": impossible}
    attributes = {"sex": ("male", "female"), "age_group": age_names}
    if (file.parent / "admissions.csv.gz").exists() or (file.parent / "admissions.csv").exists():
        more, more_found = _add_admissions(out, find_file(file.parent, "admissions.csv*"), race_map)
        attributes, found = attributes | more, found | more_found
    return attributes, found


def _add_admissions(
    out: pd.DataFrame, file: Path, race_map: RaceMap
) -> tuple[dict[str, tuple[str, ...]], dict[str, int]]:
    """Add race and insurance in place: what most of a patient's admissions say."""
    wanted = ("subject_id", "race", "ethnicity", "insurance")
    table = read_text_table(file, ("subject_id",), only=lambda name: name in wanted)
    race_column = "race" if "race" in table else "ethnicity"  # MIMIC-IV 1.0 called it so
    require_columns(table, (race_column,), file)
    group, names, unrecognised = parse_race(table[race_column], race_map)
    race, conflicts, ties = most_frequent(table["subject_id"], group)
    out["race"] = out["patient"].map(race)
    attributes = {"race": names}
    found = {
        "images_without_admission": int((~found_in(out["patient"], table["subject_id"])).sum()),
        "patients_of_contradictory_race": conflicts,
        "patients_of_undecided_race": ties,
        "admissions_of_unrecognised_race": unrecognised,
    }
    if "insurance" in table:
        insurance, _, _ = most_frequent(table["subject_id"], table["insurance"])
        out["insurance"] = out["patient"].map(insurance)
        attributes["insurance"] = tuple(sorted(out["insurance"].dropna().unique()))
    return attributes, found
