"""One family of tests for all that a report shows: every attribute, class, finding and change."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import ndtri

from fairdx.auditing.dependence import Dependence, Shown
from fairdx.auditing.findings import findings
from fairdx.auditing.result import AuditResult, Change, Gap
from fairdx.auditing.study import Study
from fairdx.inference.uncertainty import benjamini_hochberg, holm
from fairdx.inference.westfall_young import step_down
from fairdx.metrics.inputs import Floats


def corrected(result: AuditResult, study: Study, shown: Sequence[Shown | None]) -> AuditResult:
    """Correct the p-values of an audit, and of its classes or findings, for all of them together.

    Args:
        result: With uncorrected p-values.
        study: Of all images.
        shown: What the audits of the classes or findings are made of, then what the audit itself is.

    Returns:
        The result with p-values corrected by Westfall and Young, Holm, and Benjamini and Hochberg, detectable
        gaps of the corrected tests, and the notes that go with them.
    """
    every = [*result.per_label.values(), result]
    p_values = np.array([p for one in every for p in _p_values(one)])
    family = step_down(p_values, _drawn(Dependence(study, every, shown)), result.settings.level)
    all_three = np.stack([family.p_values, holm(p_values), benjamini_hochberg(p_values)])
    place, per_label = 0, {}
    for name, one in result.per_label.items():
        size = len(_p_values(one))
        per_label[name] = _filled(one, all_three[:, place : place + size], family.needed)
        place += size
    return replace(_filled(result, all_three[:, place:], family.needed), per_label=per_label)


def _p_values(result: AuditResult) -> list[float]:
    changes = [change.p_value for found in result.comparison.values() for change in found.values()]
    return [*(test.p_value for test in result.tests), *changes]


def _drawn(dependence: Dependence) -> Floats:
    """Draws of all that `_p_values` lists; how changes depend on the tests is not known."""
    drawn, parts, place = dependence.draws(), list[Floats](), 0
    for one in dependence.results:
        n_tests, n_all = len(one.tests), len(_p_values(one))
        parts += [drawn[:, place : place + n_tests], np.full((len(drawn), n_all - n_tests), np.nan)]
        place += n_tests
    return np.concatenate(parts, axis=1)


def _filled(result: AuditResult, values: Floats, needed: float) -> AuditResult:
    columns = iter(values.T.tolist())
    tests = [
        replace(test, p_family=a, p_holm=b, p_bh=c)
        for test, (a, b, c) in zip(result.tests, columns, strict=False)
    ]
    comparison: dict[str, dict[str, Change]] = {
        name: {metric: _changed(change, next(columns)) for metric, change in found.items()}
        for name, found in result.comparison.items()
    }
    stretch = _stretch(result.settings.level, needed)
    gaps: dict[str, dict[str, Gap]] = {
        name: {m: replace(gap, detectable=_stretched(m, gap, stretch)) for m, gap in found.items()}
        for name, found in result.gaps.items()
    }
    filled = replace(result, tests=tests, comparison=comparison, gaps=gaps)
    return replace(filled, notes=[*result.notes, *findings(filled)]) if result.task == "binary" else filled


def _changed(change: Change, corrected: list[float]) -> Change:
    return replace(change, p_family=corrected[0], p_holm=corrected[1])


def _stretch(level: float, needed: float, power: float = 0.8) -> float:
    """How much larger a difference must be for a test corrected for a family than for one of its own."""
    found = float(ndtri(power))
    own, of_family = (float(ndtri(1 - p / 2)) for p in (1 - level, needed))
    return (of_family + found) / (own + found) if needed > 0 else 1.0


def _stretched(metric: str, gap: Gap, stretch: float) -> float:
    """Information grows with the square of what normal errors grow with."""
    return gap.detectable * (stretch**2 if gap.lowest is None else stretch)
