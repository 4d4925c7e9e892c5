"""The tables of data utility and its figure."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pandas as pd

from fairdx.core.errors import writing_to
from fairdx.core.files import write_whole
from fairdx.report.figures import shorten
from fairdx.report.numbers import Style
from fairdx.report.svg import Axis, Panel, add, sheet
from fairdx.study.tables import csv_text, markdown_table, markdown_text, tabular, tex_text, write_files
from fairdx.utility.heads import MEAN, METRICS

RESULTS = "utility.parquet"
"""Every figure, one row each."""
FREQUENT = "always the more frequent"
_TITLES = {"auroc": "AUC, %", "accuracy": "ACC, %"}


def write_utility(
    table: pd.DataFrame, folder: Path, *, main: str, notes: Sequence[str], level: float
) -> list[Path]:
    """Writes `utility.parquet`, `.csv`, `.md` and `.tex`, and `figure3.svg`.

    Args:
        table: One row for each figure, as `fairdx.utility.heads.Figure`.
        folder: Where to; made if needed.
        main: The finding that the encoder was trained for.
        notes: What else to say, as findings that are missing.
        level: Nominal coverage of the intervals.

    Returns:
        The files.

    Raises:
        InputError: The folder cannot be written to.
    """
    caption = (
        f"Heads fitted on frozen embeddings of an encoder trained for {main}. AUC and ACC of the more "
        f"probable class on test images, with {level:.0%} intervals by patient, as in an audit; "
        "differences are paired. ACC is to be read beside that of always deciding what is more frequent. "
        "They are of the test images, not of training: there is one seed."
    )
    files = write_files(
        folder,
        {
            "utility.csv": csv_text(table),
            "utility.md": _markdown(table, caption, notes),
            "utility.tex": _latex(table, caption, notes),
            "figure3.svg": figure3(table),
        },
    )
    with writing_to(folder):
        write_whole(folder / RESULTS, table.to_parquet())
    return [*files, folder / RESULTS]


def grid(table: pd.DataFrame, metric: str, kind: str) -> tuple[list[str], list[list[str]]]:
    """Head and cells of the figures of one metric: findings down, arms across."""
    chosen = table[(table["metric"] == metric) & (table["kind"] == kind)]
    arms = list(dict.fromkeys(chosen["arm"]))
    cells = {
        (row["finding"], row["arm"]): _cell(row, signed=kind == "difference")
        for row in chosen.to_dict("records")
    }
    rows = [[str(f), *(cells[f, arm] for arm in arms)] for f in dict.fromkeys(chosen["finding"])]
    if metric == "accuracy" and kind == "value":
        frequent = chosen.groupby("finding")["frequent"].first()
        return ["Finding", *arms, FREQUENT], [[*row, f"{100 * frequent[row[0]]:.2f}"] for row in rows]
    return ["Finding", *arms], rows


def _cell(row: Mapping[Hashable, Any], *, signed: bool) -> str:
    value, low, high = (Style(100, 2, signed)(row[name]) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _parts(table: pd.DataFrame) -> list[tuple[str, list[str], list[list[str]]]]:
    titles = {"value": "", "difference": ", differences"}
    return [(_TITLES[m] + titles[kind], *grid(table, m, kind)) for m in METRICS for kind in titles]


def _markdown(table: pd.DataFrame, caption: str, notes: Sequence[str]) -> str:
    parts = [markdown_text(caption)]
    for title, head, rows in _parts(table):
        escaped = [[markdown_text(cell) for cell in row] for row in rows]
        parts.append(f"## {title}\n\n" + markdown_table([markdown_text(h) for h in head], escaped, 1))
    if notes:
        parts.append("## Notes\n\n" + "\n".join(f"- {markdown_text(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _latex(table: pd.DataFrame, caption: str, notes: Sequence[str]) -> str:
    listed = "".join(f" {note}." for note in notes)
    parts = ["% needs \\usepackage{booktabs}"]
    for title, head, rows in _parts(table):
        escaped = [[tex_text(cell) for cell in row] for row in rows]
        parts.append(
            tabular(tex_text(f"{title}. {caption}{listed}"), [tex_text(h) for h in head], escaped, 1)
        )
    return "\n\n".join(parts) + "\n"


def figure3(table: pd.DataFrame) -> str:
    """AUC and ACC of every finding from every arm, with intervals, as an SVG file."""
    values = table[table["kind"] == "value"]
    arms, findings = list(dict.fromkeys(values["arm"])), list(dict.fromkeys(values["finding"]))
    panels = [_panel(values[values["metric"] == metric], metric, arms, findings) for metric in METRICS]
    return sheet(panels, arms, "Data utility: other findings from frozen embeddings")


def _panel(values: pd.DataFrame, metric: str, arms: Sequence[str], findings: Sequence[str]) -> Element:
    drawn = ["value", "low", "high", *(["frequent"] if metric == "accuracy" else [])]
    ends = (100 * values[drawn]).to_numpy().ravel().tolist()
    count, left = len(findings), 165
    rows = values.to_dict("records")
    spoken = "; ".join(f"{row['finding']}, {row['arm']}: {100 * row['value']:.1f}" for row in rows)
    panel = Panel(
        Axis.around(ends, _TITLES[metric], zero=False),
        Axis(0, count, "", lambda _: "", tuple(float(i) for i in range(count + 1))),
        label=f"{_TITLES[metric]}. {spoken}",
        title=_TITLES[metric] + (f"; dashed: {FREQUENT}" if metric == "accuracy" else ""),
        width=480,
        height=80 + 44 * count,
        left=left,
    )
    for row in rows:
        series, line = arms.index(row["arm"]), count - findings.index(row["finding"]) - 0.5
        place = line + 0.66 * (0.5 - (series + 0.5) / len(arms))
        (a, y), (b, _) = panel.at(100 * row["low"], place), panel.at(100 * row["high"], place)
        add(panel.svg, "path", d=f"M{a:.1f} {y:.1f}H{b:.1f}", class_=f"whisker thin s{series}")
        panel.marker(100 * row["value"], place, series)
    for i, finding in enumerate(findings):
        _, y = panel.at(panel.x.low, count - i - 0.5)
        if metric == "accuracy":
            of = values.loc[values["finding"] == finding, "frequent"].iloc[0]
            x, _ = panel.at(100 * float(of), 0)
            add(panel.svg, "path", d=f"M{x:.1f} {y - 15:.1f}v30", class_="rule")
        kind = "strong" if finding == MEAN else "value"
        add(panel.svg, "text", shorten(finding, 20), x=left - 8, y=y + 4, class_=f"{kind} end")
    return panel.svg
