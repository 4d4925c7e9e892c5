"""Reporting checklists: the items of the statements, filled with what an audit found and nothing else."""

import re

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from fairdx.auditing import audit
from fairdx.auditing.checklist_facts import facts_of_audit
from fairdx.auditing.checklists import CHECKLISTS, OPEN, filled

SIZES = {
    "stard-ai": (40, 48),
    "tripod-ai": (27, 52),
    "claim": (44, 44),
}  # as the statements say
OF_RUNS = {
    "data_source", "preparation", "partitions", "disjoint", "model", "initial", "training", "selection",
    "mitigation", "mitigated",
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    sex, truth = rng.choice(["F", "M | x"], 600), rng.integers(0, 2, 600)
    return truth, np.clip(0.3 * truth + 0.7 * rng.random(600), 0, 1), {"sex": sex}


@pytest.fixture(scope="module")
def result(data):
    truth, score, groups = data
    return audit(truth, score, sensitive_features=groups, n_replicates=50, n_permutations=50)


@pytest.mark.parametrize("name", CHECKLISTS)
def test_items_are_numbered_as_published(name):
    numbers = [item.number for item in CHECKLISTS[name].items]
    whole = [int(re.match(r"\d+", number).group()) for number in numbers]
    items, rows = SIZES[name]
    assert (len(numbers), len(set(numbers)), len(set(whole))) == (rows, rows, items)
    assert whole == sorted(whole)
    assert set(whole) == set(range(1, items + 1))


def test_every_fact_that_an_item_asks_for_is_told_by_somebody(result):
    asked = {key for one in CHECKLISTS.values() for item in one.items for key in item.facts}
    told = set(facts_of_audit(result)) | {"left_out", "missing", "clusters"}  # not of this table
    assert asked - told == OF_RUNS
    assert told <= asked


@pytest.mark.parametrize("name", CHECKLISTS)
def test_a_filled_form_is_a_table_in_which_the_rest_is_left_to_the_authors(name, result):
    text = filled(CHECKLISTS[name], facts_of_audit(result))
    rows = [line for line in text.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == SIZES[name][1]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)
    known = sum(OPEN not in row for row in rows)
    assert f"for {known} of {len(rows)} items" in text
    assert 5 < known < len(rows) / 2  # an audit cannot write a paper


def test_figures_are_those_of_the_table(data, result):
    truth, score, _ = data
    facts = facts_of_audit(result)
    (tn, fp), (fn, tp) = confusion_matrix(truth, score >= 0.5)
    assert facts["crosstab"] == (
        f"With the disease: {tp} decided positive, {fn} negative. "
        f"Without it: {fp} decided positive, {tn} negative."
    )
    assert f"True-positive rate {100 * tp / (tp + fn):.1f}" in facts["performance"]
    assert all(note.text in facts["findings"] for note in result.notes if note.kind == "finding")
