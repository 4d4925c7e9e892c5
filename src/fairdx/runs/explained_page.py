"""What an explanation found as a section of a run's page, or as a page of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fairdx.core.errors import writing_to
from fairdx.core.files import write_whole
from fairdx.explain.charts import charts, tables
from fairdx.explain.result import OVERLAP, Explanation, read_explanation
from fairdx.explain.words import TITLES
from fairdx.report.figures import Figure, Table
from fairdx.report.page import png_uri, render_page

MAPS: Final = "figure4.png"
"""The figure of maps, in the folder that was explained."""


@dataclass(frozen=True)
class ExplainedSection:
    """What the template shows.

    Attributes:
        data: What was explained.
        sentences: What was found.
        figure: The maps, as the address of a PNG; empty without any.
        charts: Charts with their numbers.
        tables: Further numbers, with titles.
        notes: How the maps were made, and what was left out.
        version: Version of fairdx.
        created: When it was written.
    """

    data: dict[str, Any]
    sentences: Sequence[str]
    figure: str
    charts: Sequence[Figure]
    tables: Sequence[tuple[str, Table]]
    notes: Sequence[str]
    version: str
    created: str


def section_of(explanation: Explanation, figure: bytes | None) -> ExplainedSection:
    """Puts together what the template shows.

    Args:
        explanation: What was found.
        figure: The maps, as a PNG.
    """
    return ExplainedSection(
        data=explanation.data,
        sentences=explanation.sentences,
        figure="" if figure is None else png_uri(figure),
        charts=charts(explanation),
        tables=tables(explanation),
        notes=_notes(explanation),
        version=explanation.fairdx_version,
        created=explanation.created,
    )


def section_in(folder: Path) -> ExplainedSection | None:
    """Reads the section of a folder that was explained; None of one that was not.

    Raises:
        InputError: `overlap.json` cannot be read.
    """
    if not (folder / OVERLAP).exists():
        return None
    maps = folder / MAPS
    return section_of(read_explanation(folder / OVERLAP), maps.read_bytes() if maps.exists() else None)


def write_explanation_page(explanation: Explanation, figure: bytes, path: Path) -> None:
    """Writes the page of a model that was explained outside of a run.

    Raises:
        InputError: It cannot be written.
    """
    data = explanation.data
    page = render_page(
        "explain.html",
        title=f"{data['label']} and {data['attribute']}: where does the model look?",
        found=section_of(explanation, figure),
    )
    with writing_to(path.parent):
        write_whole(path, page.encode())


def _notes(explanation: Explanation) -> list[str]:
    notes = []
    for name, model in explanation.models.items():
        plain = name.replace("_", " ")
        for way, opinion in model.opinions.items():
            pair = opinion.pairs.get("group")
            empty = "" if pair is None else f", {pair.empty_diagnosis} and {pair.empty_group} of them empty"
            notes.append(
                f"{plain}, {TITLES[way]}: maps of diagnosis and group at {opinion.where['diagnosis']}, "
                f"{opinion.images} images{empty}."
            )
    return notes
