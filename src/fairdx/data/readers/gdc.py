"""Clinical data of TCGA: the GDC's tables and JSON, the biotab file, the tables of cBioPortal and Xena."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from fairdx.core.errors import InputError
from fairdx.data.cells import age_groups, parse_ages, row_of
from fairdx.data.checks import nearest
from fairdx.data.readers.observations import RaceMap, most_frequent, parse_race
from fairdx.data.tabular import read_text_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

STAGES: Final = ("early", "late")
"""I and II are early, III and IV are late, as in the paper's appendix."""

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
_SEXES = "known: 'male', 'female'"


@dataclass(frozen=True)
class Cases:
    """What is known of each case."""

    table: pd.DataFrame
    """One row for each case, named by it: `stage` (codes), `sex`, `age`, `age_group` and possibly `race`."""
    age_names: tuple[str, ...]
    """The age groups."""
    race_names: tuple[str, ...]
    """The groups of race; none where the data has no race."""
    settings: Mapping[str, int]
    """What did not fit together, counted."""


def read_cases(file: Path, age_bins: Sequence[float], race_map: RaceMap) -> Cases:
    """Read clinical data, of which a case may have several rows (treatments).

    Args:
        file: A tab-separated table, or the JSON that the GDC gives for a cart of cases.
        age_bins: Ages in years at which a new age group begins.
        race_map: Which races to tell apart.

    Returns:
        The cases; where rows contradict each other the most frequent value, null at a tie.

    Raises:
        InputError: It cannot be read, lacks a column, or has a value that means nothing.
    """
    table = _read_json(file) if file.suffix.lower() == ".json" else _read_tsv(file)
    table = pd.DataFrame({name: cells.mask(cells.isin(_MISSING)) for name, cells in table.items()})
    case_column = _present(table, "case", file)
    # The biotab file repeats its header in other words twice.
    table = table[~table[case_column].str.contains("barcode|CDE_ID", na=False)]
    settings = {"rows_without_case": int(table[case_column].isna().sum())}
    table = table[table[case_column].notna()]
    columns: dict[str, pd.Series[Any]] = {
        "stage": _stages(table, _present(table, "stage", file), file),
        "sex": _sexes(table, _present(table, "sex", file), file),
    }
    race_names: tuple[str, ...] = ()
    if any(name in table for name in _CLINICAL["race"]):
        columns["race"], race_names, settings["rows_of_unrecognised_race"] = parse_race(
            table[_present(table, "race", file)], race_map
        )
    age, settings["impossible_ages"] = parse_ages(table, _present(table, "age", file), file)
    case = table[case_column]
    cases = pd.DataFrame(index=pd.Index(case.unique()))
    for name, values in columns.items():
        settled, conflicts, ties = most_frequent(case, values)
        cases[name] = settled
        settings[f"cases_of_contradictory_{name}"], settings[f"cases_of_undecided_{name}"] = conflicts, ties
    cases["age"] = age.groupby(case).median()
    cases["age_group"], age_names = age_groups(cases["age"], age_bins)
    cases["stage"] = cases["stage"].astype("Int16")
    return Cases(cases, age_names, race_names, settings)


def _read_tsv(file: Path) -> pd.DataFrame:
    return read_text_table(file, separator="\t", skip=_comments(file))


def _read_json(file: Path) -> pd.DataFrame:
    """One row for each diagnosis of a case, with the names of the GDC's newer tables."""
    try:
        cases = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON: {error}") from error
    try:
        rows = [row for case in cases for row in _case_rows(case)]
    except (AttributeError, TypeError):  # something else than cases, their demographic and their diagnoses
        raise InputError(f"{file} is not a list of cases, as the GDC gives for a cart") from None
    if not rows:
        raise InputError(f"{file} has no case")
    return pd.DataFrame(rows).astype(pd.StringDtype(na_value=float("nan")))


def _case_rows(case: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """A row for each diagnosis, or one without any."""
    about = {"cases.submitter_id": case.get("submitter_id")}
    about |= {f"demographic.{name}": value for name, value in (case.get("demographic") or {}).items()}
    for diagnosis in case.get("diagnoses") or [{}]:
        row = about | {f"diagnoses.{name}": value for name, value in diagnosis.items()}
        yield {name: str(value) for name, value in row.items() if isinstance(value, str | int | float)}


def _comments(file: Path) -> int:
    """How many lines with # stand before the header, as in the tables of cBioPortal."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as lines:
            return sum(1 for _ in takewhile(lambda line: line.startswith("#"), lines))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error


def _sexes(table: pd.DataFrame, column: str, file: Path) -> pd.Series[str]:
    sex = table[column].str.casefold()
    wrong = ~sex.isin(["male", "female", "unknown", "unspecified", "not reported"]) & sex.notna()
    if wrong.any():
        raise InputError(f"{file} row {row_of(table, wrong)}: the sex is {sex[wrong].iloc[0]!r} ({_SEXES})")
    return sex.where(sex.isin(["male", "female"]))


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
