"""Suppressed audits are attacked: no count of a few people may be in JSON or page, or follow from them."""

import html
import json
import re
from dataclasses import fields, replace
from itertools import product

import numpy as np
import pytest
from scipy.optimize import linprog

from fairdx.auditing import audit, json_schema
from fairdx.auditing.checklist_facts import facts_of_audit
from fairdx.auditing.checklists import CHECKLISTS, filled
from fairdx.auditing.result import AuditResult, Withheld
from fairdx.auditing.small_cells import plan
from fairdx.auditing.summary import render_summary
from fairdx.auditing.suppressed import audit_suppressed, without_counts
from fairdx.core.errors import InputError
from fairdx.metrics.inputs import to_codes

LEAST = 10
SHAPES = {
    # shares of the groups, images, patients or None, how well scores tell the labels apart
    "a rare group": ((0.02, 0.3, 0.68), 1500, None, 1.0),
    "two rare groups, patients with several images": ((0.02, 0.03, 0.3, 0.65), 3000, 1000, 1.0),
    "few errors in two groups": ((0.4, 0.6), 1000, None, 2.0),
    "few errors in all": ((0.5, 0.5), 200, None, 2.0),
}


def made(shape, seed=0):
    shares, n, n_patients, skill = SHAPES[shape]
    rng = np.random.default_rng(seed)
    people = np.arange(n) if n_patients is None else rng.integers(0, n_patients, n)
    group = rng.choice(list("ABCD")[: len(shares)], people.max() + 1, p=shares)[people]
    other = rng.choice(["x", "y"], people.max() + 1)[people]
    label = rng.integers(0, 2, n)
    score = 1 / (1 + np.exp(skill - 2 * skill * label + rng.normal(size=n)))
    return {"y_true": label, "y_score": score, "patients": people if n_patients else None}, {
        "group": group,
        "other": other,
    }


def suppressed(shape, seed=0, **more):
    given, attributes = made(shape, seed)
    return audit_suppressed(
        **given, sensitive_features=attributes, least=LEAST, n_replicates=20, n_permutations=20, **more
    )


def whole_numbers(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from whole_numbers(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from whole_numbers(inner, path)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield path, value


def counts_of(found, n):
    """What an attacker computes from rates: {which (label, decision) cells: count}."""
    known = {((0, 0), (0, 1), (1, 0), (1, 1)): n}
    positives = found["prevalence"]["value"] * n
    known[(1, 0), (1, 1)] = positives
    rates = {name: one["value"] for name, one in found.items()}
    if "tpr" in rates:
        known[((1, 1),)] = rates["tpr"] * positives
        known[((0, 1),)] = rates["fpr"] * (n - positives)
        known[((0, 1), (1, 1))] = rates["selection_rate"] * n
        known[((0, 0), (1, 1))] = rates["accuracy"] * n
    return {cells: round(count) for cells, count in known.items() if abs(count - round(count)) < 1e-6}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_attack_on_the_json_pins_down_no_small_cell(shape):
    """For every true cell of a few images, what is published allows 10 or more there as well."""
    given, attributes = made(shape)
    found = json.loads(suppressed(shape).to_json())
    attacked = 0
    for name, column in attributes.items():
        if name not in found["attributes"]:
            continue
        groups, joined = sorted(set(column)), found["withheld"]["joined"].get(name, {})
        places = list(product(groups, (0, 1), (0, 1)))
        published = [
            (joined.get(shown, [shown]), found["by_group"][name][shown], n)
            for shown, n in found["attributes"][name]["groups"].items()
        ]
        rows, totals = [], []
        for among, figures, n in [*published, (groups, found["overall"], found["n_images"])]:
            for cells, count in counts_of(figures, n).items():
                assert not 0 < count < LEAST, (among, cells)
                rows.append([float(g in among and (y, d) in cells) for g, y, d in places])
                totals.append(count)
        decided = given["y_score"] >= 0.5
        for place, (group, y, d) in enumerate(places):
            true = np.sum((column == group) & (given["y_true"] == y) & (decided == d))
            if 0 < true < LEAST:
                attacked += 1
                most = linprog(-np.eye(len(places))[place], A_eq=rows, b_eq=totals, bounds=(0, None))
                assert most.status == 0
                assert -most.fun >= LEAST - 1e-6, (name, group, y, d)
    hidden = set(attributes) - set(found["attributes"])
    assert attacked or hidden


@pytest.mark.parametrize("shape", SHAPES)
def test_no_small_number_is_printed(shape):
    result = suppressed(shape)
    found = json.loads(result.to_json())
    ignored = {"settings", "withheld"}
    numbers = [(path, n) for path, n in whole_numbers(found) if path[0] not in ignored]
    assert [(path, n) for path, n in numbers if 0 < n < LEAST] == []
    assert (found["curves"], found["explorer"]) == ({}, {})
    forms = "".join(filled(one, facts_of_audit(result)) for one in CHECKLISTS.values())
    for page in (result.to_html(), render_summary(result), forms):
        plain = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
        text = html.unescape(re.sub(r"<[^>]+>", " ", plain)).replace("\u202f", "").replace("\u00a0", " ")
        told = re.findall(r"\b([1-9]) (?:images?|patients?|people|rows?)\b", text)
        assert set(told) <= {"9"}  # of "1 to 9 people"
        assert not {int(n) for n in re.findall(r"\b(\d+) patients\b", text) if 0 < int(n) < LEAST}
        assert "no count of 1 to 9 people is shown" in text
    crossed = re.search(r"With the disease: (.*?) negative\.\s+Without it: (.*?) negative", forms)
    for n in re.findall(r"\d[\d,]*", crossed.group(0) if crossed else ""):
        assert not 0 < int(n.replace(",", "")) < LEAST


@pytest.mark.parametrize("seed", range(40))
def test_every_cell_that_a_plan_shows_is_empty_or_large(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(60, 900))
    people = rng.integers(0, rng.integers(40, n), n)
    attributes = {
        name: rng.choice([f"{name}{k}" for k in range(s)], n, p=rng.dirichlet(np.full(s, 0.6)))
        for name, s in (("a", 2), ("b", 3), ("c", 6))
    }
    label, decided = rng.integers(0, 2, n), (rng.random(n) < rng.uniform(0.02, 0.5)).astype(int)
    coded = {name: to_codes(column, name) for name, column in attributes.items()}
    made_plan = plan(coded, label, [decided], people, LEAST)

    def small(rows):
        return 0 < len(set(people[rows])) < LEAST

    for name, column in made_plan.attributes.items():
        values = np.array(column.names)[column.codes]
        assert len(set(values)) >= 2
        for group, y in product(set(values), (0, 1)):
            assert not small((values == group) & (label == y))
            for d in (0, 1) if name not in made_plan.undecided else ():
                assert not small((values == group) & (label == y) & (decided == d))
        # Groups that are joined are named, and nobody is lost.
        for new, parts in made_plan.joined.get(name, {}).items():
            assert set(attributes[name][values == new]) == set(parts)
    if made_plan.crossed and len(made_plan.attributes) > 1:
        keys = list(zip(*(c.codes for c in made_plan.attributes.values()), label, decided, strict=True))
        for key in set(keys):
            assert not small(np.array([k == key for k in keys]))


def test_figures_of_decisions_are_withheld_where_only_they_would_tell():
    result = suppressed("few errors in two groups")
    assert result.withheld.decisions
    for name in result.withheld.decisions:
        assert set(result.by_group[name]["A" if name == "group" else "x"]) >= {"auroc", "prevalence"}
        assert "tpr" not in next(iter(result.by_group[name].values()))
        assert "auroc_gap" in result.gaps[name]
        assert "equal_opportunity_difference" not in result.gaps[name]
        assert result.effects[name] == {}
        assert all(
            t.metric in ("auroc_gap", "score_mutual_information") or "gap" in t.metric
            for t in result.tests
            if t.attribute == name
        )
        assert not any("direct effect" in n.text for n in result.notes if n.attribute == name)


def test_large_cells_are_the_same_as_without_suppression():
    rng = np.random.default_rng(1)
    label, sex = rng.integers(0, 2, 2000), rng.choice(["F", "M"], 2000)
    score = np.clip(0.3 * label + 0.7 * rng.random(2000), 0, 1)
    settings = {"sensitive_features": {"sex": sex}, "n_replicates": 50, "n_permutations": 50}
    plain, shown = audit(label, score, **settings), audit_suppressed(label, score, least=LEAST, **settings)
    assert shown.withheld == Withheld(LEAST, 0, {}, [], [], overall=False, intersections=False)
    same = replace(shown, withheld=None, notes=[], created="", curves={}, explorer={})
    assert same.to_json() == replace(plain, notes=[], created="", curves={}, explorer={}).to_json()


def test_the_schema_knows_what_is_withheld():
    import jsonschema

    jsonschema.validate(json.loads(suppressed("a rare group").to_json()), json_schema())


def test_patients_in_two_groups_are_not_counted_where_they_are_few():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(300), 2)
    sex = rng.choice(["F", "M"], 300)[people]
    sex[:6] = ["F", "M"] * 3  # three patients of both
    label = rng.integers(0, 2, 600)
    score = np.clip(0.2 * label + 0.8 * rng.random(600), 0, 1)
    found = audit_suppressed(
        label, score, least=LEAST, sensitive_features={"sex": sex}, patients=people, n_replicates=20
    )
    assert sum(found.attributes["sex"].patients.values()) == found.n_patients
    assert not any("more than one group" in note.text for note in found.notes)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (
            "12 of 400 rows have no label in y and are left out.",
            "Some rows have no label in y and are left out.",
        ),
        (
            "395 of 400 rows have split = test; only these are audited.",
            "Some rows have split = test; only these are audited.",
        ),
        (
            "sex is missing in 3 rows (first: row 17); these images form the group '(missing)'.",
            "Sex is missing in some rows; these images form the group '(missing)'.",
        ),
        ("race: group 'Other' has a single image.", None),
        ("patient: 2 patients are written like another.", None),
    ],
)
def test_remarks_lose_their_counts(text, plain):
    assert without_counts(text, LEAST) == plain


def test_images_that_covariates_leave_out_are_not_counted_where_they_are_few():
    given, attributes = made("a rare group")
    age = np.random.default_rng(1).choice(["young", "old"], len(given["y_true"]))
    age[np.flatnonzero(attributes["group"] == "B")[:4]] = "very old"  # a value of one group alone
    settings = {"sensitive_features": attributes, "covariates": {"age": age}, "n_replicates": 20}
    plain = audit(**given, **settings)
    assert any(0 < n < LEAST for n in plain.case_mix["group"].left_out["tpr"].values())
    shown = audit_suppressed(**given, **settings, least=LEAST)
    found = json.loads(shown.to_json())
    numbers = [n for path, n in whole_numbers(found) if path[0] not in ("settings", "withheld")]
    assert not [n for n in numbers if 0 < n < LEAST]
    assert not [n.text for n in shown.notes if re.search(r"\b[1-9] images\b", n.text)]


def test_every_field_of_an_audit_has_been_thought_of():
    """A field that is new in an audit may tell a count: decide in `suppressed.py`, then enter it here."""
    untouched = {
        "schema_version", "fairdx_version", "created", "task", "classes", "n_images", "n_patients",
        "settings", "attributes", "identification", "n_effective",
    }  # fmt: skip
    handled = {
        "overall", "by_group", "gaps", "effects", "adjusted_effects", "modelled_effects",
        "simultaneous_effects", "pooled", "missing_bounds", "sensitivity", "support", "tests", "curves",
        "explorer", "comparison", "per_label", "models", "notes", "withheld", "case_mix", "labels_missing",
    }  # fmt: skip
    assert {one.name for one in fields(AuditResult)} == untouched | handled


def test_what_cannot_be_suppressed_is_refused():
    given, attributes = made("a rare group")
    few = {"y_true": given["y_true"][:15], "y_score": given["y_score"][:15]}
    with pytest.raises(InputError, match="nothing can be shown"):
        audit_suppressed(**few, sensitive_features=attributes["other"][:15], least=LEAST)
    with pytest.raises(InputError, match="one threshold"):
        audit_suppressed(
            **given, sensitive_features=attributes, least=LEAST, threshold={"*": 0.5, "group:A": 0.4}
        )
    with pytest.raises(InputError, match="single finding"):
        audit_suppressed(
            np.eye(3)[[0, 1, 2] * 20],
            np.eye(3)[[0, 1, 2] * 20],
            sensitive_features=["a", "b"] * 30,
            least=LEAST,
        )


def test_scores_that_are_decisions_tell_no_small_cell():
    """From the AUC and the squared error of 0/1 scores both kinds of errors follow, by two equations."""
    counts = {("a", 1): (80, 60), ("a", 0): (40, 90), ("b", 1): (50, 3), ("b", 0): (30, 60)}
    group = np.concatenate([[g] * sum(n) for (g, _), n in counts.items()])
    y = np.concatenate([[label] * sum(n) for (_, label), n in counts.items()])
    decided = np.concatenate([np.repeat([1, 0], n) for n in counts.values()])
    rough = {"sensitive_features": {"g": group}, "least": 10, "n_replicates": 20}
    with pytest.raises(InputError, match="nothing can be shown"):
        audit_suppressed(y, decided.astype(float), **rough)
    fine = np.clip(0.5 * decided + 0.5 * np.random.default_rng(0).random(len(y)), 0, 1)
    found = audit_suppressed(y, fine, **rough)
    assert found.withheld.decisions == ["g"]
    assert "auroc" in found.by_group["g"]["b"]


@pytest.mark.parametrize("order", [("older", "old"), ("old", "older")])
def test_groups_within_groups_are_not_subtracted(order):
    """Who is 58 or 59 are those of 58 and over that are not 60 and over: four people."""
    rng, n = np.random.default_rng(0), 600
    y, old = rng.integers(0, 2, n), rng.random(n) < 0.5
    older = old.copy()
    older[np.flatnonzero(~old)[:4]] = True
    columns = {"old": np.where(old, "60+", "<60"), "older": np.where(older, "58+", "<58")}
    score = np.clip(0.1 + 0.8 * rng.random(n), 0, 1)
    features = {name: columns[name] for name in order}
    found = audit_suppressed(y, score, sensitive_features=features, least=10, n_replicates=20)
    assert list(found.attributes) == [order[0]]
    assert found.withheld.attributes == [order[1]]
    apart = {"a": columns["old"], "b": rng.choice(["x", "y"], n)}
    both = audit_suppressed(y, score, sensitive_features=apart, least=10, n_replicates=20)
    assert set(both.attributes) >= {"a", "b"}
