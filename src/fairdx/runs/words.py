"""A run's findings in plain words, with figures and how sure they are."""

from dataclasses import dataclass
from typing import Any, Literal

from fairdx.core.errors import InputError
from fairdx.report.numbers import NATS, SIGNED_POINTS, Style, integer, loss_of, p_is, style_of
from fairdx.runs.folder import RunFolder

Verdict = Literal["improved", "worse", "changed", "no clear change"]
Interval = dict[str, Any]

EFFECTS = ("direct_effect", "indirect_effect", "total_effect")

METHOD_TITLES = {"vanilla": "no mitigation", "fair_diagnosis": "fair-diagnosis mask"}
"""What methods are called on pages; other methods by their names."""


@dataclass(frozen=True)
class Finding:
    """One headline.

    Attributes:
        title: What was measured, in everyday words.
        before: The first figure.
        after: The second figure; empty if there is only one model.
        unit: Of both.
        verdict: What the intervals support; empty if there is only one model.
        text: One or two sentences.
    """

    title: str
    before: str
    after: str
    unit: str
    verdict: Verdict | Literal[""]
    text: str


def method_title(name: str) -> str:
    """What a method is called on pages."""
    return METHOD_TITLES.get(name, name.replace("_", " "))


def verdict(metric: str, before: Interval | None, after: Interval | None) -> Verdict | None:
    """Whether a metric moved by more than its intervals allow for.

    Two intervals that do not overlap are stronger evidence than their level says; two that do may still hide
    a small change.

    Args:
        metric: Its name.
        before: Estimate of the first method.
        after: Estimate of the last method.

    Returns:
        "changed" where neither direction is better; None where an interval is missing.
    """
    if before is None or after is None or None in (before["low"], after["low"]):
        return None
    if before["low"] <= after["high"] and after["low"] <= before["high"]:
        return "no clear change"
    losses = [loss_of(metric, e["value"]) for e in (before, after)]
    if losses[0] is None or losses[1] is None:
        return "changed"
    return "improved" if losses[1] < losses[0] else "worse"


def auc_verdict(run: RunFolder) -> Verdict | None:
    """Whether the AUC moved: by the paired test where there is one, else as other metrics."""
    change = auc_change(run)
    if change is None:
        return verdict("auroc", *(run.estimate(m, "auroc") for m in (run.methods[0], run.methods[-1])))
    value, low, high, _ = change
    if low <= 0 <= high:
        return "no clear change"
    return "improved" if value > 0 else "worse"


def findings(run: RunFolder) -> list[Finding]:
    """The headlines: direct effect, the truth beside it on the phantom, ADF, AUC.

    Args:
        run: The run.

    Returns:
        One entry per headline that the run can tell.
    """
    before, after = run.methods[0], run.methods[-1] if len(run.methods) > 1 else None
    made = [_direct(run, before, after)]
    if run.estimate(before, "true_direct_effect") is not None:
        known = after is not None and run.estimate(after, "true_direct_effect") is not None
        made.append(_truth(run, before, after if known else None))
    return [*made, _information(run, before, after), _area(run, before, after)]


def headline(run: RunFolder) -> str:
    """The result in one sentence."""
    first, last = run.methods[0], run.methods[-1]
    direct = [run.estimate(m, "direct_effect") for m in (first, last)]
    areas = [run.estimate(m, "auroc") for m in (first, last)]
    if any(e is None or e["value"] is None for e in (*direct, *areas)):
        return "Some of the figures are not defined on this test set; the table says which."
    decimal = style_of("auroc")
    if first == last:
        return (
            f"Without mitigation the direct effect of {run.data['attribute']} on the decision is "
            f"{_effect(direct[0])} and the AUC is {decimal(_value(areas[0]))}."
        )
    found = verdict("direct_effect", *direct)
    moved = {
        "improved": "brought the direct effect closer to zero:",
        "worse": "moved the direct effect further from zero:",
        "changed": "changed the direct effect:",
        "no clear change": "did not clearly change the direct effect:",
        None: "left the direct effect",
    }[found]
    return (
        f"The {method_title(last)} {moved} from {SIGNED_POINTS(_value(direct[0]))} to "
        f"{SIGNED_POINTS.in_words(_value(direct[1]))}, while the AUC went from "
        f"{decimal(_value(areas[0]))} to "
        f"{decimal(_value(areas[1]))}."
    )


def question(run: RunFolder) -> str:
    """What was asked, in everyday words."""
    data = run.data
    return (
        f"Two patients have the same true status for “{data['label']}” and differ only in "
        f"{data['attribute']} ({_listed(data['groups'])}). Does the model decide differently all the "
        f"same – and does hiding the traces of {data['attribute']} in the image put that right without "
        "costing accuracy?"
    )


def certainty(run: RunFolder) -> list[str]:
    """How sure the findings are and what they do not say."""
    data = run.data
    images, patients = data["images"]["test"], data["test_patients"]
    level = _level(run)
    notes = [
        f"All figures are from {integer(images)} test images of {integer(patients)} patients that the model "
        f"never saw in training. Ranges are {level} confidence intervals from a bootstrap that resamples "
        f"patients.",
        "The intervals describe this trained model on other patients of the same kind. They do not "
        "say how another "
        "training with another seed would turn out: this is one run.",
        "The direct effect is causal only if the label is the true disease status and nothing else "
        "(age, device, "
        "hospital) makes the groups' images differ for the same disease.",
    ]
    if len(run.methods) > 1:
        notes.append(
            "“Improved” and “worse” are said only where the two intervals do not overlap. Where they do, a "
            "small change may still be there; the data cannot show it. Of the AUC, a paired test decides."
        )
    if run.data.get("left_out"):
        notes.append(f"{integer(data['left_out'])} images were left out: their label or group is unknown.")
    return notes


def auc_change(run: RunFolder) -> tuple[float, float, float, float] | None:
    """Change of the AUC from the first to the last method with its interval and p-value, by paired DeLong.

    Returns:
        Difference, low, high, p-value; None if the runs' test images differ or have too few patients.
    """
    from scipy.special import stdtrit

    from fairdx.inference.delong import delong_test

    first, last = (run.test_rows(m) for m in (run.methods[0], run.methods[-1]))
    paired = "score" in first and len(first) == len(last) and (first["image"] == last["image"]).all()
    if not paired or len(run.methods) < 2:
        return None
    try:
        test = delong_test(first["label"], first["score"], last["score"], patients=first["patient"])
    except InputError:  # a single class, or a single patient with it: there is no standard error
        return None
    level = (run.estimate(run.methods[0], "auroc") or {}).get("level", 0.95)
    half = float(stdtrit(test.freedom, 0.5 + level / 2)) * test.standard_error
    return test.difference, test.difference - half, test.difference + half, test.p_value


def _direct(run: RunFolder, before: str, after: str | None) -> Finding:
    data = run.data
    others = [g for g in data["groups"] if g != data["reference"]]
    who = f"the group {others[0]}" if len(others) == 1 else f"the {data['attribute']} group most affected"
    first = run.estimate(before, "direct_effect")
    text = f"With the same disease status, {who} was decided positive {_more(first, data['reference'])}"
    if after is None:
        return Finding(
            "Different decisions, same disease", _show(SIGNED_POINTS, first), "", "points", "", text + "."
        )
    last = run.estimate(after, "direct_effect")
    rest = "" if last is None or last["low"] is None else f" {_remains(last)}"
    return Finding(
        "Different decisions, same disease",
        _show(SIGNED_POINTS, first),
        _show(SIGNED_POINTS, last),
        "points",
        verdict("direct_effect", first, last) or "",
        f"{text} before; after, {_more(last, data['reference'])}.{rest}",
    )


def _more(effect: Interval | None, reference: str) -> str:
    if effect is None or effect["value"] is None:
        return "by an amount that is not defined"
    more = "more" if effect["value"] >= 0 else "less"
    ends = SIGNED_POINTS.interval(effect["low"], effect["high"])
    return f"{abs(effect['value']) * 100:.1f} points {more} often than {reference} ({ends})"


def _remains(effect: Interval) -> str:
    if effect["low"] <= 0 <= effect["high"]:
        return "What remains cannot be told from zero."
    return "A difference remains: its interval excludes zero."


def _truth(run: RunFolder, before: str, after: str | None) -> Finding:
    methods = [before] if after is None else [before, after]
    true = [run.estimate(m, "true_direct_effect") for m in methods]
    estimated = [run.estimate(m, "direct_effect") for m in methods]
    covered = [_covers(e, t) for e, t in zip(estimated, true, strict=True)]
    said = ["contains" if c else "misses" for c in covered]
    text = (
        "In the simulation the same patient can be drawn as either group, so the true direct effect "
        "is known. "
        f"The estimate's interval {said[0]} it"
    )
    text += "." if after is None else f" before and {said[1]} it after."
    found = "" if after is None else verdict("direct_effect", *true) or ""
    shown = [_show(SIGNED_POINTS, t) for t in true]
    return Finding(
        "The true effect, by intervention", shown[0], shown[1] if after else "", "points", found, text
    )


def _covers(estimate: Interval | None, true: Interval | None) -> bool:
    if estimate is None or true is None or estimate["low"] is None:
        return False
    return bool(estimate["low"] <= true["value"] <= estimate["high"])


def _information(run: RunFolder, before: str, after: str | None) -> Finding:
    name = "approximate_diagnosis_fairness_corrected"
    first = run.estimate(before, name)
    about = "How much the decision reveals about the group once the disease is known; 0 is fair."
    title = "Dependence on the group (ADF, bias-corrected)"
    if after is None:
        text = f"{about} Interval {_ends(NATS, first)}."
        return Finding(title, _show(NATS, first), "", "nats", "", text)
    last = run.estimate(after, name)
    text = f"{about}{_times(first, last)} Intervals {_ends(NATS, first)} before, {_ends(NATS, last)} after."
    found = verdict(name, first, last) or ""
    return Finding(title, _show(NATS, first), _show(NATS, last), "nats", found, text)


def _times(first: Interval | None, last: Interval | None) -> str:
    """How many times lower or higher; no ratio to something that cannot be told from zero."""
    if not first or not last or not first["value"]:
        return ""
    if not last["low"] or not last["value"]:
        return " What is left cannot be told from 0."
    ratio = first["value"] / last["value"]
    return f" {ratio:.1f} times lower after." if ratio >= 1 else f" {1 / ratio:.1f} times higher after."


def _area(run: RunFolder, before: str, after: str | None) -> Finding:
    style, title = style_of("auroc"), "Diagnostic quality (AUC)"
    first = run.estimate(before, "auroc")
    about = "Chance that a diseased image scores above a healthy one; 1 is perfect, 0.5 is guessing."
    if len(run.data["classes"]) > 2:
        about = (
            "Mean over classes of the chance that an image of the class scores above one of another class."
        )
    if after is None:
        return Finding(title, _show(style, first), "", "", "", f"{about} Interval {_ends(style, first)}.")
    last = run.estimate(after, "auroc")
    change = auc_change(run)
    cost = ""
    if change is not None:
        value, low, high, p_value = change
        signed = Style(digits=4, signed=True)
        cost = f" Change {signed(value)} ({signed.interval(low, high)}; paired DeLong test, {p_is(p_value)})."
    return Finding(title, _show(style, first), _show(style, last), "", auc_verdict(run) or "", about + cost)


def _value(estimate: Interval | None) -> float | None:
    return None if estimate is None else estimate["value"]


def _show(style: Style, estimate: Interval | None) -> str:
    return style(_value(estimate))


def _ends(style: Style, estimate: Interval | None) -> str:
    return (
        style.interval(None, None) if estimate is None else style.interval(estimate["low"], estimate["high"])
    )


def _effect(estimate: Interval | None) -> str:
    return f"{SIGNED_POINTS.in_words(_value(estimate))} ({_ends(SIGNED_POINTS, estimate)})"


def effect_text(estimate: Interval | None) -> str:
    """An effect with its interval, as on the path diagram."""
    return _effect(estimate)


def _level(run: RunFolder) -> str:
    first = next(
        e for e in run.results["methods"][run.methods[0]].values() if isinstance(e, dict) and "level" in e
    )
    return f"{first['level'] * 100:g}\u202f%"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
