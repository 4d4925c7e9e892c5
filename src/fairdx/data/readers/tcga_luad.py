"""TCGA-LUAD: CT series from TCIA, as the NBIA Data Retriever stores them, with clinical data from the GDC."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import pandas as pd

from fairdx.core.errors import InputError
from fairdx.data.cells import age_groups, parse_ages
from fairdx.data.checks import require_choice
from fairdx.data.dicom import read_demographics, require_pydicom
from fairdx.data.files import find_file, source_folder
from fairdx.data.readers.gdc import STAGES, read_cases
from fairdx.data.readers.observations import RaceMap, require_some
from fairdx.data.readers.series import SeriesFiles, SliceFile, find_series
from fairdx.data.source import Source, exclude, no_exclusions
from fairdx.data.tabular import read_text_table

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

Slices = Literal["all", "middle", "every"]
Window = Literal["lung", "mediastinum", "file"]

WINDOWS: Final = {"lung": (-600.0, 1500.0), "mediastinum": (40.0, 400.0), "file": None}
"""Centre and width in Hounsfield units."""
_SERIES = ("Series UID", "Subject ID", "Modality", "Number of Images", "File Location")
_TABLES = (
    "clinical.tsv",
    "*/clinical.tsv",
    "clinical*.json",
    "*/clinical*.json",
    "*clinical_patient_luad.txt",
    "*/*clinical_patient_luad.txt",
)


def read_tcga_luad(
    root: str | Path,
    *,
    clinical: str | Path | None = None,
    slices: Slices = "middle",
    step: int = 5,
    window: Window = "lung",
    age_bins: Sequence[float] = (60,),
    race_map: RaceMap = "white_black_asian_other",
    ask_headers: bool = False,
) -> Source:
    """Read TCGA-LUAD: CT series of the TCIA with clinical data of the GDC.

    Only a few dozen of its patients have CT: use folds by patient and intervals by patient.

    Example: `fairdx prepare tcga-luad --root manifest-1700000000000 --slices every --out prepared/luad`

    Args:
        root: The downloaded folder, with `metadata.csv` in it or one level below; without that table, as the
            Imaging Data Commons gives it out, series and patients are those that the files name.
        clinical: `clinical.tsv` or `clinical.cart.json` of the GDC (older or newer column names), the biotab
            file, or the table of patients of cBioPortal or Xena; all but the last two are looked for in the
            root by default.
        slices: Of each axial series all slices, the middle one, or every `step`-th.
        step: Distance between slices taken with "every".
        window: The window to show the slices through.
        age_bins: Ages in years at which a new age group begins.
        race_map: Which races to tell apart.
        ask_headers: Whether to take sex and age from the headers of the DICOM files where the clinical data
            lack them; they are counted by patient.

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
    cases = read_cases(file, age_bins, race_map)
    files, series = _series(folder)
    require_some(int(series["Subject ID"].isin(cases.table.index).sum()), "The series and the clinical data")
    reason = ("modality is " + series["Modality"].fillna("not said")).mask(series["Modality"] == "CT")
    reason = reason.mask(
        reason.isna() & ~series["Subject ID"].isin(cases.table.index), "patient without clinical data"
    )
    table, left_out, found = _slices(folder, series.assign(reason=reason), files, slices, step)
    known = cases.table
    if ask_headers:
        known, asked = _with_headers(
            known, table.drop_duplicates("patient").set_index("patient")["path"], folder
        )
        known["age_group"], _ = age_groups(known["age"], age_bins)
        found |= asked
    return Source(
        name="tcga-luad",
        table=table.join(known, on="patient"),
        labels={"stage": STAGES},
        attributes={"sex": ("male", "female"), "age_group": cases.age_names}
        | ({"race": cases.race_names} if "race" in cases.table else {}),
        root=folder,
        policies={
            "clinical": file.name,
            "slices": slices,
            "step": step if slices == "every" else None,
            "ct_window": window,
            "age_bins": list(age_bins),
            "race_map": race_map if "race" in cases.table else None,
            "ask_headers": ask_headers,
        },
        exclusions=left_out,
        settings={**cases.settings, **found},
        window=WINDOWS[window],
    )


def _series(root: Path) -> tuple[SeriesFiles, pd.DataFrame]:
    """All DICOM files, and the series that the table of the download lists, else those that they name."""
    tables = [path for pattern in ("metadata.csv", "*/metadata.csv") for path in root.glob(pattern)]
    if tables:
        file = find_file(root, "metadata.csv", "*/metadata.csv")
        return find_series(file.parent), read_text_table(file, _SERIES).drop_duplicates("Series UID")
    files = find_series(root)
    rows = [
        (
            uid,
            _most(file.patient for file in some),
            _most(file.modality for file in some),
            str(len(some)),
            None,
        )
        for uid, some in files.by_series.items()
        if uid
    ]
    if not rows:
        raise InputError(f"{root} has no metadata.csv and no DICOM file: is it the folder of this data set?")
    return files, pd.DataFrame(rows, columns=list(_SERIES), dtype=str)


def _with_headers(
    cases: pd.DataFrame, path: pd.Series[str], root: Path
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Sex and age of each case by the header of its first file, where the clinical data do not say them."""
    lacking = [case for case in path.index if cases.loc[case, ["sex", "age"]].isna().any()]
    said = [read_demographics(root / path[case]) for case in lacking]
    asked = pd.DataFrame(said, index=lacking, columns=["sex", "age"], dtype=object)
    asked["age"], _ = parse_ages(asked, "age", root)
    filled = cases.assign(sex=cases["sex"].fillna(asked["sex"]), age=cases["age"].fillna(asked["age"]))
    counts = {
        f"patients_whose_{name}_is_from_headers": int((cases[name].isna() & filled[name].notna()).sum())
        for name in ("sex", "age")
    }
    return filled, counts


def _most(words: Iterable[str]) -> str | None:
    """The most frequent word that is not blank."""
    counts = Counter(word for word in words if word)
    return counts.most_common(1)[0][0] if counts else None


def _slices(
    root: Path, series: pd.DataFrame, files: SeriesFiles, slices: Slices, step: int
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """The slices taken, those left out, and how many series lack files that their table promises."""
    rows: list[tuple[str, str, str]] = []
    left_out: list[pd.DataFrame] = [no_exclusions()]
    found = {"incomplete_series": 0, "unused_series_without_files": 0, "series_of_another_patient": 0}
    for one in series.sort_values("reason", na_position="first", kind="stable").to_dict("records"):
        mine = files.by_series.pop(one["Series UID"], [])
        if isinstance(one["reason"], str):
            found["unused_series_without_files"] += not mine
            left_out.append(_left_out(root, [file.path for file in mine], one["reason"]))
            continue
        found["incomplete_series"] += str(len(mine)) != one["Number of Images"]
        found["series_of_another_patient"] += any(f.patient not in ("", one["Subject ID"]) for f in mine)
        axial, others = _axial(mine, one["Modality"])
        taken = _choose(axial, slices, step)
        left_out += [_left_out(root, paths, why) for why, paths in others.items()]
        left_out.append(_left_out(root, sorted({*axial} - {*taken}), "slice not chosen"))
        # Damaged files are handed on, so that they stop the preparation or are skipped as any damaged image
        # is; so is a series that is nowhere, as it is in the table: a file that does not exist.
        paths = [_below(root, path) for path in (*taken, *files.damaged_beside(mine))]
        paths += [] if mine else [_location(one)]
        rows += [(path, one["Subject ID"], one["Series UID"]) for path in paths]
    rest = [file.path for some in files.by_series.values() for file in some]
    rest += [path for some in files.damaged.values() for path in some]
    left_out.append(_left_out(root, sorted(rest), "not in the table"))
    table = pd.DataFrame(rows, columns=["path", "patient", "series"], dtype=str)
    table.insert(0, "image", table["path"])
    return table, pd.concat(left_out, ignore_index=True), found


def _axial(files: list[SliceFile], modality: str) -> tuple[list[Path], dict[str, list[Path]]]:
    """The axial slices of a series from feet to head, each once, and why others are left out."""
    axial: list[tuple[float, Path]] = []
    others: dict[str, list[Path]] = {}
    seen = {""}
    for file in files:
        if file.modality not in ("", modality):
            others.setdefault(f"modality is {file.modality}", []).append(file.path)
        elif file.height is None:
            others.setdefault("slice is not axial", []).append(file.path)
        elif file.instance in seen - {""}:
            others.setdefault("copy of another slice", []).append(file.path)
        else:
            axial.append((file.height, file.path))
            seen.add(file.instance)
    return [path for _, path in sorted(axial)], others


def _left_out(root: Path, files: list[Path], why: str) -> pd.DataFrame:
    return exclude(pd.Series([_below(root, file) for file in files], dtype=str), why)


def _below(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()


def _location(series: Mapping[Hashable, Any]) -> str:
    """Where the table says that a series is, with the separators of Windows or not, never above its root."""
    parts = PurePosixPath(str(series["File Location"] or "").replace("\\", "/")).parts
    return "/".join(part for part in parts if part not in (".", "..", "/")) or str(series["Series UID"])


def _choose(files: list[Path], slices: Slices, step: int) -> list[Path]:
    if slices == "middle":
        return files[len(files) // 2 : len(files) // 2 + 1]
    return files if slices == "all" else files[step // 2 :: step]
