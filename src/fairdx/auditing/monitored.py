"""What a monitor found, as plain data: the course of every gap, ready for JSON and a page."""

from dataclasses import dataclass
from typing import Any

from fairdx.core.schema import Number

MONITOR_SCHEMA_VERSION = "1.0"
"""Version of the JSON form; the first number changes when a field is renamed or removed."""


@dataclass(frozen=True)
class Look:
    """A moment at which the figures are looked at.

    Attributes:
        name: The period that ends there, as 2025-03.
        images: Images of this period.
        images_so_far: Images up to its end.
        patients_so_far: Patients up to its end (images, when no patients are given).
    """

    name: str
    images: int
    images_so_far: int
    patients_so_far: int


@dataclass(frozen=True)
class Course:
    """A figure at every look; lists of one length. Null where it is not defined yet.

    Attributes:
        value: Of all images up to the look.
        low: Lower end of its confidence sequence: all looks hold at once with the nominal level.
        high: Upper end.
        period: The figure of the look's own period alone; null for figures that no period has by itself.
        period_low: Lower end of its interval; those of all periods hold at once.
        period_high: Upper end.
        lowest: At the last look, the group with the lower rate of the pair that is furthest apart.
        highest: The group with the higher one.
        method: How the sequence was made.
    """

    value: list[Number]
    low: list[Number]
    high: list[Number]
    period: list[Number]
    period_low: list[Number]
    period_high: list[Number]
    lowest: str | None
    highest: str | None
    method: str


@dataclass(frozen=True)
class Watched:
    """A sensitive attribute.

    Attributes:
        groups: Images of each group.
        reference: The group that effects compare with.
        excluded: Groups that are too small to compare even at the last look.
    """

    groups: dict[str, int]
    reference: str
    excluded: list[str]


@dataclass(frozen=True)
class MonitorSettings:
    """How it was run.

    Attributes:
        threshold: A decision is score >= threshold.
        level: Probability that all intervals of a sequence hold.
        min_group_size: A group is compared from the look on at which it has so many images.
        clustered: Whether patients were given.
    """

    threshold: float
    level: float
    min_group_size: int
    clustered: bool


@dataclass(frozen=True)
class MonitorResult:
    """All that `fairdx.auditing.monitor` found; fractions are in [0, 1].

    Attributes:
        schema_version: Version of this form.
        fairdx_version: Version of the package.
        created: Date and time (UTC, ISO 8601).
        classes: Names of the negative and the positive class.
        settings: How it was run.
        looks: In order of time.
        attributes: By name.
        gaps: {attribute: {metric: course}}.
        effects: {attribute: {group: {metric: course}}} against the attribute's reference.
        notes: What a reader should know.
    """

    schema_version: str
    fairdx_version: str
    created: str
    classes: list[str]
    settings: MonitorSettings
    looks: list[Look]
    attributes: dict[str, Watched]
    gaps: dict[str, dict[str, Course]]
    effects: dict[str, dict[str, dict[str, Course]]]
    notes: list[str]

    def to_json(self, indent: int | None = None) -> str:
        """The result as JSON; undefined values are null. `monitor_schema` describes it."""
        from pydantic import TypeAdapter

        return TypeAdapter(MonitorResult).dump_json(self, indent=indent).decode()

    def to_html(self, *, title: str | None = None) -> str:
        """The result as one self-contained page."""
        # The only call from here up to the pages: what a page is made of stays there.
        from fairdx.auditing.page_monitor import render_monitor

        return render_monitor(self, title=title)


def monitor_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of `MonitorResult.to_json`."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(MonitorResult).json_schema(mode="serialization")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "version": MONITOR_SCHEMA_VERSION}
    return {**head, **schema}
