"""TCGA-LUAD: CT series from TCIA, as the NBIA Data Retriever stores them, with clinical data from the GDC."""

from __future__ import annotations

from contextlib import suppress
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import pandas as pd

from fairdx.core.errors import InputError
from fairdx.core.progress import Reporter
from fairdx.data.cells import age_groups, parse_ages, row_of
from fairdx.data.checks import nearest, require_choice
from fairdx.data.dicom import read_header, require_pydicom
from fairdx.data.files import find_file, source_folder, unlisted_files
from fairdx.data.readers.observations import RaceMap, most_frequent, parse_race, require_some
from fairdx.data.source import Source, exclude, no_exclusions
from fairdx.data.tabular import read_text_table

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

Slices = Literal["all", "middle", "every"]
Window = Literal["lung", "mediastinum", "file"]

WINDOWS: Final = {"lung": (-600.0, 1500.0), "mediastinum": (40.0, 400.0), "file": None}
"""Centre and width in Hounsfield units."""
STAGES: Final = ("early", "late")
"""I and II are early, III and IV are late, as in the paper's appendix."""

_SERIES = ("Series UID", "Subject ID", "Modality", "Number of Images", "File Location")
_HEADER = (
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "InstanceNumber",
    "ImageType",
    "SeriesInstanceUID",
)
_MISSING = (
    "'--",
    "--",
    "[Not Available]",
    "[Not Evaluated]",
    "[Not Applicable]",
    "[Unknown]",
    "[Discrepancy]",
)
# Each list: newest name first. The GDC dropped `gender` and returns it empty where it is asked for.
_CLINICAL: Final = {
    "case": ("cases.submitter_id", "case_submitter_id", "bcr_patient_barcode", "PATIENT_ID"),
    "sex": ("demographic.sex_at_birth", "sex_at_birth", "demographic.gender", "gender", "SEX"),
    "race": ("demographic.race", "race", "RACE"),
    "age": ("demographic.age_at_index", "age_at_index", "age_at_initial_pathologic_diagnosis", "AGE"),
    "stage": (
        "diagnoses.ajcc_pathologic_stage",
        "ajcc_pathologic_stage",
        "ajcc_pathologic_tumor_stage",
        "AJCC_PATHOLOGIC_TUMOR_STAGE",
        "pathologic_stage",
    ),
}
_TABLES = ("clinical.tsv", "*/clinical.tsv", "*clinical_patient_luad.txt", "*/*clinical_patient_luad.txt")


def read_tcga_luad(
    root: str | Path,
    *,
    clinical: str | Path | None = None,
    slices: Slices = "middle",
    step: int = 5,
    window: Window = "lung",
    age_bins: Sequence[float] = (60,),
    race_map: RaceMap = "white_black_asian_other",
) -> Source:
    """Read TCGA-LUAD: CT series of the TCIA with clinical data of the GDC.

    Only a few dozen of its patients have CT: use folds by patient and intervals by patient.

    Example: `fairdx prepare tcga-luad --root manifest-1700000000000 --slices every --out prepared/luad`

    Args:
        root: The downloaded folder, with `metadata.csv` in it or one level below.
        clinical: `clinical.tsv` of the GDC (older or newer column names), the biotab file, or the table of
            patients of cBioPortal or Xena; the first two are looked for in the root by default.
        slices: Of each axial series all slices, the middle one, or every `step`-th.
        step: Distance between slices taken with "every".
        window: The window to show the slices through.
        age_bins: Ages in years at which a new age group begins.
        race_map: Which races to tell apart.

    Returns:
        The stage (early: I and II, late: III and IV) as label; sex, age group and race as attributes.

    Raises:
        InputError: A missing file or column, an unknown policy, a value that means nothing, a damaged header.
    """
    for option, value, valid in (("slices", slices, get_args(Slices)), ("window", window, get_args(Window))):
        require_choice(option, value, valid)
    if step < 1:
        raise InputError(f"step={step} is not possible: give 1 or more")
    folder = source_folder(root)
    require_pydicom()
    file = Path(clinical) if clinical else find_file(folder, *_TABLES)
    cases, age_names, race_names, settings = _read_clinical(file, age_bins, race_map)
    series_file = find_file(folder, "metadata.csv", "*/metadata.csv")
    series = read_text_table(series_file, _SERIES)
    require_some(int(series["Subject ID"].isin(cases.index).sum()), "The series and the clinical data")
    reason = ("modality is " + series["Modality"].fillna("not said")).mask(series["Modality"] == "CT")
    reason = reason.mask(
        reason.isna() & ~series["Subject ID"].isin(cases.index), "patient without clinical data"
    )
    folders = _folders(series_file.parent, series)
    table, left_out, found = _slices(folder, series.assign(reason=reason), folders, slices, step)
    listed = pd.concat([table["path"], left_out["image"]])
    unlisted = unlisted_files(folder, (str(series_file.parent.relative_to(folder)),), listed, (".dcm",))
    return Source(
        name="tcga-luad",
        table=table.join(cases, on="patient"),
        labels={"stage": STAGES},
        attributes={"sex": ("male", "female"), "age_group": age_names}
        | ({"race": race_names} if "race" in cases else {}),
        root=folder,
        policies={
            "clinical": file.name,
            "slices": slices,
            "step": step if slices == "every" else None,
            "ct_window": window,
            "age_bins": list(age_bins),
            "race_map": race_map if "race" in cases else None,
        },
        exclusions=pd.concat([left_out, unlisted], ignore_index=True),
        settings=settings | found,
        window=WINDOWS[window],
    )


def _read_clinical(
    file: Path, age_bins: Sequence[float], race_map: RaceMap
) -> tuple[pd.DataFrame, tuple[str, ...], tuple[str, ...], dict[str, Any]]:
    """One row for each case: stage, sex, age, age group, race; the names of groups; what did not fit."""
    table = read_text_table(file, separator="\t", skip=_comments(file))
    table = pd.DataFrame({name: cells.mask(cells.isin(_MISSING)) for name, cells in table.items()})
    case_column = _present(table, "case", file)
    # The biotab file repeats its header in other words twice.
    table = table[~table[case_column].str.contains("barcode|CDE_ID", na=True)]
    case = table[case_column]
    stage = _stages(table, _present(table, "stage", file), file)
    sex = table[_present(table, "sex", file)].str.casefold()
    wrong = ~sex.isin(["male", "female", "unknown", "unspecified", "not reported"]) & sex.notna()
    if wrong.any():
        raise InputError(f"{file} row {row_of(table, wrong)}: the sex is {sex[wrong].iloc[0]!r} ({_SEXES})")
    columns: dict[str, pd.Series[Any]] = {"stage": stage, "sex": sex.where(sex.isin(["male", "female"]))}
    race_names: tuple[str, ...] = ()
    settings: dict[str, Any] = {}
    if any(name in table for name in _CLINICAL["race"]):
        columns["race"], race_names, unrecognised = parse_race(table[_present(table, "race", file)], race_map)
        settings["rows_of_unrecognised_race"] = unrecognised
    age, impossible = parse_ages(table, _present(table, "age", file), file)
    cases = pd.DataFrame(index=pd.Index(case.unique()))
    settings["impossible_ages"] = impossible
    for name, values in columns.items():
        settled, conflicts, ties = most_frequent(case, values)
        cases[name] = settled
        settings[f"cases_of_contradictory_{name}"], settings[f"cases_of_undecided_{name}"] = conflicts, ties
    cases["age"] = age.groupby(case).median()
    cases["age_group"], age_names = age_groups(cases["age"], age_bins)
    cases["stage"] = cases["stage"].astype("Int16")
    return cases, age_names, race_names, settings


def _comments(file: Path) -> int:
    """How many lines with # stand before the header, as in the tables of cBioPortal."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as lines:
            return sum(1 for _ in takewhile(lambda line: line.startswith("#"), lines))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error


_SEXES = "known: 'male', 'female'"


def _present(table: pd.DataFrame, what: str, file: Path) -> str:
    """The first of a column's names that the table has and fills."""
    names = [name for name in _CLINICAL[what] if name in table]
    if not names:
        hint = nearest(_CLINICAL[what][0], map(str, table))
        raise InputError(f"{file} has no column {' or '.join(map(repr, _CLINICAL[what]))} ({hint})")
    return next((name for name in names if table[name].notna().any()), names[0])


def _stages(table: pd.DataFrame, column: str, file: Path) -> pd.Series[int]:
    """0 for stages I and II, 1 for III and IV, null where it is not reported."""
    words = table[column].str.upper().str.removeprefix("STAGE ").str.strip()
    words = words.mask(words.isin(["NOT REPORTED", "UNKNOWN"]))
    number = words.str.extract(r"^(IV|I{1,3})[ABC]?\d?$")[0]
    wrong = number.isna() & words.notna()
    if wrong.any():
        value = table.loc[wrong, column].iloc[0]
        raise InputError(
            f"{file} row {row_of(table, wrong)}: {column!r} is {value!r}, not a stage from I to IV"
        )
    return number.map({"I": 0, "II": 0, "III": 1, "IV": 1}).astype("Int16")


def _slices(
    root: Path, series: pd.DataFrame, folders: dict[str, Path | None], slices: Slices, step: int
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """The slices taken, those left out, and how many series lack files that their table promises."""
    rows: list[tuple[str, str, str]] = []
    left_out: list[pd.DataFrame] = [no_exclusions()]
    found = {"incomplete_series": 0, "unused_series_without_files": 0}
    with Reporter("reading headers", len(series), unit="series") as bar:
        for one in series.to_dict("records"):
            folder = folders[one["Series UID"]]
            files = sorted(folder.glob("*.dcm")) if folder else []
            bar.advance()
            if isinstance(one["reason"], str):
                found["unused_series_without_files"] += not files
                left_out.append(_left_out(root, files, one["reason"]))
                continue
            found["incomplete_series"] += str(len(files)) != one["Number of Images"]
            axial, others, damaged = _ordered(files)
            kept = {*_choose(axial, slices, step), *damaged}
            left_out.append(_left_out(root, others, "slice is not axial"))
            left_out.append(_left_out(root, sorted({*axial} - kept), "slice not chosen"))
            taken = [_below(root, file) for file in (*axial, *damaged) if file in kept]
            # A series that is nowhere is handed on as it is in the table: a file that does not exist.
            paths = taken or ([] if folder else [_location(one)])
            rows += [(path, one["Subject ID"], one["Series UID"]) for path in paths]
    table = pd.DataFrame(rows, columns=["path", "patient", "series"], dtype=str)
    table.insert(0, "image", table["path"])
    return table, pd.concat(left_out, ignore_index=True), found


def _left_out(root: Path, files: list[Path], why: str) -> pd.DataFrame:
    return exclude(pd.Series([_below(root, file) for file in files], dtype=str), why)


def _below(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()


def _location(series: Mapping[Hashable, Any]) -> str:
    """Where the table says that a series is, with the separators of Windows or not, never above its root."""
    parts = PurePosixPath(str(series["File Location"] or "").replace("\\", "/")).parts
    return "/".join(part for part in parts if part not in (".", "..", "/")) or str(series["Series UID"])


def _folders(manifest: Path, series: pd.DataFrame) -> dict[str, Path | None]:
    """The folder of each series, by its location in the table, else by the series that its files name."""
    found: dict[str, Path | None] = {}
    by_header: dict[str, Path] | None = None
    for one in series.to_dict("records"):
        folder: Path | None = manifest / _location(one)
        if folder and not any(folder.glob("*.dcm")):
            by_header = _folders_by_header(manifest) if by_header is None else by_header
            folder = by_header.get(one["Series UID"])
        found[one["Series UID"]] = folder
    return found


def _folders_by_header(manifest: Path) -> dict[str, Path]:
    """The folder of each series that a file names, by the first file of the folder that can be read."""
    known: dict[Path, str] = {}
    for file in sorted(manifest.rglob("*.dcm")):
        if file.parent not in known:
            with suppress(InputError):  # a damaged file is met again when its series is read
                known[file.parent] = str(read_header(file, _HEADER).get("SeriesInstanceUID", ""))
    return {uid: folder for folder, uid in known.items()}


def _ordered(files: list[Path]) -> tuple[list[Path], list[Path], list[Path]]:
    """The axial slices from feet to head, all others, and those that cannot be read.

    The last are handed on, so that they stop the preparation or are skipped as any damaged image is.
    """
    damaged: list[Path] = []
    places: list[tuple[float, Path]] = []
    others: list[Path] = []
    for file in files:
        try:
            header = read_header(file, _HEADER)
        except InputError:
            damaged.append(file)
            continue
        orientation, position = header.get("ImageOrientationPatient"), header.get("ImagePositionPatient")
        if not orientation or not position or "LOCALIZER" in (header.get("ImageType") or ()):
            others.append(file)
            continue
        normal = np.cross(np.array(orientation[:3], float), np.array(orientation[3:], float))
        if abs(normal[2]) < 0.9:  # cosine: reformatted in another plane
            others.append(file)
        else:
            places.append((float(position[2]), file))
    return [file for _, file in sorted(places)], others, damaged


def _choose(files: list[Path], slices: Slices, step: int) -> list[Path]:
    if slices == "middle":
        return files[len(files) // 2 : len(files) // 2 + 1]
    return files if slices == "all" else files[step // 2 :: step]
