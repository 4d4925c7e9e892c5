"""The page of a run: what a mitigation did, from the files of the run's folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairdx.core.errors import writing_to
from fairdx.core.files import write_whole
from fairdx.metrics.definitions import METRICS
from fairdx.report.numbers import SIGNED_POINTS, direction_of, integer, loss_of, style_of, unit_of
from fairdx.report.page import render_page
from fairdx.runs import words
from fairdx.runs.explained_page import section_in
from fairdx.runs.figures import run_figures, training_figures
from fairdx.runs.folder import RunFolder, to_toml
from fairdx.runs.repeat import said
from fairdx.runs.samples import gallery

if TYPE_CHECKING:
    from rich.table import Table

PAGE = "report.html"


@dataclass(frozen=True)
class Cell:
    """A figure in a table.

    Attributes:
        value: As text.
        ends: Its interval as text.
        best: Whether the intervals show it to be better than every other in its row.
    """

    value: str
    ends: str
    best: bool


@dataclass(frozen=True)
class Row:
    """A metric in a table of methods.

    Attributes:
        title: Name of the metric.
        hint: Definition in a sentence.
        unit: Unit of the figures.
        arrow: Which direction is good, as a sign.
        meaning: The same in words.
        cells: One per method.
        verdict: What changed from the first to the last method; empty where that cannot be said.
    """

    title: str
    hint: str
    unit: str
    arrow: str
    meaning: str
    cells: Sequence[Cell]
    verdict: str


def write_run_report(folder: Path) -> Path:
    """Write the page of a run, and its figures as files of their own.

    Args:
        folder: A run's folder, as `fairdx.runs.run.run` leaves it.

    Returns:
        The page: `report.html` in the folder. `samples.png` and `figures/*.svg` lie beside it.

    Raises:
        InputError: If a file of the run is missing or cannot be read, or the folder cannot be written to.
    """
    run = RunFolder.read(folder)
    figures, training, pictures = run_figures(run), training_figures(run), gallery(run)
    page = render_page(
        "run.html",
        title=f"{_capital(run.data['label'])} and {run.data['attribute']}: is the diagnosis fair?",
        run=run,
        data=run.data,
        states=states(run),
        question=words.question(run),
        headline=words.headline(run),
        findings=words.findings(run),
        certainty=words.certainty(run),
        rows=rows(run, auc_change=words.auc_verdict(run) if len(run.methods) > 1 else None),
        rows_at_half=rows(run, at_half=True),
        figures=figures,
        training=training,
        explained=section_in(folder),
        gallery=pictures,
        facts=facts(run),
        settings=to_toml(run.config),
    )
    with writing_to(folder):
        (folder / "figures").mkdir(exist_ok=True)
        for figure in [*figures.values(), *training]:
            write_whole(folder / "figures" / f"{figure.name}.svg", figure.file().encode())
        write_whole(folder / "samples.png", pictures.sheet)
        write_whole(folder / PAGE, page.encode())
    return folder / PAGE


def states(run: RunFolder) -> list[str]:
    """Column heads: the methods, called before and after if they are two."""
    titles = [words.method_title(m) for m in run.methods]
    return [f"Before: {titles[0]}", f"After: {titles[1]}"] if len(titles) == 2 else titles


def rows(run: RunFolder, *, at_half: bool = False, auc_change: str | None = None) -> list[Row]:
    """The table of metrics.

    Args:
        run: The run.
        at_half: Take the figures at the threshold 0.5 in place of those at the chosen one.
        auc_change: Verdict of the paired test of the AUC, where it was made.

    Returns:
        One row per metric, a true effect below its estimate; none if the run has no such figures.
    """
    methods = [m.get("at_half") or {} if at_half else m for m in run.results["methods"].values()]
    made: list[Row] = []
    for name in METRICS:
        if any(m.get(name) for m in methods):
            row = _row(name, [m.get(name) for m in methods])
            made.append(replace(row, verdict=auc_change) if auc_change and name == "auroc" else row)
        true = [m.get(f"true_{name}") for m in methods]
        if any(true):
            made.append(_true_row(name, true))
    return made


def _row(name: str, estimates: Sequence[dict[str, Any] | None]) -> Row:
    about, style = METRICS[name], style_of(name)
    arrow, meaning = direction_of(name)
    best = supported_best(name, estimates)
    cells = [
        Cell(style(e["value"]), style.interval(e["low"], e["high"]), i == best) if e else Cell("–", "", False)
        for i, e in enumerate(estimates)
    ]
    found = words.verdict(name, estimates[0], estimates[-1]) if len(estimates) > 1 else None
    return Row(about.title, about.definition, unit_of(name), arrow, meaning, cells, found or "")


def _true_row(name: str, effects: Sequence[dict[str, Any] | None]) -> Row:
    cells = [
        Cell(SIGNED_POINTS(e["value"]), SIGNED_POINTS.interval(e["low"], e["high"]), False)
        if e
        else Cell("–", "", False)
        for e in effects
    ]
    hint = (
        "Measured by drawing the same simulated patients as either group; the range is its Monte-Carlo error."
    )
    found = words.verdict(name, effects[0], effects[-1]) if len(effects) > 1 else None
    return Row(f"True {METRICS[name].title.lower()}", hint, "points", *direction_of(name), cells, found or "")


def supported_best(name: str, estimates: Sequence[dict[str, Any] | None]) -> int | None:
    """The method whose figure is closest to the ideal, if its interval overlaps no other's.

    Args:
        name: The metric.
        estimates: One per method.

    Returns:
        Index of the method, or None if there is no such method.
    """
    known = [(i, e) for i, e in enumerate(estimates) if e and e["value"] is not None and e["low"] is not None]
    losses = {i: loss_of(name, e["value"]) for i, e in known}
    if len(known) < 2 or any(loss is None for loss in losses.values()):
        return None
    best, own = min(known, key=lambda item: losses[item[0]] or 0.0)
    apart = all(own["high"] < e["low"] or e["high"] < own["low"] for i, e in known if i != best)
    return best if apart else None


def facts(run: RunFolder) -> list[tuple[str, str]]:
    """Data and settings as names and values."""
    data, first = run.data, run.results["methods"][run.methods[0]]
    images = ", ".join(f"{integer(n)} {split}" for split, n in data["images"].items())
    shares = ", ".join(
        f"{group} {'unknown' if p is None else f'{p:.1%}'}" for group, p in data["prevalence"].items()
    )
    found = [
        ("Data", str(data["source"])),
        ("Label (Y)", f"{data['label']}: {', '.join(data['classes'])}"),
        ("Sensitive attribute (S)", f"{data['attribute']}: {', '.join(data['groups'])}"),
        ("Reference group", str(data["reference"])),
        ("Images", images),
        ("Test patients", integer(data["test_patients"])),
        ("Left out", f"{integer(data['left_out'])} images without a known label or group"),
        (f"Share with “{data['classes'][-1]}”, test", shares),
        ("Image size", f"{data['size']} × {data['size']} pixels, {_channels(data['channels'])}"),
    ]
    for name, method in run.results["methods"].items():
        if method.get("threshold") is not None:
            split = method["threshold_chosen_on"]
            text = f"{method['threshold']:.4f}, chosen on {split} images (Youden's index)"
            found.append((f"Threshold, {words.method_title(name)}", text))
    found += [("To note", _capital(note)) for note in run.results.get("notes", [])]
    found += [
        ("Intervals", f"{first['auroc']['method']}, {first['auroc']['level']:.0%}, patients resampled"),
        ("Seed", str(run.config["seed"])),
        ("Hash of the data", str(data.get("hash", "unknown"))),
        *_made_with(run.results),
        ("Created", str(run.results["created"])),
        ("Time taken", f"{run.results['seconds']:.0f} s"),
    ]
    return found


def _made_with(results: dict[str, Any]) -> list[tuple[str, str]]:
    """On what the figures were computed, and how that compares with an earlier run."""
    made = results.get("made_with")
    if made is None:
        return [("Version", f"fairdx {results['fairdx_version']}")]
    versions = made["versions"]
    found = [
        ("Versions", f"{', '.join(f'{name} {one}' for name, one in versions.items())}; code {made['code']}"),
        (
            "Computed on",
            f"{made['gpu'] or made['cpu']}, {made['precision']}, {made['threads']} threads, "
            f"{made['processes']} {'process' if made['processes'] == 1 else 'processes'}, {made['system']}",
        ),
    ]
    if results.get("repeats"):
        verdict, *differences = said(results["repeats"])
        found += [("Earlier run", verdict), *(("Earlier run", one) for one in differences)]
    return found


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _channels(count: int) -> str:
    return "grey" if count == 1 else f"{count} channels"


def summary_table(results: dict[str, Any]) -> "Table":
    """A run's figures as a table for a terminal.

    Args:
        results: Content of `results.json`.

    Returns:
        One row per metric, one column per method.
    """
    from rich.table import Table
    from rich.text import Text

    run = RunFolder.of_results(results)
    table = Table(
        "metric", title="bold: better, and the intervals do not overlap" if len(run.methods) > 1 else None
    )
    for state in states(run):
        table.add_column(Text(state))
    for row in rows(run):
        unit = f", {row.unit}" if row.unit else ""
        shown = [Text(f"{c.value}  ({c.ends})", style="bold" if c.best else "") for c in row.cells]
        table.add_row(Text(f"{row.title}{unit} {row.arrow}"), *shown)
    return table
