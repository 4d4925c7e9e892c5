"""What is said of an audit as a whole: its scores, its thresholds, its patients and its tests."""

import numpy as np

from fairdx.auditing.result import AuditResult, Note

FEW_IMAGES = 100
"""With fewer images an AUC of 1 is no wonder."""

FEW_PATIENTS = 20
"""With fewer patients the bootstrap by patient cannot be trusted (Cameron, Gelbach and Miller 2008)."""


def in_general(result: AuditResult) -> list[Note]:
    """Cautions and limits that hold for all attributes."""
    settings = result.settings
    notes = [
        _note("limit", None, result.identification),
        _note("limit", None, _thresholds(result)),
    ]
    area = result.overall["auroc"].value
    if area < 0.5:
        text = (
            f"The AUC over all images is {area:.3f}, below 0.5: the score is lower for "
            f"{result.classes[1]!r} than "
            f"for {result.classes[0]!r}. Is this the right positive class, and the right column of scores?"
        )
        notes.append(_note("caution", None, text))
    notes += [_note("caution", None, text) for text in _about_scores(result)]
    if area == 1 and result.n_images >= FEW_IMAGES:
        text = "The AUC over all images is 1: no score of a model is so good. Does the truth stand in for it?"
        notes.append(_note("caution", None, text))
    if settings.clustered and result.n_patients < FEW_PATIENTS:
        text = f"There are only {result.n_patients} patients: intervals and tests from so few say little."
        if result.n_patients == 1:
            text = "All images are of one patient: no interval and no test can be trusted."
        notes.append(_note("caution", None, text))
    if not settings.clustered:
        notes.append(
            _note(
                "caution",
                None,
                "No patient column was given: images are taken as independent. If patients have several, "
                "intervals are too narrow.",
            )
        )
    if len(result.tests) > 1:
        text = (
            f"{len(result.tests)} tests were made; some p-values under 0.05 are expected by chance alone, "
            "so read the corrected ones."
        )
        notes.append(_note("caution", None, text))
    return notes


def _about_scores(result: AuditResult) -> list[str]:
    """What is strange about the scores of all images."""
    told, rate = [], result.overall["selection_rate"].value
    if rate in (0, 1):
        who = "no" if rate == 0 else "every"
        told.append(
            f"At the threshold {result.settings.threshold}, {who} image is decided positive: gaps between "
            "decisions say nothing. Are these probabilities, and is this the threshold?"
        )
    curve = result.curves[next(iter(result.curves))]["all"]
    inner = np.add(curve.histogram_negative, curve.histogram_positive)[1:-1]
    if not np.any(inner) and rate not in (0, 1):
        told.append(
            "All scores are next to 0 or 1. If they are decisions, give scores: the AUC, calibration and "
            "thresholds of decisions say little."
        )
    return told


def _thresholds(result: AuditResult) -> str:
    settings = result.settings
    own = {n: t for n, t in settings.thresholds.items() if n.partition(":")[0] in result.attributes}
    if not own:
        return f"Decisions are those at the threshold {settings.threshold}; at another one the gaps differ."
    listed = ", ".join(f"{t:g} for {n}" for n, t in own.items())
    return (
        f"Decisions are those at the threshold {listed} and {settings.threshold:g} for all others; at other "
        "ones the gaps differ. One slider cannot move several thresholds, so no others are explored, and net "
        "benefit is not defined."
    )


def _note(kind: str, attribute: str | None, text: str) -> Note:
    return Note(kind, attribute, text)  # type: ignore[arg-type]
