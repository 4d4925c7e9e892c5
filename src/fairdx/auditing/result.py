"""What an audit found, as plain data: every figure with its interval, ready for JSON, tables and pages."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fairdx.auditing.result_curves import Curves, Explorer
from fairdx.core.schema import Number
from fairdx.inference.pooling import Pooled
from fairdx.inference.uncertainty import Estimate
from fairdx.metrics.bounds import LabelBounds
from fairdx.metrics.definitions import METRICS
from fairdx.metrics.reliability import TEN, Bins

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = "1.3"
"""Version of the JSON form; the first number changes when a field is renamed or removed."""


@dataclass(frozen=True)
class Attribute:
    """A sensitive attribute, or the intersection of several.

    Attributes:
        name: Its name; "a × b" for an intersection.
        groups: Number of images by group.
        patients: Number of patients by group (images, when no patients are given).
        reference: The group s- that effects compare with.
        excluded: Groups left out of gaps, effects and tests because they are too small.
        intersection: Whether it is made of several attributes.
        effective: With weights, the effective number of images by group (Kish: of patients where these are
            given); else empty.
    """

    name: str
    groups: dict[str, int]
    patients: dict[str, int]
    reference: str
    excluded: list[str]
    intersection: bool
    effective: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Gap:
    """A difference between groups.

    Attributes:
        estimate: The value with its interval.
        lowest: The group with the lowest rate of the pair that is furthest apart; None for information.
        highest: The group with the highest.
        detectable: The smallest value that would be found with 80 % power at this sample size by the test as
            corrected for all others.
        left_out: Groups with too few images for this difference, or none; the others are compared.
    """

    estimate: Estimate
    lowest: str | None
    highest: str | None
    detectable: Number
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CaseMix:
    """Figures of groups as they would be if all had one mix of the covariates.

    Attributes:
        by_group: {group: {metric: estimate}}: "tpr", standardised over the covariates of all images with Y=1,
            and "auroc", within values of the covariates (Janes and Pepe 2009), with the same mix.
        gaps: {metric: gap} between the groups, "equal_opportunity_difference" and "auroc_gap".
        left_out: {metric: {group: images}} whose covariates some other group lacks.
    """

    by_group: dict[str, dict[str, Estimate]]
    gaps: dict[str, Gap]
    left_out: dict[str, dict[str, int]]


@dataclass(frozen=True)
class LabelsMissing:
    """What images that have a score, but no label, may do to the gaps between groups.

    Attributes:
        images: Number of these by group.
        gaps: {metric: bounds}.
    """

    images: dict[str, int]
    gaps: dict[str, LabelBounds]


@dataclass(frozen=True)
class Sensitivity:
    """What it would take to explain the direct effect of a group away.

    Attributes:
        e_value: The risk ratio by which an unmeasured common cause of disease and image would have to go both
            with the group and with positive decisions (VanderWeele and Ding 2017); 1 is no strength at all.
        e_value_interval: The same for the end of the interval that is nearer to no effect; 1 if it holds 0.
        missed_share: The share of images recorded Y=0, of the group with more positive decisions, that would
            have to be missed disease; null if no such share explains it.
    """

    e_value: Number
    e_value_interval: Number
    missed_share: Number


@dataclass(frozen=True)
class Support:
    """Images that effects standardised over covariates leave out.

    Attributes:
        group: Images of the group whose covariates occur in the reference with too few labels, or not at all.
        reference: Images of the reference whose covariates do so in the group.
    """

    group: int
    reference: int


@dataclass(frozen=True)
class Test:
    """A test of "no difference".

    Attributes:
        attribute: The attribute.
        metric: What is tested to be zero.
        group: The group compared with the reference, for effects; None if all groups are compared.
        method: How.
        p_value: Uncorrected.
        p_family: Corrected for the family-wise error rate over all tests of the audit, those of every class
            or finding and those of a second table among them, by how they depend on each other (Westfall and
            Young 1993).
        p_holm: The same by Holm's correction, which allows for the worst dependence.
        p_bh: Corrected for the false discovery rate over the same tests.
    """

    attribute: str
    metric: str
    group: str | None
    method: str
    p_value: Number
    p_holm: Number
    p_bh: Number
    p_family: Number


@dataclass(frozen=True)
class Note:
    """A sentence for the reader.

    Attributes:
        kind: "finding" (what was found), "caution" (what makes it less sure), "limit" (what cannot be said).
        attribute: The attribute it is about, or None.
        text: The sentence.
    """

    kind: Literal["finding", "caution", "limit"]
    attribute: str | None
    text: str


@dataclass(frozen=True)
class Change:
    """A second table of predictions against the first, on the same images.

    Attributes:
        before: Value under the first scores.
        after: Value under the second scores.
        difference: After less before, with an interval from paired replicates.
        p_value: Of no change; nan where none is computed.
        method: Of the p-value.
        p_holm: Corrected for all tests of the audit by Holm.
        p_family: The same by how they depend on each other, where that is known.
    """

    before: Number
    after: Number
    difference: Estimate
    p_value: Number
    method: str
    p_holm: Number
    p_family: Number


@dataclass(frozen=True)
class Settings:
    """How the audit was run.

    Attributes:
        threshold: Operating point; None if the largest score decides.
        level: Nominal coverage of all intervals.
        interval: "percentile" or "bca", for quantities of either sign.
        n_replicates: Bootstrap replicates.
        n_permutations: Permutations of the test of ADF.
        seed: Of all randomness.
        min_group_size: Groups with fewer images are reported but not compared.
        clustered: Whether patients were given and resampled.
        covariates: Standardised over in the adjusted effects.
        thresholds: Operating points of their own: by finding or class, by `ATTRIBUTE:GROUP`, by model.
        weighted: Whether images have weights.
        calibration_bins: Bins of the score for calibration, at most.
        calibration_binning: "quantile" (equally many images of a group in each) or "uniform" (equally wide).
    """

    threshold: float | None
    level: float
    interval: str
    n_replicates: int
    n_permutations: int
    seed: int
    min_group_size: int
    clustered: bool
    covariates: list[str]
    thresholds: dict[str, float] = field(default_factory=dict)
    weighted: bool = False
    calibration_bins: int = TEN.number
    calibration_binning: str = TEN.kind

    @property
    def dependent(self) -> bool:
        """Whether images are no independent draws that count 1 each."""
        return self.clustered or self.weighted

    @property
    def bins(self) -> Bins:
        """Of the score, for calibration."""
        return Bins(self.calibration_bins, self.calibration_binning)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Withheld:
    """What an audit does not show, so that no count of a few people can be read from it.

    Attributes:
        least: Fewest people (images, where no patients are given) that a count other than 0 stands for.
        cells: Cells of a group, a label and a decision with fewer that were found.
        joined: {attribute: {name of a joined group: the groups in it}}.
        attributes: Attributes of which nothing is shown.
        decisions: Attributes of which only figures that rest on scores alone are shown.
        overall: Whether this is so of all images as well.
        intersections: Whether intersections are left out.
    """

    least: int
    cells: int
    joined: dict[str, dict[str, list[str]]]
    attributes: list[str]
    decisions: list[str]
    overall: bool
    intersections: bool


@dataclass(frozen=True)
class AuditResult:
    """All that `fairdx.audit` found; fractions are in [0, 1], information is in nats.

    Attributes:
        schema_version: Version of this form.
        fairdx_version: Version of the package.
        created: Date and time (UTC, ISO 8601).
        task: "binary", "multiclass" (one class per image) or "multilabel" (several findings per image).
        classes: The labels (binary: negative, positive), classes or findings.
        n_images: Number of images.
        n_patients: Number of patients (images when none are given).
        settings: How it was run.
        attributes: By name, intersections last.
        overall: {metric: estimate} over all images.
        by_group: {attribute: {group: {metric: estimate}}}.
        gaps: {attribute: {metric: gap}}; information (ADF) is here too.
        effects: {attribute: {group: {metric: estimate}}} against the attribute's reference.
        adjusted_effects: The same, standardised over the covariates too; empty without covariates.
        modelled_effects: The same by logistic regressions, which leave no value of the covariates out.
        simultaneous_effects: As `effects`, with intervals that hold for all groups of the attribute at once:
            those to quote of the largest.
        pooled: {attribute: {metric: {group: figure}}} after partial pooling, of attributes with three groups
            or more; groups too small to compare are among them.
        missing_bounds: {attribute: {metric: [low, high]}} between which a gap of these images lies, whatever
            the groups of those without one are; of attributes with missing values.
        labels_missing: {attribute: bounds of its gaps}, whatever the labels of images without one are.
        sensitivity: {attribute: {group: sensitivity}} of the direct effects.
        support: {attribute: {group: support}} of the adjusted effects; empty without covariates.
        case_mix: {attribute: figures with one mix of the covariates}; no intersections.
        tests: All tests, with corrected p-values.
        curves: {attribute: {group: curves}}; "overall" holds {"all": curves}. Binary tasks only.
        explorer: {attribute: explorer}. Binary tasks only.
        comparison: {attribute or "overall": {metric: change}}; empty without a second table.
        per_label: One-vs-rest audits of each class or finding; empty for binary tasks.
        models: Audits of further models on the same images, whose `comparison` is against this one.
        identification: What must be true for the effects to be causal.
        notes: Findings, cautions and limits in words.
        n_effective: With weights, the effective number of images (Kish), or of patients; null without.
        withheld: What is not shown for the sake of small cells; null if nothing.
    """

    schema_version: str
    fairdx_version: str
    created: str
    task: Literal["binary", "multiclass", "multilabel"]
    classes: list[str]
    n_images: int
    n_patients: int
    settings: Settings
    attributes: dict[str, Attribute]
    overall: dict[str, Estimate]
    by_group: dict[str, dict[str, dict[str, Estimate]]]
    gaps: dict[str, dict[str, Gap]]
    effects: dict[str, dict[str, dict[str, Estimate]]]
    adjusted_effects: dict[str, dict[str, dict[str, Estimate]]]
    modelled_effects: dict[str, dict[str, dict[str, Estimate]]]
    simultaneous_effects: dict[str, dict[str, dict[str, Estimate]]]
    pooled: dict[str, dict[str, dict[str, Pooled]]]
    missing_bounds: dict[str, dict[str, tuple[Number, Number]]]
    sensitivity: dict[str, dict[str, Sensitivity]]
    support: dict[str, dict[str, Support]]
    tests: list[Test]
    curves: dict[str, dict[str, Curves]]
    explorer: dict[str, Explorer]
    comparison: dict[str, dict[str, Change]]
    identification: str
    notes: list[Note]
    per_label: dict[str, "AuditResult"] = field(default_factory=dict)
    models: dict[str, "AuditResult"] = field(default_factory=dict)
    n_effective: float | None = None
    withheld: Withheld | None = None
    case_mix: dict[str, CaseMix] = field(default_factory=dict)
    labels_missing: dict[str, LabelsMissing] = field(default_factory=dict)

    def to_frame(self) -> "pd.DataFrame":
        """All estimates as one table.

        Returns:
            Columns attribute, group, metric, title, value, low, high, level, method, n; attribute and group
            are empty for all images, group is empty for gaps.
        """
        import pandas as pd

        rows = [_row("", "", metric, e) for metric, e in self.overall.items()]
        for attribute in self.attributes:
            sources = (self.by_group, self.effects, self.adjusted_effects, self.modelled_effects)
            for source, suffix in zip(sources, ("", "", "_adjusted", "_modelled"), strict=True):
                for group, found in source.get(attribute, {}).items():
                    rows += [_row(attribute, group, m, e, suffix) for m, e in found.items()]
            rows += [_row(attribute, "", m, gap.estimate) for m, gap in self.gaps.get(attribute, {}).items()]
            rows += _case_mix_rows(attribute, self.case_mix.get(attribute))
        return pd.DataFrame(rows)

    def to_json(self, indent: int | None = None) -> str:
        """The result as JSON; undefined values are null. `json_schema` describes it."""
        from pydantic import TypeAdapter

        return TypeAdapter(AuditResult).dump_json(self, indent=indent).decode()

    def to_html(self, *, title: str | None = None) -> str:
        """The result as one self-contained page.

        Args:
            title: Heading of the page; one that names the attributes if None.

        Returns:
            HTML that needs no other file and no network.
        """
        # The only call from here up to the reports: what the page is made of stays there.
        from fairdx.auditing.page import render_audit

        return render_audit(self, title=title)


def json_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of `AuditResult.to_json`."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(AuditResult).json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "version": SCHEMA_VERSION, **schema}


def _case_mix_rows(attribute: str, found: CaseMix | None) -> list[dict[str, Any]]:
    if found is None:
        return []
    rows = [(group, m, e) for group, own in found.by_group.items() for m, e in own.items()]
    rows += [("", metric, gap.estimate) for metric, gap in found.gaps.items()]
    return [_row(attribute, group, metric, e, "_case_mix") for group, metric, e in rows]


def _row(attribute: str, group: str, metric: str, estimate: Estimate, suffix: str = "") -> dict[str, Any]:
    return {
        "attribute": attribute,
        "group": group,
        "metric": metric + suffix,
        "title": METRICS[metric].title,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "level": estimate.level,
        "method": estimate.method,
        "n": estimate.n,
    }
