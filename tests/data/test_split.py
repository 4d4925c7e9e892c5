import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairdx.core.errors import InputError
from fairdx.data.split import check_disjoint, cut_validation, patient_folds, split_patients

PATIENTS = [f"patient{i:05d}" for i in range(4000)]


def test_fractions_are_of_patients_and_validation_is_cut_from_training():
    split = split_patients(PATIENTS, seed=0, test=0.1, validation=0.2)
    share = pd.Series(split).value_counts(normalize=True)
    # Four standard deviations of a binomial fraction over 4000 patients.
    assert share["test"] == pytest.approx(0.1, abs=0.019)
    assert share["validation"] == pytest.approx(0.18, abs=0.025)
    unvalidated = split_patients(PATIENTS, seed=0, test=0.1)
    assert ((split == "test") == (unvalidated == "test")).all()


@given(st.lists(st.sampled_from(PATIENTS[:40]), min_size=1, max_size=80), st.randoms(use_true_random=False))
def test_side_depends_on_the_patient_alone(rows, random):
    everyone = dict(zip(PATIENTS, split_patients(PATIENTS, seed=3, test=0.5), strict=True))
    mixed = [*rows, *PATIENTS[40:400]]  # enough patients that no split is empty
    random.shuffle(mixed)
    split = split_patients(mixed, seed=3, test=0.5)
    assert [everyone[patient] for patient in mixed] == split.tolist()
    check_disjoint(pd.DataFrame({"patient": mixed, "split": split}))


def test_seed_changes_the_split():
    assert (split_patients(PATIENTS, seed=0) != split_patients(PATIENTS, seed=1)).any()


def test_cut_validation_moves_whole_patients_out_of_training_only():
    patients = np.repeat(PATIENTS, 2)
    given_split = np.where(np.arange(8000) < 6000, "train", "test").astype(object)
    split = cut_validation(patients, given_split, seed=0, validation=0.1)
    assert set(split[6000:]) == {"test"}
    assert set(split[:6000]) == {"train", "validation"}
    check_disjoint(pd.DataFrame({"patient": patients, "split": split}))
    assert (split == "validation").sum() == pytest.approx(600, abs=140)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_impossible_fraction(fraction):
    with pytest.raises(InputError, match=r"test=.* is not a fraction"):
        split_patients(PATIENTS, seed=0, test=fraction)


def test_empty_split_is_an_error():
    with pytest.raises(InputError, match=r"test=0\.01 of 2 patients left the test split empty"):
        split_patients(["a", "b"], seed=0, test=0.01)


def test_leak_names_the_patient_and_counts():
    table = pd.DataFrame({"patient": ["p1", "p2", "p2", "p3"], "split": ["train", "train", "test", "test"]})
    with pytest.raises(InputError, match=r"patient 'p2' is in the splits 'train' and 'test' \(1 such"):
        check_disjoint(table)
    check_disjoint(table.drop(index=2))


@given(st.integers(2, 12), st.integers(12, 60), st.integers(0, 5))
def test_folds_are_even_disjoint_and_deterministic(folds, patients, seed):
    rows = np.repeat(PATIENTS[:patients], 3)
    fold = patient_folds(rows, folds, seed=seed)
    per_fold = pd.DataFrame({"patient": rows, "fold": fold}).groupby("fold")["patient"].nunique()
    assert len(per_fold) == folds
    assert per_fold.max() - per_fold.min() <= 1
    assert pd.DataFrame({"patient": rows, "split": fold}).drop_duplicates()["patient"].is_unique
    assert (patient_folds(rows[::-1], folds, seed=seed) == fold[::-1]).all()


@pytest.mark.parametrize("folds", [1, 4])
def test_impossible_folds(folds):
    with pytest.raises(InputError, match=f"folds={folds} is not possible with 3 patients"):
        patient_folds(["a", "b", "c"], folds, seed=0)
