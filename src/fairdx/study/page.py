"""The page of a study: its tables and figures in one self-contained file."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fairdx import __version__
from fairdx.report.page import render_page
from fairdx.study.figures import make_figures
from fairdx.study.paper import MARK, paper_rows, paper_table, trends
from fairdx.study.summary import Line, Summary, short, shown
from fairdx.study.tables import (
    HYPERVOLUME,
    NEEDS_GROUP,
    caption,
    hypervolume_lines,
    make_tables,
    write_files,
)

PAGE = "study.html"


def write_page(
    rows: pd.DataFrame,
    folder: Path,
    *,
    title: str,
    varied: Sequence[str] = (),
    mirrors: str | None = None,
    seeds: Sequence[int] = (),
    failures: Sequence[str] = (),
) -> Path:
    """Writes `study.html`.

    Args:
        rows: The table of runs; see `fairdx.study.summary`.
        folder: Where to; made if needed.
        title: Of the page.
        varied: Columns of the varied settings.
        mirrors: Name of a table of the paper to show beside ours.
        seeds: The seeds that were planned.
        failures: A sentence on each run that failed; what is missing is found out besides.

    Returns:
        The page.

    Raises:
        InputError: The rows do not fit together, there is no such table, or the folder cannot be written to.
    """
    summary = Summary(rows, varied, seeds)
    table = None if mirrors is None else paper_table(mirrors)
    head, cells = ([], []) if table is None else paper_rows(table)
    page = render_page(
        "study.html",
        title=title,
        facts=_facts(summary),
        failures=[*failures, *missing(summary)],
        caption=caption(summary),
        needs_group=NEEDS_GROUP if any(line.needs_group for line in summary.lines) else "",
        tables=make_tables(summary),
        figures=make_figures(summary),
        hypervolume=HYPERVOLUME,
        hypervolumes=hypervolume_lines(summary),
        trends=trends(summary, mirrors),
        paper=table,
        paper_head=head,
        paper_rows=cells,
        mark=MARK,
        version=__version__,
    )
    return write_files(folder, {PAGE: page})[0]


def missing(summary: Summary) -> list[str]:
    """A sentence on each line that has not all its runs."""
    return [f"{name(line, summary)}: {line.count}." for line in summary.lines if not line.complete]


def name(line: Line, summary: Summary) -> str:
    """A line in words."""
    known = [
        f"{short(key)} {shown(value)}"
        for key, value in zip(summary.varied, line.values, strict=True)
        if value is not None
    ]
    return f"{line.method}{' (' + ', '.join(known) + ')' if known else ''} on {line.data}"


def _facts(summary: Summary) -> str:
    runs = sum(line.runs for line in summary.lines)
    over = [short(key) for key in summary.varied]
    varied = f" Varied: {', '.join(over)}." if over else ""
    return f"{runs} runs of {', '.join(summary.methods)} on {', '.join(summary.data)}.{varied}"
