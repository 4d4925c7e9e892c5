import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.phantom.findings import FINDINGS
from fairdx.data.phantom.phantom import PATIENT_DRAWS

SIZE = 32
PHANTOM = Phantom(PhantomSettings(size=SIZE))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=40), st.data())
def test_an_image_does_not_depend_on_its_batch(numbers, data):
    index = np.array(numbers)
    one = data.draw(st.integers(0, len(index) - 1))
    np.testing.assert_array_equal(PHANTOM.render(index)[one], PHANTOM.render(index[[one]])[0])


def test_another_seed_is_another_population():
    index = np.arange(4)
    assert (PHANTOM.render(index) != Phantom(PhantomSettings(size=SIZE, seed=1)).render(index)).mean() > 0.5


def test_draw_names_are_unique():
    assert len(set(PATIENT_DRAWS)) == len(PATIENT_DRAWS)


def test_there_are_nine_findings_or_more_and_each_shows():
    assert len(FINDINGS) >= 9
    assert FINDINGS[0].name == "pneumonia"
    index = np.arange(400)
    labels = PHANTOM.labels(index)
    plain = Phantom(PhantomSettings(size=SIZE, other_prevalence=1e-9, prevalence=(1e-9, 1e-9)))
    changed = (
        np.abs(PHANTOM.render(index).astype(int) - plain.render(index).astype(int)).max(axis=(1, 2, 3)) > 8
    )
    for column, finding in zip(labels.T, FINDINGS, strict=True):
        alone = (column == 1) & (labels.sum(1) == 1)
        assert alone.any()
        assert changed[alone].mean() > 0.9, finding.name
    assert not changed[labels.sum(1) == 0].any()


def test_prevalence_and_shares_are_those_of_the_settings():
    settings_ = PhantomSettings(
        size=SIZE,
        groups=("a", "b", "c"),
        group_share=(0.5, 0.3, 0.2),
        prevalence=(0.1, 0.4, 0.7),
        shadow=(0.0, 0.1, 0.2),
    )
    phantom, index = Phantom(settings_), np.arange(20_000)
    group, label = phantom.groups(index), phantom.labels(index)[:, 0]
    error = 4 * np.sqrt(0.25 / 4000)
    for code in range(3):
        assert abs((group == code).mean() - settings_.group_share[code]) < error
        assert abs(label[group == code].mean() - settings_.prevalence[code]) < error


def test_intervening_with_the_own_group_changes_nothing():
    index = np.arange(64)
    group = PHANTOM.groups(index)
    factual = PHANTOM.render(index)
    for code in (0, 1):
        own = group == code
        done = PHANTOM.render(index[own], do_direct=code, do_indirect=code)
        np.testing.assert_array_equal(done, factual[own])


def test_the_direct_path_leaves_the_disease_and_the_indirect_path_the_shadow():
    index = np.arange(300)
    labels = PHANTOM.labels(index, do_indirect=0)
    more = PHANTOM.labels(index, do_indirect=1)
    assert (more >= labels).all()  # the same patient's noise: a higher prevalence only adds disease
    np.testing.assert_array_equal(more[:, 1:], labels[:, 1:])
    before = PHANTOM.render(index, do_direct=0, do_indirect=0).astype(int)
    after = PHANTOM.render(index, do_direct=0, do_indirect=1).astype(int)
    same = (more == labels).all(1)
    np.testing.assert_array_equal(after[same], before[same])
    assert np.abs(after[~same] - before[~same]).max(axis=(1, 2, 3)).min() > 8
    shadow = PHANTOM.render(index, do_direct=1, do_indirect=0).astype(int) - before
    lower, upper = shadow[:, 0, SIZE // 2 : 3 * SIZE // 4].mean(), shadow[:, 0, : SIZE // 4].mean()
    assert lower > 5
    assert abs(upper) < 1


def test_true_effects_of_classifiers_that_can_be_computed_by_hand():
    """One that reads the disease has IE only; one that reads the shadow has DE only."""
    index = np.arange(3000)
    settings_ = PhantomSettings(size=SIZE, noise=0, prevalence=(0.2, 0.6))
    phantom = Phantom(settings_)
    low = slice(SIZE // 2, 3 * SIZE // 4)

    def level(images):
        return images[:, 0, low].astype(int).sum((1, 2))

    # With the disease invisible, the shadow alone moves the lower half of the image.
    unseen = Phantom(settings_.model_copy(update={"conspicuity": 0.0}))
    without = level(unseen.render(index, do_direct=0, do_indirect=0))
    by_shadow = unseen.true_effects(lambda images: level(images) > without, index, batch=len(index))
    assert by_shadow.direct_effect == 1.0
    assert by_shadow.indirect_effect == 0.0

    worlds = iter([(0, 0), (1, 0), (1, 1)])
    by_disease = phantom.true_effects(
        lambda images: phantom.labels(index, do_indirect=next(worlds)[1])[:, 0] == 1, index, batch=len(index)
    )
    assert by_disease.direct_effect == 0.0
    assert by_disease.indirect_effect == pytest.approx(0.4, abs=4 * by_disease.indirect_effect_error)
    assert by_disease.total_effect == pytest.approx(by_disease.direct_effect + by_disease.indirect_effect)
    assert by_disease.indirect_effect_error == pytest.approx(np.sqrt(0.4 * 0.6 / 3000), rel=0.1)


def test_images_of_a_patient_share_the_disease_and_differ_in_position():
    phantom = Phantom(PhantomSettings(size=SIZE, images_per_patient=3, train=30, validation=10, test=20))
    index = np.arange(60)
    labels, images = phantom.labels(index), phantom.render(index)
    for first in range(0, 60, 3):
        assert (labels[first : first + 3] == labels[first]).all()
        assert (images[first] != images[first + 1]).mean() > 0.3
    table = phantom.source().table
    assert (table.groupby("patient")["split"].nunique() == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prevalence": (0.5,)}, "prevalence"),
        ({"groups": ("a", "a")}, "two different names"),
        ({"group_share": (0.5, 0.6)}, "add up to 1"),
        ({"prevalence": (0.0, 0.5)}, "prevalence"),
        ({"sise": 64}, "sise"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        PhantomSettings(**change)


def test_regions_are_where_interventions_change_the_picture():
    plain = Phantom(PhantomSettings(size=64, noise=0.0, other_prevalence=1e-9))
    index = np.arange(60)
    regions = plain.regions(index)
    total = regions.lesion.astype(int) + regions.trait + regions.rest
    assert (total == 1).all()
    without, with_shadow = (plain.render(index, do_direct=code).astype(int)[:, 0] for code in (0, 1))
    change = np.abs(with_shadow - without)
    shadow = regions.trait | regions.lesion  # a lesion may lie in the shadow
    assert (change[~shadow].max(initial=0)) < 0.45 * change.max()
    assert change[regions.trait].mean() > 10 * change[regions.rest].mean()
    ill = plain.labels(index)[:, 0] == 1
    assert (regions.lesion.any((1, 2)) == ill).all()
    healthy = Phantom(PhantomSettings(size=64, noise=0.0, other_prevalence=1e-9, prevalence=(1e-9, 1e-9)))
    drawn = np.abs(plain.render(index).astype(int) - healthy.render(index).astype(int))[:, 0]
    assert drawn[regions.lesion].mean() > 10 * drawn[~regions.lesion].mean()


def test_regions_of_a_finding_that_changes_the_chest_itself():
    plain = Phantom(PhantomSettings(size=64, other_prevalence=0.5))
    index = np.arange(20)
    regions = plain.regions(index, finding="cardiomegaly")
    column = [finding.name for finding in FINDINGS].index("cardiomegaly")
    assert (regions.lesion.any((1, 2)) == (plain.labels(index)[:, column] == 1)).all()
