"""What users hold is taken as what it is, or refused; no disease is guessed from the alphabet."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from fairdx.core.errors import InputError
from fairdx.metrics import (
    approximate_diagnosis_fairness,
    auroc,
    equal_opportunity_difference,
    group_rates,
)
from fairdx.metrics.inputs import to_attributes, to_codes, to_labels, to_numpy, to_scores
from fairdx.metrics.matching import order_of_scores
from fairdx.metrics.positive import positive_of_two, positive_place
from fairdx.metrics.threshold import at_precision


@pytest.mark.parametrize(
    ("negative", "positive"),
    [
        ("healthy", "diseased"),
        ("normal", "ill"),
        ("control", "case"),
        ("-", "+"),
        ("nein", "ja"),
        ("Negative", "Covid"),
        ("nevus", "malignant"),
        ("no edema", "edema"),
        ("Non-COVID", "COVID"),
        (0, 1),
        (-1, 1),
        (0, 2),
        (False, True),
        ("0.0", "1.0"),
    ],
)
def test_known_words_name_the_positive_class_whatever_their_order(negative, positive):
    assert positive_of_two([negative, positive], what="y", how="") == 1
    assert positive_of_two([positive, negative], what="y", how="") == 0


@pytest.mark.parametrize(
    "pair", [("a", "b"), (9, 10), (1, 2), (-1, 0), ("yes", "true"), ("no", "none"), (0, 0.7)]
)
def test_values_that_do_not_say_it_are_refused(pair):
    with pytest.raises(InputError, match="do not say which of them is the disease; give positive_class"):
        positive_place(pair, what="y_true")


def test_a_named_class_is_taken_as_written_first():
    assert positive_place(["1.0", "1"], "1", what="y") == 1
    assert positive_place([1, 2, 3], "2", what="y") == 1
    assert positive_place(["0.0", "1.0"], 1, what="y") == 1
    with pytest.raises(InputError, match="'x' is no value of y; there are 'a', 'b'"):
        positive_place(["a", "b"], "x", what="y")


def test_metrics_of_words_are_those_of_numbers():
    rng = np.random.default_rng(0)
    y, s = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    p = np.clip(0.4 * y + 0.6 * rng.random(200), 0, 1)
    words = np.array(["healthy", "diseased"])
    assert auroc(words[y], p) == pytest.approx(roc_auc_score(y, p))
    d = (p > 0.5).astype(int)
    for metric in (equal_opportunity_difference, group_rates):
        assert metric(words[y], words[d], sensitive_features=s) == metric(y, d, sensitive_features=s)
    with pytest.raises(InputError, match="recode them as 0 and 1"):
        equal_opportunity_difference(["a", "b"], ["a", "b"], sensitive_features=["s", "t"])
    # ADF does not depend on which class is positive, so it asks nobody.
    letters = np.array(["a", "b"])
    assert approximate_diagnosis_fairness(letters[y], letters[d], sensitive_features=s) == pytest.approx(
        approximate_diagnosis_fairness(y, d, sensitive_features=s)
    )


def test_scores_where_decisions_belong_are_refused():
    y, s = [0, 1, 0, 1], list("aabb")
    with pytest.raises(InputError, match=r"y_pred holds 0\.2, a score"):
        approximate_diagnosis_fairness(y, [0.2, 0.4, 0.6, 1.0], sensitive_features=s)
    with pytest.raises(InputError, match=r"y_true holds 0\.5, a score"):
        approximate_diagnosis_fairness([0.5, 1, 0, 1], y, sensitive_features=s)
    with pytest.raises(InputError, match="scores or percentages"):
        approximate_diagnosis_fairness(y, [20, 40, 60, 80], sensitive_features=s)
    assert to_labels([0, 1, 0], [0, 1, 2])[2] == (0, 1, 2)  # a class that was decided, and never true


VALUES = [1, 0, None, 1]


@pytest.mark.parametrize(
    "given",
    [
        np.ma.masked_array([1, 0, 9, 1], mask=[0, 0, 1, 0]),
        pd.Series(VALUES, dtype="Int64"),
        pd.Series(VALUES),
        pl.Series(VALUES),
        pl.LazyFrame({"y": VALUES}),
        pa.array(VALUES),
        pa.chunked_array([VALUES]),
        pa.table({"y": VALUES}),
        VALUES,
    ],
)
def test_what_is_missing_is_named_in_every_container(given):
    with pytest.raises(InputError, match=r"missing in 1 rows \(first: row 2\)"):
        to_codes(given, "y_true")
    with pytest.raises(InputError, match=r"missing or not finite in 1 rows \(first: row 2\)"):
        to_scores(given)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: f,
        pl.from_pandas,
        lambda f: pl.from_pandas(f).lazy(),
        lambda f: pa.Table.from_pandas(f, preserve_index=False),
        dict,
    ],
)
def test_frames_of_attributes(wrap):
    frame = pd.DataFrame({"sex": list("fm"), "site": [1, 2]})
    found = to_attributes(wrap(frame))
    assert {name: column.names for name, column in found.items()} == {"sex": ("f", "m"), "site": ("1", "2")}


def test_columns_of_one_name_are_refused():
    frame = pd.DataFrame([["f", "m"], ["m", "f"]], columns=["sex", "sex"])
    with pytest.raises(InputError, match="more than one column 'sex'"):
        to_attributes(frame)


def test_a_column_of_shape_n_1_is_a_column():
    assert to_numpy(np.zeros((5, 1)), "y").shape == (5,)
    assert to_scores(pa.table({"p": [0.1, 0.2]})).tolist() == [0.1, 0.2]


def test_bfloat16_tensors_are_numbers():
    torch = pytest.importorskip("torch")
    assert to_scores(torch.tensor([0.5, 0.25], dtype=torch.bfloat16)).tolist() == [0.5, 0.25]


def test_levels_keep_their_order():
    levels = pd.Categorical(["mid", "low", "high", "low"], ["low", "mid", "high", "never"], ordered=True)
    found = to_codes(pd.Series(levels), "age")
    assert found.names == ("low", "mid", "high")
    assert found.codes.tolist() == [1, 0, 2, 0]
    assert to_codes(levels, "age").names == found.names


def test_rounding_outside_the_unit_interval_is_no_error():
    assert to_scores([1 + 1e-7, -1e-9, 0.5]).tolist() == [1.0, 0.0, 0.5]
    with pytest.raises(InputError, match=r"first: 1\.00001 in row 0"):
        to_scores([1 + 1e-5])


def test_a_threshold_is_compared_in_the_precision_of_the_score():
    votes = np.arange(11)
    for threshold in (0.1, 0.3, 0.6, 0.7, 0.9):
        exact = votes >= round(threshold * 10)
        for kind in (np.float16, np.float32, np.float64):
            scores = to_scores((votes / 10).astype(kind))
            assert ((at_precision(scores, threshold) >= threshold) == exact).all()
    doubles = np.array([0.7, float(np.float32(0.7))])  # not all are single precision: taken as written
    assert (at_precision(doubles, 0.7) >= 0.7).tolist() == [True, False]


def test_scores_are_matched_by_name_or_refused():
    def match(labels, columns, positional=True):
        return order_of_scores(labels, columns, positional=positional, what="finding")

    assert match(["edema", "nodule"], ["p_nodule", "p_edema"]) == [1, 0]
    assert match(["Pleural Effusion", "Edema"], ["edema.score", "pleural_effusion"]) == [1, 0]
    assert match(["edema", "lung edema"], ["p_lung_edema", "p_edema"]) == [1, 0]
    assert match(["a", "b"], ["s1", "s2"]) == [0, 1]
    assert match(["a", "b"], ["b=s1", "a=s2"]) == [1, 0]
    assert match(["edema", "nodule"], ["first", "p_nodule"]) == [0, 1]
    for columns in (["p_nodule", "second"], ["p_edema", "p_edema"], ["p_edema", "edema_2"]):
        with pytest.raises(InputError, match="Say so as"):
            match(["edema", "nodule"], columns)
    with pytest.raises(InputError, match="Say so as a=COLUMN"):
        match(["a", "b"], ["s1", "s2"], positional=False)


@pytest.mark.parametrize(
    "values",
    [
        2.0**53 + np.arange(6),
        1e300 * np.arange(6),
        np.array([0, 1, 2, 3, 4, np.inf]),
        (2.0**24 + np.arange(6)).astype(np.float32),
    ],
)
def test_numbers_in_which_neighbours_are_one_are_no_patients(values):
    with pytest.raises(InputError, match="neighbouring numbers are one"):
        to_codes(values, "patients")
    assert len(to_codes(2**53 + np.arange(6), "patients").names) == 6


def test_a_date_that_is_none_is_missing():
    with pytest.raises(InputError, match="missing in 1 rows"):
        to_codes(np.array(["2020-01-01", "NaT", "2021-01-01"], dtype="datetime64[D]"), "group")
