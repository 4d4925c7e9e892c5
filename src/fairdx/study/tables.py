"""A study's tables: Markdown and LaTeX to read, CSV with everything in full precision."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import pandas as pd

from fairdx.core.cells import as_text
from fairdx.core.errors import writing_to
from fairdx.core.files import write_whole
from fairdx.study.columns import Column, best, present
from fairdx.study.front import hypervolumes
from fairdx.study.paper import MARK, paper_rows, paper_table, trends
from fairdx.study.summary import NO_MEAN, VANILLA, Line, Summary, short, shown

NEEDS_GROUP = "needs the group at test time: a limit, not a rival; never in bold"
"""The footnote of methods that use S at test time."""


@dataclass(frozen=True)
class Cell:
    """One figure of a table.

    Attributes:
        value: The mean as text.
        ends: Its interval as text; empty if there is none.
        best: Whether it is in bold.
        note: That it is of fewer runs than its line; empty if it is not.
    """

    value: str
    ends: str
    best: bool
    note: str = ""


@dataclass(frozen=True)
class TableRow:
    """A line of a table, ready to be written."""

    method: str
    needs_group: bool
    values: tuple[str, ...]
    runs: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """The table of one data set.

    Attributes:
        data: Name of the data set.
        settings: Names of the varied settings.
        columns: What is shown.
        rows: One per method and setting.
    """

    data: str
    settings: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]


def make_tables(summary: Summary) -> list[Table]:
    """The tables of a study, one for each data set."""
    return [_table(summary, data) for data in summary.data]


def _table(summary: Summary, data: str) -> Table:
    lines = summary.of(data)
    columns = present(lines)
    winners = [best(lines, column) for column in columns]
    rows = [
        TableRow(
            line.method,
            line.needs_group,
            tuple(shown(value) for value in line.values),
            line.count,
            tuple(_cell(line, c, i in won) for c, won in zip(columns, winners, strict=True)),
        )
        for i, line in enumerate(lines)
    ]
    return Table(data, tuple(short(name) for name in summary.varied), tuple(columns), tuple(rows))


def _cell(line: Line, column: Column, bold: bool) -> Cell:
    mean = line.estimates.get(column.metric, NO_MEAN)
    fewer = 0 < mean.n < len(line.table)
    ends = column.interval(column.possible(mean))
    return Cell(column.text(mean.value), ends, bold, _number(mean.n, "run") if fewer else "")


def caption(summary: Summary) -> str:
    """How the tables are to be read."""
    sources = {line.source for line in summary.lines if line.runs}
    parts = []
    if sources & {"seeds", "folds"}:
        unit = "seeds" if "seeds" in sources else "folds"
        parts.append(
            f"Mean over {unit}, with its 95 % interval (Student's t, cut where the metric ends, as at 0)."
        )
    if "folds" in sources:
        parts.append("Folds share training images, so an interval over folds is narrower than it should be.")
    if "run" in sources:
        parts.append(
            "Where there is one run only: its own 95 % bootstrap interval over patients, not over seeds."
        )
    if "pooled" in sources:
        parts.append(
            "Pooled folds: the predictions of all folds together; 95 % bootstrap interval over patients."
        )
    parts.append(
        "Bold: best by the metric's own direction (AUC and ACC higher; all others nearer to 0), and what "
        "rounds to the same; it says nothing about intervals. Effects compete by their mean size over runs, "
        "since those of both signs cancel in the mean that is shown."
    )
    if any(line.runs and not line.complete for line in summary.lines):
        parts.append("Lines with missing runs are of the runs that finished, and never in bold.")
    if any(not line.runs for line in summary.lines):
        parts.append("Lines with no finished run are empty.")
    return " ".join(parts)


def write_tables(
    rows: pd.DataFrame,
    folder: Path,
    *,
    varied: Sequence[str] = (),
    mirrors: str | None = None,
    seeds: Sequence[int] = (),
) -> list[Path]:
    """Writes `table.md`, `table.tex` and `table.csv`.

    Args:
        rows: The table of runs; see `fairdx.study.summary`.
        folder: Where to; made if needed.
        varied: Columns of the varied settings.
        mirrors: Name of a table of the paper to show beside ours.
        seeds: The seeds that were planned, so that one that failed everywhere is missed too.

    Returns:
        The files.

    Raises:
        InputError: The rows do not fit together, there is no such table, or the folder cannot be written to.
    """
    summary = Summary(rows, varied, seeds)
    contents = {
        "table.md": markdown(summary, mirrors),
        "table.tex": latex(summary, mirrors),
        "table.csv": csv_text(frame(summary)),
    }
    return write_files(folder, contents)


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV whose text no spreadsheet takes for a formula."""
    return table.map(as_text).to_csv(index=False, lineterminator="\n")


def write_files(folder: Path, contents: dict[str, str]) -> list[Path]:
    """Writes texts under their names in a folder, which is made if needed.

    Raises:
        InputError: It cannot be written to.
    """
    with writing_to(folder):
        for name, text in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, text.encode())
    return [folder / name for name in contents]


def frame(summary: Summary) -> pd.DataFrame:
    """Everything in full precision: one row for each line and metric.

    Returns:
        `data`, `method`, the varied settings, `needs_group`, `runs`, `expected`, `interval` (what it is of),
        `metric`, `n`, `mean`, `low`, `high`, and `difference` to vanilla of the same seed with `n`,
        `low` and `high`; fractions and nats.
    """
    records = []
    for line in summary.lines:
        for name in summary.metrics:
            mean, change = line.estimates[name], line.differences.get(name, NO_MEAN)
            records.append(
                {
                    "data": line.data,
                    "method": line.method,
                    **dict(zip(summary.varied, line.values, strict=True)),
                    "needs_group": line.needs_group,
                    "runs": line.runs,
                    "expected": line.expected,
                    "interval": line.source,
                    "metric": name,
                    "n": mean.n,
                    "mean": mean.value,
                    "low": mean.low,
                    "high": mean.high,
                    "difference": change.value,
                    "difference_low": change.low,
                    "difference_high": change.high,
                    "difference_n": change.n,
                }
            )
    return pd.DataFrame(records)


def hypervolume_lines(summary: Summary) -> list[str]:
    """One sentence for each method's hypervolume, where a method has several strengths."""
    found = []
    for data in summary.data:
        lines = summary.of(data)
        several = len({line.method for line in lines}) < len(lines)
        if several and sum(line.method.casefold() == VANILLA for line in lines) == 1:
            for method, area in hypervolumes(summary, data=data).items():
                ends = f" ({area.low:.3f} to {area.high:.3f})" if isfinite(area.low) else ""
                of = f"{_number(area.points, 'point')}, {_number(area.seeds, 'seed')}"
                value = f"{area.value:.3f}" if isfinite(area.value) else "none"
                found.append(f"{data}, {method}: {value}{ends}, {of}")
    return found


def _number(count: int, of: str) -> str:
    return f"{count} {of}{'' if count == 1 else 's'}"


HYPERVOLUME = (
    "Hypervolume of the front of AUC and ADF, as a share of the rectangle between the reference (vanilla's "
    "ADF, its AUC less 0.05) and vanilla's AUC with an ADF of 0; more is better. "
    "Intervals: jackknife over seeds."
)
"""What the hypervolumes are."""


def markdown(summary: Summary, mirrors: str | None = None) -> str:
    """The tables as Markdown, with the paper's, trends and hypervolumes."""
    parts = [caption(summary)]
    if any(line.needs_group for line in summary.lines):
        parts.append(f"† {NEEDS_GROUP}.")
    for table in make_tables(summary):
        head = ["Method", *table.settings, "Runs", *(f"{c.title}, {c.unit}" for c in table.columns)]
        rows = [
            [
                markdown_text(row.method) + (" †" if row.needs_group else ""),
                *(markdown_text(value) for value in row.values),
                row.runs,
                *(_cell_text(cell, "**{}**".format) for cell in row.cells),
            ]
            for row in table.rows
        ]
        parts.append(
            f"## {markdown_text(table.data)}\n\n"
            + markdown_table([markdown_text(name) for name in head], rows, len(table.settings) + 2)
        )
    areas = hypervolume_lines(summary)
    if areas:
        parts.append(
            f"## Hypervolume\n\n{HYPERVOLUME}\n\n" + "\n".join(f"- {markdown_text(line)}" for line in areas)
        )
    moves = trends(summary, mirrors)
    if moves:
        parts.append("## Trends\n\n" + "\n".join(f"- {markdown_text(line)}" for line in moves))
    if mirrors is not None:
        table_there = paper_table(mirrors)
        head, cells = paper_rows(table_there)
        parts.append(
            f"## Table {table_there.number} of the paper\n\nThese are {MARK}; it gives no intervals.\n\n"
            + markdown_table(head, [[markdown_text(cell) for cell in row] for row in cells], 2)
        )
    return "\n\n".join(parts) + "\n"


def _cell_text(cell: Cell, bold: Callable[[str], str], note: Callable[[str], str] = " ({})".format) -> str:
    ends = note(cell.ends) if cell.ends else ""
    return (bold(cell.value) if cell.best else cell.value) + ends + (note(cell.note) if cell.note else "")


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> str:
    """A table in Markdown of cells that are escaped already; the first `texts` columns are aligned left."""
    rule = ["---" if i < texts else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|#" else c for c in plain)


_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "&%$#_"},
    "−": "$-$",
    "–": "--",
    "→": r"$\to$",
    "†": r"$^\dagger$",
    "η": r"$\eta$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def tex_text(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_TEX.get(c, c) for c in " ".join(text.split()))


def latex(summary: Summary, mirrors: str | None = None) -> str:
    """The tables as LaTeX (booktabs): one for each data set, and the paper's where it is mirrored."""
    footnote = (
        f" {tex_text('†')} {tex_text(NEEDS_GROUP)}."
        if any(line.needs_group for line in summary.lines)
        else ""
    )
    parts = ["% needs \\usepackage{booktabs}"]
    for table in make_tables(summary):
        head = [
            "Method",
            *(tex_text(s) for s in table.settings),
            "Runs",
            *(f"{c.title}, {c.latex}" for c in table.columns),
        ]
        rows = [
            [
                tex_text(row.method) + (tex_text("†") if row.needs_group else ""),
                *(tex_text(value) for value in row.values),
                row.runs,
                *(_tex_cell(cell) for cell in row.cells),
            ]
            for row in table.rows
        ]
        parts.append(
            tabular(
                f"{tex_text(table.data)}. {tex_text(caption(summary))}{footnote}",
                head,
                rows,
                len(table.settings) + 2,
            )
        )
    if mirrors is not None:
        there = paper_table(mirrors)
        heads = ["Data", there.setting.capitalize(), *(f"{c.title}, {c.latex}" for c in there.columns)]
        cells = [[tex_text(cell) for cell in row] for row in paper_rows(there)[1]]
        parts.append(tabular(f"Table {there.number} of the paper: {tex_text(MARK)}.", heads, cells, 2))
    return "\n\n".join(parts) + "\n"


def _tex_cell(cell: Cell) -> str:
    plain = Cell(tex_text(cell.value), tex_text(cell.ends), cell.best, tex_text(cell.note))
    return _cell_text(plain, r"\textbf{{{}}}".format, r" {{\scriptsize ({})}}".format)


def tabular(caption_text: str, head: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> str:
    """A LaTeX table (booktabs) of cells that are escaped already; the first `texts` columns stand left."""
    columns = "l" * texts + "r" * (len(head) - texts)
    texts_of = (" & ".join(row) + r" \\" for row in rows)
    # At the start of a row these would be options of the line break before it.
    body = "\n".join(f"{{}}{text}" if text.startswith(("[", "*")) else text for text in texts_of)
    return "\n".join(
        (
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption_text}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        )
    )
