"""What the figures with one mix of cases say, in words."""

from math import isnan

from fairdx.auditing.result import AuditResult, Note
from fairdx.report.numbers import style_of

_TITLES = {
    "equal_opportunity_difference": ("tpr", "true-positive rates"),
    "auroc_gap": ("auroc", "AUCs"),
}


def case_mix_notes(result: AuditResult, name: str) -> list[Note]:
    """Sentences about an attribute's gaps with one mix of the covariates.

    Args:
        result: The audit.
        name: The attribute.

    Returns:
        What remains of the gaps, and what cannot be adjusted or is left out; none without covariates.
    """
    found = result.case_mix.get(name)
    if found is None:
        return []
    covariates = ", ".join(result.settings.covariates)
    told, undefined, notes = [], [], list[Note]()
    for metric, (figure, title) in _TITLES.items():
        gap, raw, style = found.gaps[metric].estimate, result.gaps[name][metric].estimate, style_of(metric)
        if isnan(gap.value):
            undefined.append(title)
            continue
        told.append(
            f"the gap in {title} is {style.in_words(gap.value)} ({gap.level:.0%} interval "
            f"{style.interval(gap.low, gap.high)}), and {style.in_words(raw.value)} as they are"
        )
        if count := sum(found.left_out[figure].values()):
            text = (
                f"{name}: with one mix of {covariates}, the {title} leave out {count:,} images whose values "
            )
            notes.append(Note("caution", name, f"{text}some group lacks."))
    if told:
        notes.append(Note("finding", name, f"{name}: with one mix of {covariates}, {'; '.join(told)}."))
    if undefined:
        text = f"{name}: {' and '.join(undefined)} have no figure with one mix of {covariates}: "
        notes.append(Note("limit", name, f"{text}too few images have values that all groups share."))
    return notes
