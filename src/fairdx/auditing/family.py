"""One family of tests for all that a report shows: every attribute, class, finding and change."""

from dataclasses import replace

import numpy as np
from scipy.special import ndtri

from fairdx.auditing.findings import findings
from fairdx.auditing.result import AuditResult, Change, Gap
from fairdx.inference.uncertainty import benjamini_hochberg, holm
from fairdx.metrics.inputs import Floats


def corrected(result: AuditResult) -> AuditResult:
    """Correct the p-values of an audit, and of its classes or findings, for all of them together.

    Args:
        result: With uncorrected p-values.

    Returns:
        The result with p-values corrected by Holm and by Benjamini and Hochberg, detectable gaps of the
        corrected tests, and the notes that go with them.
    """
    p_values = np.array([p for one in _every(result) for p in _p_values(one)])
    both = np.stack([holm(p_values), benjamini_hochberg(p_values)])
    family, place = int(np.isfinite(p_values).sum()), 0
    per_label = {}
    for name, one in result.per_label.items():
        size = len(_p_values(one))
        per_label[name] = _filled(one, both[:, place : place + size], family)
        place += size
    return replace(_filled(result, both[:, place:], family), per_label=per_label)


def _every(result: AuditResult) -> list[AuditResult]:
    return [*result.per_label.values(), result]


def _p_values(result: AuditResult) -> list[float]:
    changes = [change.p_value for found in result.comparison.values() for change in found.values()]
    return [*(test.p_value for test in result.tests), *changes]


def _filled(result: AuditResult, values: Floats, family: int) -> AuditResult:
    pairs = iter(values.T.tolist())
    tests = [replace(test, p_holm=a, p_bh=b) for test, (a, b) in zip(result.tests, pairs, strict=False)]
    comparison: dict[str, dict[str, Change]] = {
        name: {metric: replace(change, p_holm=next(pairs)[0]) for metric, change in found.items()}
        for name, found in result.comparison.items()
    }
    stretch = _stretch(result.settings.level, family)
    gaps: dict[str, dict[str, Gap]] = {
        name: {m: replace(gap, detectable=_stretched(m, gap, stretch)) for m, gap in found.items()}
        for name, found in result.gaps.items()
    }
    filled = replace(result, tests=tests, comparison=comparison, gaps=gaps)
    return replace(filled, notes=[*result.notes, *findings(filled)]) if result.task == "binary" else filled


def _stretch(level: float, family: int, power: float = 0.8) -> float:
    """How much larger a difference must be for a test corrected for a family than for one of its own."""
    found = float(ndtri(power))
    own, all_of_them = (float(ndtri(1 - (1 - level) / 2 / m)) for m in (1, max(family, 1)))
    return (all_of_them + found) / (own + found)


def _stretched(metric: str, gap: Gap, stretch: float) -> float:
    """Information grows with the square of what normal errors grow with."""
    return gap.detectable * (stretch**2 if gap.lowest is None else stretch)
