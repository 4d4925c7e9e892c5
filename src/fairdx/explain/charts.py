"""Charts of an explanation, with their numbers: overlap beside its null, the pruned path, score changes."""

from collections.abc import Sequence
from math import isfinite
from xml.etree.ElementTree import Element

from fairdx.explain.result import WHOLE, Counterfactual, Explanation
from fairdx.explain.words import MEASURE_TITLES, TITLES, with_interval, written
from fairdx.inference.uncertainty import Estimate
from fairdx.report.figures import Figure, Table
from fairdx.report.numbers import PERCENT, SIGNED_POINTS
from fairdx.report.svg import SERIES, Axis, Panel


def charts(explanation: Explanation) -> list[Figure]:
    """The charts of an explanation; those of the phantom's truth are missing elsewhere."""
    made = [_overlap(explanation), _places(explanation), _changes(explanation)]
    return [figure for figure in made if figure is not None]


def tables(explanation: Explanation) -> list[tuple[str, Table]]:
    """Everything else in numbers, with titles."""
    made = [
        ("Overlap beyond the null with groups dealt by lot", _dealt(explanation)),
        ("Overlap by group and label", _overlap_by_kind(explanation)),
        ("Deletion: fall of the log-odds of the decision", _deletion(explanation)),
        ("Decisions that flip under changes that keep the label", _sensitivity(explanation)),
        ("What the mask adds", _mask(explanation)),
    ]
    return [(title, table) for title, table in made if table.rows]


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _overlap(explanation: Explanation) -> Figure:
    names = list(explanation.models)
    rows, panels = [], []
    for way in dict.fromkeys(way for model in explanation.models.values() for way in model.opinions):
        for measure, title in MEASURE_TITLES.items():
            found = [
                (name, model.opinions[way].pairs["group"].overlap[WHOLE][measure])
                for name, model in explanation.models.items()
                if way in model.opinions
            ]
            rows += [
                [
                    f"{TITLES[way]}, {title}, {_plain(name)}",
                    written(one.own.value),
                    written(one.null.value),
                    with_interval(one.beyond, signed=True),
                ]
                for name, one in found
            ]
            estimates = [one.beyond for _, one in found]
            panels.append(
                _whiskers(f"{TITLES[way]}: {title}", "overlap beyond its null", names, estimates, signed=True)
            )
    return Figure(
        "overlap",
        "Do the maps of diagnosis and group overlap?",
        "Overlap of the two maps of one image, less that of the maps of different images of the same group "
        "and label. At zero the maps of one image have no more in common than any two.",
        panels,
        [_plain(name) for name in names],
        Table(("maps, measure, model", "overlap", "its null", "beyond the null"), rows),
        columns=3,
    )


def _places(explanation: Explanation) -> Figure | None:
    names = list(explanation.models)
    rows, panels = [], []
    for way in dict.fromkeys(way for model in explanation.models.values() for way in model.opinions):
        found = [
            (name, model.opinions[way].places["diagnosis"])
            for name, model in explanation.models.items()
            if way in model.opinions and model.opinions[way].places
        ]
        if not found:
            return None
        for region in ("lesion", "trait"):
            estimates = [place.share[WHOLE][region] for _, place in found]
            panels.append(_whiskers(f"{TITLES[way]}: on the {region}", "share of the map", names, estimates))
        rows += [
            [
                f"{TITLES[way]}, {_plain(name)}",
                *(with_interval(place.share[WHOLE][region]) for region in ("lesion", "trait", "rest")),
                " / ".join(written(place.area[WHOLE][region]) for region in ("lesion", "trait", "rest")),
                with_interval(place.pointing),
            ]
            for name, place in found
        ]
    return Figure(
        "places",
        "Where does the map of the diagnosis lie?",
        "The phantom knows where the lesion and the group's trait are. Share of the map's mass there, over "
        "all test images; beside it the share of the image, which a map that says nothing would have.",
        panels,
        [_plain(name) for name in names],
        Table(
            ("maps, model", "lesion", "trait", "rest", "share of the image", "highest in the lesion"), rows
        ),
    )


def _whiskers(
    title: str, label: str, names: Sequence[str], estimates: Sequence[Estimate], *, signed: bool = False
) -> Element:
    known = [(i, e) for i, e in enumerate(estimates) if isfinite(e.value)]
    ends = [v for _, e in known for v in (e.value, e.low, e.high) if isfinite(v)]
    spoken = "; ".join(f"{_plain(names[i])} {with_interval(e, signed=signed)}" for i, e in known)
    panel = Panel(
        Axis(
            -0.5,
            len(names) - 0.5,
            "",
            lambda x: _plain(names[round(x)]),
            tuple(map(float, range(len(names)))),
        ),
        Axis.around(ends, label, "{:.3g}".format),
        label=f"{title}: {spoken}",
        title=title,
        width=300,
        height=220,
    )
    for i, e in known:
        if isfinite(e.low):
            panel.whisker(float(i), e.low, e.high, i)
        panel.marker(float(i), e.value, i)
    return panel.svg


def _changes(explanation: Explanation) -> Figure | None:
    panels, rows = [], []
    found = [
        (name, group, one)
        for name, model in explanation.models.items()
        for group, one in model.counterfactual.items()
    ]
    if not found:
        return None
    top = max(max(_shares(one)) for *_, one in found)
    for series, (name, group, one) in enumerate(found):
        title = f"{_plain(name)}: {one.reference} to {group}"
        panels.append(_score_changes(title, one, top, series))
        rows.append(
            [
                title,
                SIGNED_POINTS(one.change.value),
                SIGNED_POINTS.interval(one.change.low, one.change.high),
                " / ".join(written(q, signed=True) for q in one.quantiles),
                PERCENT(one.flips.value) + " %",
                PERCENT.interval(one.flips.low, one.flips.high),
            ]
        )
    quantiles = "5 / 25 / 50 / 75 / 95 %"
    head = ("model", "mean change, points", "interval", quantiles, "decisions flipped", "interval")
    return Figure(
        "counterfactual",
        "The same patient as either group",
        "Each simulated patient is drawn twice, with the trait of either group and everything else the same, "
        "the disease too. A model without a direct path from the group gives both the same score.",
        panels,
        table=Table(head, rows),
    )


def _shares(found: Counterfactual) -> list[float]:
    return [count / max(sum(found.histogram), 1) for count in found.histogram]


def _score_changes(title: str, found: Counterfactual, top: float, series: int) -> Element:
    shares = _shares(found)
    panel = Panel(
        Axis(-1, 1, "change of the score", "{:g}".format, (-1, -0.5, 0, 0.5, 1)),
        Axis.around([top], "share of the patients", lambda share: f"{share * 100:g}%"),
        label=f"{title}: change of the score, {with_interval(found.change, signed=True)} on average",
        title=title,
    )
    panel.steps([-1 + 2 * i / len(shares) for i in range(len(shares) + 1)], shares, series % SERIES)
    return panel.svg


def _overlap_by_kind(explanation: Explanation) -> Table:
    rows = []
    for name, model in explanation.models.items():
        for way, opinion in model.opinions.items():
            for second, pair in opinion.pairs.items():
                for kind, measures in pair.overlap.items():
                    rows.append(
                        [
                            f"{_plain(name)}, {TITLES[way]}, {second}, {kind}",
                            *(with_interval(one.beyond, signed=True) for one in measures.values()),
                        ]
                    )
    return Table(("model, maps, map of the group, images", *MEASURE_TITLES.values()), rows)


def _dealt(explanation: Explanation) -> Table:
    rows = [
        [
            f"{_plain(name)}, {TITLES[way]}, {MEASURE_TITLES[measure]}",
            written(dealt.own, signed=True),
            written(dealt.mean, signed=True),
            f"{written(dealt.low, signed=True)} to {written(dealt.high, signed=True)}",
            written(dealt.p),
            str(dealt.images),
        ]
        for name, model in explanation.models.items()
        for way, opinion in model.opinions.items()
        if "group" in opinion.pairs
        for measure, dealt in opinion.pairs["group"].dealt.items()
    ]
    head = ("model, maps, measure", "true groups", "dealt, mean", "dealt, 95 % of them", "p", "images")
    return Table(head, rows)


def _deletion(explanation: Explanation) -> Table:
    rows = [
        [_plain(name), written(d.own.value), written(d.null.value), with_interval(d.beyond, signed=True)]
        for name, d in ((name, model.deletion) for name, model in explanation.models.items())
    ]
    return Table(("model", "own map", "map of another image", "difference"), rows)


def _sensitivity(explanation: Explanation) -> Table:
    rows = [
        [f"{_plain(name)}, {change}, {kind}", PERCENT(one.value), PERCENT.interval(one.low, one.high)]
        for name, model in explanation.models.items()
        for change, kinds in model.sensitivity.items()
        for kind, one in kinds.items()
    ]
    return Table(("model, change, images", "flipped, %", "interval"), rows)


def _mask(explanation: Explanation) -> Table:
    rows = []
    for name, model in explanation.models.items():
        mask = model.mask
        if mask is None:
            continue
        rows += [
            [f"{_plain(name)}: mean change, grey levels, {kind}", with_interval(e)]
            for kind, e in mask.mean.items()
        ]
        rows += [
            [f"{_plain(name)}: largest change, grey levels, {kind}", with_interval(e)]
            for kind, e in mask.largest.items()
        ]
        rows += [
            [f"{_plain(name)}: share of the energy, {band} structure", with_interval(e)]
            for band, e in mask.bands.items()
        ]
        rows.append([f"{_plain(name)}: share of the change on the lesion", with_interval(mask.on_lesion)])
        words = {
            "common": "one picture common to all images",
            "of_the_image": "follows the image",
            "own": "a pattern of its own",
        }
        rows += [
            [f"{_plain(name)}: share of the energy that is {words[part]}", written(share)]
            for part, share in mask.pattern.items()
        ]
    return Table(("what", "value"), rows)
