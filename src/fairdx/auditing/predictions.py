"""Read anybody's table of predictions, and say in one sentence what is wrong with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fairdx.auditing.columns import (
    GroupColumn,
    LabelRules,
    Truth,
    parse_group,
    read_groups,
    read_label,
    read_patients,
    read_scores,
    read_weights,
)
from fairdx.auditing.matched import same_images, split_models, unique
from fairdx.auditing.repeats import check_repeats, checked_columns
from fairdx.auditing.source import Source, open_source
from fairdx.auditing.table import Table, read_table, require, select
from fairdx.core.errors import InputError
from fairdx.core.missing import BY_PROGRAMS
from fairdx.metrics.inputs import Codes, Floats
from fairdx.metrics.matching import order_of_scores

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Predictions:
    """Columns of a table of predictions, checked, as `fairdx.auditing.engine` takes them.

    Attributes:
        y_true: Truth: classes, shape (n,), whose order is that of the columns of scores; or a data frame of
            0/1 findings, shape (n, L), nan where a label is not known.
        y_score: Scores in [0, 1], shape (n,); (n, K); or (n, L).
        sensitive_features: Groups by attribute, each of shape (n,).
        patients: Patient of each image, shape (n,), or None.
        covariates: Covariates by name, each of shape (n,).
        compare_to: A second score of the same images, of the shape of `y_score`, or None.
        positive_class: Name of the positive class of a truth of two classes; None for several.
        models: Scores of further models for the same images, by the name of the model.
        notes: What a reader of the audit should know about the table.
        weight: What each image counts, shape (n,), or None.
        first: The model whose scores `y_score` holds, where a table has several.
        unlabelled: Scores and groups of rows that have no label, of a truth of two classes with one score;
            None if there are none that have a score.
    """

    y_true: "Codes | pd.DataFrame"
    y_score: Floats
    sensitive_features: dict[str, Codes]
    patients: Codes | None
    covariates: dict[str, Codes]
    compare_to: Floats | None
    positive_class: str | None
    notes: tuple[str, ...]
    models: dict[str, Floats] = field(default_factory=dict)
    weight: Floats | None = None
    first: str | None = None
    unlabelled: tuple[Floats, dict[str, Codes]] | None = None


@dataclass(frozen=True)
class Columns:
    """Which columns of a table mean what, and how they are read.

    Attributes:
        label: Column of the truth; or a column for each finding.
        score: Column of P(Y=1); or a column for each class or finding, named after it (as `score_benign`) or
            written `CLASS=COLUMN`. Columns of findings whose names say nothing belong to them in their order.
        groups: Sensitive attributes, as `fairdx.auditing.columns.parse_group` reads them.
        patient: Column of the patient.
        weight: Column that says what each image counts.
        covariates: Columns to standardise effects over, like `groups`.
        identifier: Column that names the image; it must then be unique.
        compare_to: Column of a second score; or a second table with the same score columns, whose rows are
            matched by `identifier`.
        model: Column that says whose prediction a row is, where a table has rows of several models, or
            `COLUMN=MODEL` with the model that the others are compared with, the first row's if none is named;
            rows are matched by `identifier`.
        where: Value by column: only rows that have all of them are read.
        labels: How labels are read.
        missing: Words that mean missing, besides blank cells.
    """

    label: Sequence[str]
    score: Sequence[str]
    groups: Sequence[str]
    patient: str | None = None
    weight: str | None = None
    covariates: Sequence[str] = ()
    identifier: str | None = None
    compare_to: str | Path | None = None
    model: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    labels: LabelRules = field(default_factory=LabelRules)
    missing: Sequence[str] = BY_PROGRAMS


def read_predictions(path: str | Path, **columns: Any) -> Predictions:
    """Read a table of predictions: CSV, Excel or Parquet, packed or not (`fairdx.auditing.source`).

    Args:
        path: The file, or "-" for standard input.
        **columns: Fields of `Columns`; a single column may be given as text, and the fields of
            `fairdx.auditing.columns.LabelRules` by themselves.

    Returns:
        The columns. Rows without a known label are left out, which a note counts.

    Raises:
        InputError: One sentence naming the file and the column or row at fault: no such file or column (with
            the nearest name), no rows, missing or non-numeric scores, scores outside [0, 1], labels that do
            not say which is the disease, a single class or group, too many groups, duplicate identifiers,
            images that the second table lacks or labels otherwise.
    """
    rules = {name: columns.pop(name) for name in ("positive", "uncertain", "unlabelled") if name in columns}
    for name in ("label", "score", "groups"):
        if isinstance(columns.get(name), str):
            columns[name] = [columns[name]]
    return read_columns(path, Columns(**columns, labels=LabelRules(**rules)))


def read_columns(path: str | Path, asked: Columns) -> Predictions:
    """Read a table of predictions; see `read_predictions`.

    Args:
        path: The file, or "-" for standard input.
        asked: Which columns mean what.
    """
    source, notes = open_source(path), list[str]()
    layout = _Layout.of(source, asked)
    needed = [*layout.needed(asked), *checked_columns(source, asked.identifier)]
    table = read_table(source, needed, missing=asked.missing)
    table = select(table, asked.where, notes)
    if source.remark:
        notes.append(source.remark)
    others: dict[str, Table] = {}
    first = None
    if layout.model is not None:
        first, table, others = split_models(table, layout.model, layout.base, asked.identifier)
    if asked.identifier is not None:
        unique(table, asked.identifier)
    notes += check_repeats(table, layout.needed(asked), asked.identifier)
    whole = table
    truth, table = _truth(whole, asked, layout, notes)
    second = None
    if asked.compare_to is not None:
        second = _second_scores(source, table, asked, layout, truth, notes)
    return Predictions(
        truth.y_true,
        _matrix(table, truth.scores),
        {g.column: read_groups(table, g, notes) for g in layout.groups},
        None if asked.patient is None else read_patients(table, asked.patient, notes),
        {c.column: read_groups(table, c, notes) for c in layout.covariates},
        second,
        truth.positive,
        tuple(notes),
        {
            name: _matrix(same_images(table, rows, str(asked.identifier), asked.label, notes), truth.scores)
            for name, rows in others.items()
        },
        None if asked.weight is None else read_weights(table, asked.weight),
        first,
        None if truth.rows is None else _unlabelled(whole, truth.rows, layout),
    )


def _unlabelled(
    table: Table, labelled: NDArray[np.bool_], layout: "_Layout"
) -> tuple[Floats, dict[str, Codes]] | None:
    """Scores and groups of the rows without a label; rows that cannot be read are none of ours."""
    try:
        scores = table.numbers(layout.scores[0])
        groups = {g.column: read_groups(table, g, []) for g in layout.groups}
    except InputError:
        return None
    rows = ~labelled & (scores >= 0) & (scores <= 1)
    return (
        (scores[rows], {name: column.take(rows) for name, column in groups.items()}) if rows.any() else None
    )


@dataclass(frozen=True)
class _Layout:
    """The columns that were asked for, found in the header."""

    scores: list[str]
    groups: list[GroupColumn]
    covariates: list[GroupColumn]
    second: str | None  # a column to compare with
    model: str | None  # the column that says whose prediction a row is
    base: str | None  # and the model that the others are compared with

    @classmethod
    def of(cls, source: Source, asked: Columns) -> "_Layout":
        scores = [c if c in source.columns else c.partition("=")[2] or c for c in asked.score]
        groups, covariates = (
            [parse_group(text, source.columns) for text in texts]
            for texts in (asked.groups, asked.covariates)
        )
        second = str(asked.compare_to) if str(asked.compare_to) in source.columns else None
        model, base = asked.model, None
        if model is not None and model not in source.columns:
            model, _, base = model.partition("=")
        for given, kind in (
            (list(asked.label), "label"),
            ([g.column for g in groups], "group"),
            (scores, "score"),
        ):
            if twice := [c for i, c in enumerate(given) if c in given[:i]]:
                raise InputError(f"the {kind} column {twice[0]!r} is given twice; give each once.")
        used = {**dict.fromkeys(scores, "score"), **{g.column: "group" for g in groups}}
        for column in asked.label:
            if column in used:
                raise InputError(
                    f"{column!r} is given as the label and as a {used[column]}; a {used[column]} is no truth."
                )
        only = [
            g.column for g in groups if len(groups) == 1
        ]  # of several it may be a covariate of the others
        used = {**dict.fromkeys(scores, "score"), **dict.fromkeys(asked.label, "label")}
        used |= dict.fromkeys(only, "group")
        for column in [c.column for c in covariates if c.column in used]:
            raise InputError(
                f"{column!r} is given as a covariate and as the {used[column]}; within its values there is "
                "nothing left to compare."
            )
        return cls(scores, groups, covariates, second, model, base)

    def needed(self, asked: Columns) -> list[str]:
        named = (asked.patient, asked.identifier, self.second, self.model, asked.weight)
        single = [c for c in named if c is not None]
        attributes = [g.column for g in (*self.groups, *self.covariates)]
        return [*asked.label, *self.scores, *attributes, *single, *asked.where]


@dataclass(frozen=True)
class _Known:
    """The truth of the rows that have one, and the columns of scores in its order.

    With one score of two classes `rows` says which rows have a label, if not all of them do.
    """

    y_true: "Codes | pd.DataFrame"
    scores: list[str]
    positive: str | None
    rows: NDArray[np.bool_] | None = (
        None  # which of the table's have a label, if one score decides and some lack it
    )


def _truth(table: Table, asked: Columns, layout: _Layout, notes: list[str]) -> tuple[_Known, Table]:
    """The truth; and the table without the rows that have none."""
    labels, scores = list(asked.label), layout.scores
    if len(labels) == len(scores) == 1:
        truth = read_label(table, labels[0], asked.labels, notes)
        rows = truth.codes >= 0
        y_true = Codes(truth.codes[rows], truth.names, truth.names)
        return _Known(y_true, scores, truth.names[1], None if rows.all() else rows), _only(table, rows)
    if len(labels) > 1:
        return _findings(table, asked, layout, notes)
    if len(scores) == len(table.text(labels[0]).names) == 2:
        truth = read_label(table, labels[0], asked.labels, notes)
        order = order_of_scores(truth.names, asked.score, positional=False, what="class")
        rows = truth.codes >= 0
        y_true = Codes(truth.codes[rows], truth.names, truth.names)
        return _Known(y_true, [scores[order[1]]], truth.names[1]), _only(table, rows)
    return _classes(table, labels[0], asked, layout, notes)


def _only(table: Table, rows: np.ndarray[Any, Any]) -> Table:
    return table if rows.all() else table.take(rows)


def _findings(table: Table, asked: Columns, layout: _Layout, notes: list[str]) -> tuple[_Known, Table]:
    import pandas as pd

    labels = list(asked.label)
    if len(labels) != len(layout.scores):
        raise InputError(
            f"there are {len(labels)} labels but {len(layout.scores)} scores; give one score for each "
            "finding."
        )
    order = order_of_scores(labels, asked.score, positional=True, what="finding")
    found: dict[str, Truth] = {name: read_label(table, name, asked.labels, notes) for name in labels}
    truth = pd.DataFrame({name: np.where(t.codes < 0, np.nan, t.codes) for name, t in found.items()})
    rows = truth.notna().any(axis=1).to_numpy()
    return _Known(truth[rows].reset_index(drop=True), [layout.scores[k] for k in order], None), _only(
        table, rows
    )


def _classes(
    table: Table, label: str, asked: Columns, layout: _Layout, notes: list[str]
) -> tuple[_Known, Table]:
    """Several classes, one for each image, each with a score."""
    if asked.labels.positive is not None:
        raise InputError(
            f"--positive {asked.labels.positive} is of no use with a score for each of several classes."
        )
    found = table.text(label)
    if found.missing.any():
        notes.append(
            f"{found.missing.sum():,} of {len(table):,} rows have no label in {label} and are left out."
        )
    classes = list(found.names)
    if len(classes) != len(layout.scores):
        raise InputError(
            f"{table.name}: label column {label!r} has {len(classes)} classes ({', '.join(classes[:8])}) but "
            f"{len(layout.scores)} scores are given; give one for each class."
        )
    order = order_of_scores(classes, asked.score, positional=False, what="class")
    codes = Codes(found.codes[~found.missing], found.names, found.names)
    return _Known(codes, [layout.scores[k] for k in order], None), _only(table, ~found.missing)


def _matrix(table: Table, columns: Sequence[str]) -> Floats:
    found = [read_scores(table, column) for column in columns]
    return found[0] if len(found) == 1 else np.stack(found, axis=1)


def _second_scores(
    source: Source, table: Table, asked: Columns, layout: _Layout, truth: _Known, notes: list[str]
) -> Floats:
    """The scores to compare with, in the order of the rows."""
    if layout.second is not None:
        if len(truth.scores) > 1:
            raise InputError(
                f"{layout.second!r} is one column, but there are {len(truth.scores)} scores; compare with "
                "a second "
                "file."
            )
        return read_scores(table, layout.second)
    other = Path(str(asked.compare_to))
    if not other.exists():
        raise InputError(
            f"{source.name} has no column {str(other)!r} to compare with, and there is no such file."
        )
    if asked.identifier is None:
        raise InputError(f"to compare with {other}, name the column of both that identifies an image.")
    found = open_source(other)
    for column in (asked.identifier, *truth.scores):
        require(found, column)
    shared = [name for name in asked.label if name in found.columns]
    second = read_table(found, [asked.identifier, *truth.scores, *shared], missing=asked.missing)
    return _matrix(same_images(table, second, asked.identifier, asked.label, notes), truth.scores)
