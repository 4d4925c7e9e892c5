"""Put a binary audit together: resample once, then estimate every attribute from the same replicates."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from fairdx.auditing.attribute import Part, measure
from fairdx.auditing.compare import changes
from fairdx.auditing.design import Grouping, free_name
from fairdx.auditing.draws import MOST_EXPLORED, Draws
from fairdx.auditing.explorer import curves, explorer
from fairdx.auditing.groups import group_estimates
from fairdx.auditing.profile import Truth, score_bins
from fairdx.auditing.result import SCHEMA_VERSION, AuditResult, Change, Settings
from fairdx.auditing.result_curves import Curves, Explorer
from fairdx.auditing.study import Study
from fairdx.core.progress import advanced, portion
from fairdx.inference.uncertainty import Estimate
from fairdx.metrics.causal import IDENTIFICATION
from fairdx.metrics.inputs import Floats, Ints


def audit_binary(
    study: Study,
    truth: Truth,
    scores: Floats,
    after: Floats | None,
    classes: list[str],
    *,
    explore: bool = True,
) -> AuditResult:
    """Audit P(Y=1) against a truth of 0 and 1.

    Args:
        study: The study.
        truth: The truth; both labels occur.
        scores: Shape (n,), in [0, 1].
        after: A second score of the same images, or None.
        classes: Names of the negative and the positive class.
        explore: Whether to explore thresholds.

    Returns:
        The audit, its p-values not yet corrected, without notes.
    """
    given = [scores] if after is None else [scores, after]
    found = _Found()
    parts_of_work = batches(study, len(truth.of_full))
    for batch in parts_of_work:
        with portion(1 / len(parts_of_work)):
            found.add(study.only(batch), truth, given, explore=explore)
    parts = found.parts
    return AuditResult(
        schema_version=SCHEMA_VERSION,
        fairdx_version=package_version(),
        created=now(),
        task="binary",
        classes=classes,
        n_images=study.n,
        n_patients=study.n_patients,
        n_effective=study.n_effective,
        settings=study.settings,
        attributes={name: p.about for name, p in parts.items()},
        overall=found.overall,
        by_group={name: p.by_group for name, p in parts.items()},
        gaps={name: p.gaps for name, p in parts.items()},
        effects={name: p.effects for name, p in parts.items()},
        adjusted_effects={name: p.adjusted for name, p in parts.items() if study.covariates},
        simultaneous_effects={name: p.simultaneous for name, p in parts.items()},
        pooled={name: p.pooled for name, p in parts.items()},
        missing_bounds={name: p.bounds for name, p in parts.items() if p.bounds},
        sensitivity={name: p.sensitivity for name, p in parts.items()},
        modelled_effects={name: p.modelled for name, p in parts.items() if study.covariates},
        support={name: p.support for name, p in parts.items() if study.covariates},
        case_mix={name: p.case_mix for name, p in parts.items() if p.case_mix is not None},
        tests=[test for p in parts.values() for test in p.tests],
        curves=found.curves,
        explorer=found.explorer,
        comparison=found.comparison,
        identification=IDENTIFICATION,
        notes=[],
    )


def batches(study: Study, n_classes: int) -> list[list[Grouping]]:
    """Groupings that are resampled together: all, or each alone where their finest groups are too many."""
    bins = score_bins(study.n)
    finest = (int(study.finest.max()) + 1) * n_classes * bins
    groups = sum(len(g.groups) for g in study.groupings) * n_classes * bins
    together = len(study.groupings) * finest < groups + len(study.groupings) * study.n
    return [study.groupings] if together else [[g] for g in study.groupings]


@dataclass
class _Found:
    """What an audit found, batch by batch; everybody is part of each, and told from the first."""

    parts: dict[str, Part] = field(default_factory=dict)
    overall: dict[str, Estimate] = field(default_factory=dict)
    curves: dict[str, dict[str, Curves]] = field(default_factory=dict)
    explorer: dict[str, Explorer] = field(default_factory=dict)
    comparison: dict[str, dict[str, Change]] = field(default_factory=dict)

    def add(self, study: Study, truth: Truth, scores: list[Floats], *, explore: bool) -> None:
        """Resample and measure some groupings."""
        wanted = [everyone(study), *study.groupings]
        with portion(0.5):  # the other half is to measure what was drawn
            draws = Draws.make(study, truth, scores, wanted, explore=explore)
        explore = explore and draws.sample.decided is None  # one slider cannot move several thresholds
        parts: dict[str, Part] = {}
        for grouping in study.groupings:
            parts[grouping.name] = part = measure(draws, grouping, study)
            if explore and len(grouping.groups) <= MOST_EXPLORED:
                self.explorer[grouping.name] = explorer(draws, part)
            advanced(0.5 * study.settings.n_replicates / len(study.groupings))
        self.overall = self.overall or overall(draws)
        self.curves |= {n: c for n, c in _curves(draws, wanted).items() if n not in self.curves}
        moved = changes(draws, {n: p.chosen for n, p in parts.items()})
        self.comparison |= {n: c for n, c in moved.items() if n not in self.comparison}
        self.parts |= parts


def measure_binary(study: Study, truth: Truth, scores: Floats) -> tuple[dict[str, Estimate], Part]:
    """What `audit_binary` finds about all images and about the first attribute, without the rest.

    Args:
        study: The study.
        truth: The truth; both labels occur.
        scores: Shape (n,), in [0, 1].

    Returns:
        Performance over all images, and the attribute.
    """
    first = study.groupings[0]
    draws = Draws.make(study, truth, [scores], [everyone(study), first], explore=False)
    return overall(draws), measure(draws, first, study)


def performance(label: Ints, scores: Floats, patient: Ints | None, settings: Settings) -> dict[str, Estimate]:
    """What an audit says of all images, without any attribute.

    Args:
        label: 0 or 1, shape (n,); both occur.
        scores: Shape (n,), in [0, 1].
        patient: Patient codes, shape (n,), or None.
        settings: Of the audit.

    Returns:
        Performance by metric.
    """
    nobody = np.zeros(len(label), dtype=np.int64)
    study = Study(nobody, [], {}, patient, None, settings, {}, intersections=False)
    return overall(Draws.make(study, Truth.of(label), [scores], [everyone(study)], explore=False))


def everyone(study: Study) -> Grouping:
    """All images as one group: "overall", unless an attribute has this name."""
    name = free_name("overall", "all images", list(study.attributes))
    return Grouping(name, ("all",), np.zeros(int(study.finest.max()) + 1, dtype=np.int64), ({},))


def overall(draws: Draws) -> dict[str, Estimate]:
    """Performance over all images."""
    return group_estimates(draws.data[draws.overall], draws.sample.truth.of_full)["all"]


def package_version() -> str:
    """Version of the package."""
    from importlib.metadata import version

    return version("fairdx")


def now() -> str:
    """Date and time, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _curves(draws: Draws, wanted: list[Grouping]) -> dict[str, dict[str, Curves]]:
    sample, own = draws.sample, draws.sample.tables()[0]
    found = {}
    for g in wanted:
        group = g.of_finest[sample.finest]
        made = curves(g.coarsen(own)[0], sample, group, draws.profilers[g.name], draws.data[g.name].who)
        found[g.name] = dict(zip(g.groups, made, strict=True))
    return found
