"""What methods keep of the diagnosis within groups, and what they leave of the gap, whatever the threshold.

Equal scores in all groups within a label must give up whatever AUC lay in telling the groups apart. What they
need not give up is the order of the patients of one group. Both are shown, with the AUC of every pair of
groups, the bound of decisions with equal rates, and every difference from vanilla drawn on the same patients.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pandas as pd

from fairdx.core.files import write_whole
from fairdx.metrics import counts as tables
from fairdx.metrics.inputs import Floats, Ints
from fairdx.metrics.pairs import equalized_auroc_bound
from fairdx.runs.files import PREDICTIONS, RESULTS
from fairdx.runs.folder import read_predictions
from fairdx.study.front import MARGIN, hypervolume
from fairdx.study.plan import PlannedRun
from fairdx.study.pool import shifted
from fairdx.study.summary import VANILLA
from fairdx.study.tables import csv_text, markdown_text

TABLE: Final = "within.csv"
TEXT: Final = "within.md"
REPLICATES: Final = 500
BUDGET: Final = 0.01
"""What a chosen setting may cost in AUC within groups."""
CHOSEN: Final = "chosen out of fold"
LEVELS: Final = np.linspace(0.2, 0.9, 15)
"""Operating points, as quantiles of the scores: those of `mean_approximate_diagnosis_fairness`."""

LineKey = tuple[str, str, str]
"""Data set, method, and varied settings as text."""


@dataclass(frozen=True)
class Scored:
    """One set of test images under one method: a seed, or all folds together.

    Attributes:
        patient: Codes, shape (n,).
        cell: Codes of group and label, s * 2 + y, shape (n,).
        place: Rank of the score among the distinct ones, shape (n,).
        positive: Whether it was decided Y=1, shape (n,).
        groups: Number of groups.
        score: Shape (n,).
        fold: In which fold each image was tested, shape (n,); None without folds.
    """

    patient: Ints
    cell: Ints
    place: Ints
    positive: Ints
    groups: int
    score: Floats
    fold: Ints | None = None

    @classmethod
    def of(
        cls,
        score: Floats,
        *,
        label: Ints,
        group: Ints,
        decision: Ints,
        patient: Ints,
        groups: int,
        fold: Ints | None = None,
    ) -> Self:
        """Makes it of columns of shape (n,)."""
        place = np.unique(score, return_inverse=True)[1].astype(np.int64)
        return cls(patient, group * 2 + label, place, decision, groups, score, fold)

    def figures(self, weight: Floats | None = None) -> Floats:
        """AUC, AUC within groups, ADF, ADF over thresholds, and the pairs' AUCs (rows Y=1), flattened."""
        scores = int(self.place.max()) + 1
        histogram = tables.weighted_table(
            self.cell // 2, self.cell % 2, self.place, (self.groups, 2, scores), weight
        )
        negative, positive = histogram[:, 0], histogram[:, 1]
        below = np.cumsum(negative, axis=-1) - negative / 2
        wins, pairs = positive @ below.T, np.outer(positive.sum(-1), negative.sum(-1))
        ended = np.cumsum(histogram, axis=-1)
        reached = np.searchsorted(ended.sum((0, 1)), LEVELS * histogram.sum())
        under = np.moveaxis(ended[..., np.minimum(reached, scores - 1)], -1, 0)
        cut = np.stack([under, ended[None, ..., -1] - under], axis=-1)
        decided = tables.weighted_table(
            self.cell // 2, self.cell % 2, self.positive, (self.groups, 2, 2), weight
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            areas = wins / pairs
        return np.array(
            [
                wins.sum() / pairs.sum(),
                np.trace(wins) / np.trace(pairs),
                float(tables.mutual_information(decided)),
                float(tables.mutual_information(cut).mean()),
                *areas.ravel(),
            ]
        )

    def bound(self) -> float:
        """AUC that decisions with equal rates can have at most, the group known."""
        return equalized_auroc_bound(self.cell % 2, self.score, sensitive_features=self.cell // 2)


@dataclass(frozen=True)
class Lines:
    """The lines of one data set on the same images, with what patients are resampled.

    Attributes:
        scored: By line, one entry for each seed (or one for all folds).
        groups: Names of the groups.
        patients: Number of patients.
    """

    scored: dict[LineKey, list[Scored]]
    groups: tuple[str, ...]
    patients: int

    def values(self, weights: Floats | None) -> dict[LineKey, Floats]:
        """Figures of each line, means over its seeds; with weights of the patients if given."""
        return {
            key: np.mean([one.figures(None if weights is None else weights[one.patient]) for one in each], 0)
            for key, each in self.scored.items()
        }


def write_within(plan: Sequence[PlannedRun], folder: Path) -> pd.DataFrame | None:
    """Writes `within.csv` and `within.md` for the lines of a study whose runs all lie in its folder, done.

    Args:
        plan: All runs.
        folder: The study's folder.

    Returns:
        The table; None where no data set has a label of two classes.
    """
    frames = []
    for data in dict.fromkeys(run.data for run in plan):
        lines = _lines([run for run in plan if run.data == data], folder)
        if lines is not None and lines.scored:
            frames.append(within_table(with_choices(lines)))
    if not frames:
        return None
    frame = pd.concat(frames, ignore_index=True)
    write_whole(folder / TABLE, csv_text(frame).encode())
    write_whole(folder / TEXT, (within_text(frame) + _without(plan, frame)).encode())
    return frame


def _without(plan: Sequence[PlannedRun], frame: pd.DataFrame) -> str:
    """Says which lines the table lacks, since some of their runs are missing."""
    there = set(zip(frame["data"], frame["method"], frame["varied"], strict=True))
    missing = [key for key in dict.fromkeys(map(_line_of, plan)) if key not in there]
    if not missing:
        return ""
    names = [f"{method} ({varied})" if varied else method for _, method, varied in missing]
    listed = "; ".join(f"{name}, {data}" for (data, *_), name in zip(missing, names, strict=True))
    why = "since a run of theirs is missing or the label has more than two classes"
    return f"\nNot in the table, {why}: {markdown_text(listed)}.\n"


def _line_of(run: PlannedRun) -> LineKey:
    varied = ", ".join(f"{k.removeprefix('method.')}={v}" for k, v in run.varied.items() if v is not None)
    return run.data, run.method, varied


def _lines(plan: Sequence[PlannedRun], folder: Path) -> Lines | None:
    runs: dict[LineKey, list[PlannedRun]] = {}
    for run in plan:
        runs.setdefault(_line_of(run), []).append(run)
    done = {
        key: each
        for key, each in runs.items()
        if all((folder / "runs" / run.key / name).exists() for run in each for name in (RESULTS, PREDICTIONS))
    }
    if not done:
        return None
    first = json.loads((folder / "runs" / next(iter(done.values()))[0].key / RESULTS).read_text())["data"]
    if len(first["classes"]) != 2:
        return None
    tables_of = {key: list(_predictions(each, folder)) for key, each in done.items()}
    known = pd.Index(pd.concat([t["patient"] for each in tables_of.values() for t in each]).unique())
    attribute, groups = first["attribute"], tuple(first["groups"])
    scored = {
        key: [_scored(table, known, pd.Index(groups), attribute) for table in each]
        for key, each in tables_of.items()
    }
    return Lines(scored, groups, len(known))


def _predictions(runs: Sequence[PlannedRun], folder: Path) -> Iterator[pd.DataFrame]:
    """Test predictions: of each seed, or of all folds together, on one scale as in `fairdx.study.pool`."""
    found = []
    for run in runs:
        place = folder / "runs" / run.key
        table = read_predictions(place / PREDICTIONS)
        name = run.settings.method_name
        table = table[(table["split"] == "test") & (table["method"] == name)].reset_index(drop=True)
        if run.fold is not None:
            threshold = json.loads((place / RESULTS).read_text())["methods"][name]["threshold"]
            table["score"] = shifted(table["score"].to_numpy(float), threshold)
        table["fold"] = -1 if run.fold is None else run.fold
        found.append(table)
    if runs[0].fold is not None:
        yield pd.concat(found, ignore_index=True)
    else:
        yield from found


def _scored(table: pd.DataFrame, patients: "pd.Index[Any]", groups: "pd.Index[Any]", name: str) -> Scored:
    fold = table["fold"].to_numpy(np.int64)
    return Scored.of(
        table["score"].to_numpy(float),
        label=table["label"].to_numpy(np.int64),
        group=np.asarray(groups.get_indexer(pd.Index(table[name])), np.int64),
        decision=table["decision"].to_numpy(np.int64),
        patient=np.asarray(patients.get_indexer(pd.Index(table["patient"])), np.int64),
        groups=len(groups),
        fold=None if (fold < 0).any() else fold,
    )


def _is_vanilla(label: str) -> bool:
    return label.casefold() == VANILLA


def with_choices(lines: Lines, *, budget: float = BUDGET) -> Lines:
    """Adds a line for each method of several settings: in each fold that which does best in the others.

    The one with the least ADF over thresholds among those whose AUC within groups is at most `budget` below
    vanilla's, on the same images, is applied to the fold. Every method so has the same images to choose on.

    Args:
        lines: Of a cross-validated study; without folds they are returned as they are.
        budget: A fraction.
    """
    base = next((key for key in lines.scored if _is_vanilla(key[1]) and not key[2]), None)
    settings: dict[str, list[LineKey]] = {}
    for key in lines.scored:
        settings.setdefault(key[1], []).append(key)
    found = dict(lines.scored)
    for method, keys in settings.items():
        fold = lines.scored[keys[0]][0].fold
        if base is not None and fold is not None and len(keys) > 1:
            one = _chosen([lines.scored[key][0] for key in keys], lines.scored[base][0], budget)
            found[(keys[0][0], method, CHOSEN)] = [one]
    return Lines(found, lines.groups, lines.patients)


def _chosen(settings: Sequence[Scored], base: Scored, budget: float) -> Scored:
    first = settings[0]
    assert first.fold is not None
    score, decision = first.score.copy(), first.positive.copy()
    for fold in np.unique(first.fold):
        others = (first.fold != fold).astype(float)
        least = base.figures(others)[1] - budget
        found = [one.figures(others) for one in settings]
        best = min(range(len(settings)), key=lambda i: (max(0.0, least - found[i][1]), found[i][3]))
        rows = first.fold == fold
        score[rows], decision[rows] = settings[best].score[rows], settings[best].positive[rows]
    return Scored.of(
        score,
        label=first.cell % 2,
        group=first.cell // 2,
        decision=decision,
        patient=first.patient,
        groups=first.groups,
        fold=first.fold,
    )


def within_table(lines: Lines) -> pd.DataFrame:
    """One row for each line: figures, and differences from vanilla on the same draws of patients."""
    rng = np.random.default_rng(0)
    own = lines.values(None)
    drawn: dict[LineKey, list[Floats]] = {key: [] for key in own}
    for _ in range(REPLICATES):
        weight = np.bincount(rng.integers(0, lines.patients, lines.patients), minlength=lines.patients)
        for key, found in lines.values(weight.astype(float)).items():
            drawn[key].append(found)
    repeated = {key: np.array(each) for key, each in drawn.items()}
    base = next((key for key in own if _is_vanilla(key[1]) and not key[2]), None)
    rows = []
    for key, value in own.items():
        row: dict[str, Any] = dict(zip(("data", "method", "varied"), key, strict=True))
        row |= dict(zip(("auroc", "within", "adf", "adf_over_thresholds"), value, strict=False))
        for place, area in enumerate(value[4:]):
            ill, well = divmod(place, len(lines.groups))
            row[f"auroc: ill of {lines.groups[ill]}, well of {lines.groups[well]}"] = area
        row["bound"] = float(np.mean([one.bound() for one in lines.scored[key]]))
        if base is not None:
            change = repeated[key] - repeated[base]
            row["within_change"] = value[1] - own[base][1]
            row["within_low"], row["within_high"] = np.quantile(change[:, 1], (0.025, 0.975))
            ratio = repeated[base][:, 3] / np.maximum(repeated[key][:, 3], 1e-12)
            row["times_lower"] = own[base][3] / max(value[3], 1e-12)
            row["times_low"], row["times_high"] = np.quantile(ratio, (0.025, 0.975))
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame if base is None else frame.merge(_areas(own, repeated, base), on=["data", "method"])


def _areas(own: dict[LineKey, Floats], repeated: dict[LineKey, Floats], base: LineKey) -> pd.DataFrame:
    """The area that each method's strengths dominate, and how far it is below the largest, paired."""

    def area(of: dict[LineKey, Floats], method: str) -> float:
        reference = (of[base][1] - MARGIN, of[base][3])
        own = [found[[1, 3]] for key, found in of.items() if key[1] == method and key[2] != CHOSEN]
        return hypervolume(own, reference)

    methods = list(dict.fromkeys(key[1] for key in own))
    count = len(repeated[base])
    draws = [{key: found[i] for key, found in repeated.items()} for i in range(count)]
    areas = {method: np.array([area(one, method) for one in draws]) for method in methods}
    rows = []
    for method in methods:
        row: dict[str, Any] = {"data": base[0], "method": method, "hypervolume": area(own, method)}
        row["hypervolume_low"], row["hypervolume_high"] = np.quantile(areas[method], (0.025, 0.975))
        for other in methods:
            if other != method and not _is_vanilla(other):
                low, high = np.quantile(areas[method] - areas[other], (0.025, 0.975))
                row[f"more than {other}, low"], row[f"more than {other}, high"] = low, high
        rows.append(row)
    return pd.DataFrame(rows)


def within_text(frame: pd.DataFrame) -> str:
    """The table in Markdown: areas in AUC, ADF in 10^-3 nats."""
    pairs = [name for name in frame.columns if name.startswith("auroc: ")]
    head = [
        *("data", "method", "AUC", "AUC within groups", "change (95 %)", "ADF", "ADF over thresholds"),
        *("times lower (95 %)", "bound of AUC", "area, 10^-6"),
        *(name.removeprefix("auroc: ") for name in pairs),
    ]
    lines = [f"| {' | '.join(map(markdown_text, head))} |", f"|{'---|' * len(head)}"]
    for _, series in frame.iterrows():
        row: dict[str, Any] = {str(name): value for name, value in series.items()}
        method = f"{row['method']} ({row['varied']})" if row["varied"] else str(row["method"])
        cells = [
            *(str(row["data"]), method, f"{row['auroc']:.4f}", f"{row['within']:.4f}"),
            _ends(row, "within", "change", "{:+.4f}"),
            *(f"{1e3 * row['adf']:.1f}", f"{1e3 * row['adf_over_thresholds']:.1f}"),
            _ends(row, "times", "lower", "{:.1f}"),
            f"{row['bound']:.4f}",
            _figure(1e6 * row.get("hypervolume", np.nan), ".0f"),
            *(_figure(row[name], ".3f") for name in pairs),
        ]
        lines.append(f"| {' | '.join(map(markdown_text, cells))} |")
    note = (
        "AUC within groups: of two patients of one group, how often the ill one scores higher. ADF in 10^-3 "
        "nats, at the threshold and as the mean over operating points. Changes and ratios are against "
        f"vanilla, on the same {REPLICATES} draws of patients. Bound: the AUC that decisions by this score "
        "with equal rates in all groups can have, the group known. Area: what a method's strengths dominate "
        "of AUC within groups and ADF over thresholds, from vanilla's ADF and its AUC within groups less "
        f"{MARGIN}."
    )
    return "\n".join([*lines, "", note, ""])


def _figure(value: float, form: str) -> str:
    """A figure as text; empty where there is none, as of groups that another data set has."""
    return "" if np.isnan(value) else f"{value:{form}}"


def _ends(row: dict[str, Any], name: str, kind: str, form: str) -> str:
    value = row.get(f"{name}_{kind}")
    if value is None or np.isnan(value) or _is_vanilla(row["method"]):
        return ""
    return f"{form.format(value)} ({form.format(row[f'{name}_low'])} to {form.format(row[f'{name}_high'])})"
