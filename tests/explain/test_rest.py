"""Places, deletion, changes of images, masks: against other libraries and cases worked out by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from fairdx.core.errors import InputError
from fairdx.data.phantom import Regions
from fairdx.explain.counterfactual import (
    Pairs,
    contrasted,
    counterfactual_pairs,
    from_lab,
    label_preserving,
    lightened,
    softened,
    to_lab,
)
from fairdx.explain.explain import choose_images
from fairdx.explain.mask import Pattern, measure_mask
from fairdx.explain.probe import conditional_auroc
from fairdx.explain.regions import blurred, deletion, locate, partners, top_pixels
from fairdx.explain.result import Deleted, Explanation, ModelFound
from fairdx.explain.settings import ExplainSettings
from fairdx.explain.words import sentences
from fairdx.models.loading import TaskImages
from fairdx.runs.explain import ExplainRequest, explain_folder


def _regions(n, size):
    lesion, trait = np.zeros((n, size, size), bool), np.zeros((n, size, size), bool)
    lesion[0, :2, :2] = True
    trait[:, 4:] = True
    return Regions(lesion, trait, ~(lesion | trait))


def test_where_a_map_lies_by_hand():
    maps = np.full((3, 8, 8), -1.0)
    maps[0, 1, 1] = 3.0  # in the lesion
    maps[0, 6, 6] = 1.0  # in the trait
    maps[1, 2, 2] = 5.0  # in the rest
    found = locate(maps, _regions(3, 8))  # as many cells as pixels: nothing is enlarged
    np.testing.assert_allclose(
        [found.share[name][0] for name in ("lesion", "trait", "rest")], [0.75, 0.25, 0]
    )
    np.testing.assert_allclose([found.share[name][1] for name in ("lesion", "trait", "rest")], [0, 0, 1])
    assert np.isnan(found.share["lesion"][2])  # an empty map says nothing
    assert found.hit[0] == 1
    assert np.isnan(found.hit[1:]).all()  # no lesion to hit
    assert found.area["trait"][0] == 0.5


def test_a_map_that_says_nothing_has_the_share_of_the_image():
    found = locate(np.ones((2, 4, 4)), _regions(2, 8))
    for name in ("lesion", "trait", "rest"):
        np.testing.assert_allclose(found.share[name], found.area[name], rtol=1e-5)


def test_deletion_takes_what_the_map_shows():
    image = torch.full((4, 1, 20, 20), 0.2)
    image[:, :, :4, :20] = 1.0  # a fifth of the image, and all that the score looks at
    maps = np.zeros((4, 5, 5))
    maps[:2, 0] = 1.0
    maps[2:, 4] = 1.0
    rows = np.arange(4)
    own, null = deletion(lambda x, _: x[:, 0, :4].mean((1, 2)), image, maps, rows, np.array([2, 3, 0, 1]))
    # Five rows are averaged: of the four that count, the third gets 1/5 and the fourth 2/5 of the grey.
    np.testing.assert_allclose(own[:2], 0.8 * (0 + 0 + 1 / 5 + 2 / 5) / 4, atol=1e-5)
    np.testing.assert_allclose(own[2:], 0, atol=1e-6)
    np.testing.assert_allclose(null, own[[2, 3, 0, 1]], atol=1e-6)
    assert top_pixels(maps, (20, 20))[0].mean() == pytest.approx(0.2)


def test_partners_are_of_the_same_kind_and_somebody_else():
    rng = np.random.default_rng(0)
    cells, patients = rng.integers(0, 3, 90), np.arange(90) // 2
    found = partners(cells, patients, seed=0)
    assert (cells[found] == cells).all()
    assert (patients[found] != patients).mean() > 0.95
    assert len(set(found)) > 60
    assert partners(np.array([5]), np.array([0]), seed=0).tolist() == [0]


def test_lab_is_that_of_scikit_image():
    image = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)).double()
    image[0, :, 0, 0] = 0.01  # the straight part of both curves
    expected = np.stack([rgb2lab(one.permute(1, 2, 0).numpy()) for one in image])
    np.testing.assert_allclose(to_lab(image).permute(0, 2, 3, 1).numpy(), expected, atol=0.02)
    torch.testing.assert_close(from_lab(to_lab(image)), image, atol=1e-5, rtol=0)


def test_lightness_changes_and_colour_does_not():
    image = 0.3 + 0.3 * torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(1)).double()
    before, after = to_lab(image), to_lab(lightened(image, 10.0))
    torch.testing.assert_close(
        after[:, 0] - before[:, 0], torch.full((1, 6, 6), 10.0).double(), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(after[:, 1:], before[:, 1:], atol=1e-2, rtol=0)


def test_contrast_and_blur():
    image = torch.tensor([0.4, 0.6]).view(1, 1, 1, 2)
    torch.testing.assert_close(contrasted(image, 1.2).flatten(), torch.tensor([0.38, 0.62]))
    noise = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    assert softened(noise).std() < 0.5 * noise.std()
    assert set(label_preserving(3)) == {"lightness -10 L*", "lightness +10 L*"}
    for change in label_preserving(1).values():
        assert change(noise).shape == noise.shape


def test_counterfactual_pairs_score_the_same_patients_twice():
    drawn = []

    def render(index, group):
        drawn.append((index.tolist(), group))
        return (10 * index + 100 * group).astype(np.uint8)[:, None, None, None]

    pairs, inverted = counterfactual_pairs(
        render,
        [lambda images: images[:, 0, 0, 0] / 255, lambda images: 1 - images[:, 0, 0, 0] / 255],
        np.arange(5),
        reference=0,
        comparison=1,
        advance=lambda n: None,
        batch=2,
    )
    np.testing.assert_allclose(pairs.change, 100 / 255)
    np.testing.assert_allclose(inverted.change, -pairs.change)
    assert drawn[:2] == [([0, 1], 0), ([0, 1], 1)]
    assert len(drawn) == 6  # once for both models
    assert Pairs(np.array([0.1, 0.6]), np.array([0.6, 0.7])).flips(0.5).tolist() == [1.0, 0.0]


def test_the_size_of_a_mask_and_its_spectrum():
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    board = ((x + y) % 2 * 2 - 1).float() * 2 / 255  # as fine as it gets
    slope = torch.cos(2 * torch.pi * x / 32) * 4 / 255  # one cycle
    change = torch.stack([board, slope, torch.zeros(32, 32)])[:, None]
    lesion = torch.zeros(3, 32, 32, dtype=torch.bool)
    lesion[0, :, :8] = True
    found = measure_mask(change, lesion)
    assert found.mean[0] == pytest.approx(2, rel=1e-5)
    assert found.largest.tolist() == pytest.approx([2, 4, 0], rel=1e-5)
    assert found.bands["fine"][0] == pytest.approx(1)
    assert found.bands["coarse"][1] == pytest.approx(1)
    assert np.isnan(found.bands["fine"][2])
    assert found.on_lesion[0] == pytest.approx(0.25)
    assert np.isnan(found.on_lesion[1])


def test_how_much_of_the_masks_is_one_picture_of_the_image_and_their_own():
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(400, 1, 16, 16, generator=generator)
    own = torch.randn(400, 1, 16, 16, generator=generator)
    picture = torch.randn(1, 1, 16, 16, generator=generator)
    for change, expected in (
        (picture.expand_as(image), (1, 0, 0)),
        (0.1 * (image - 0.5) - 0.05 * (blurred(image.double(), 2).float() - 0.5), (0, 1, 0)),
        (own, (0, 0, 1)),
    ):
        pattern = Pattern()
        for start in range(0, 400, 64):  # as sums, batch by batch
            pattern.add(image[start : start + 64], change[start : start + 64])
        shares = pattern.shares()
        assert sum(shares.values()) == pytest.approx(1)
        for share, wanted in zip(shares.values(), expected, strict=True):
            assert share == pytest.approx(wanted, abs=0.03)
    assert all(np.isnan(share) for share in Pattern().shares().values())
    json.dumps(shares)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda task: {"group": np.zeros_like(task.group)},
            "all of the group .* needs two",
        ),
        (lambda task: {"patient": np.full(len(task.patient), "one")}, "are of 1 patient; 5 are needed"),
    ],
)
def test_images_that_show_nothing_of_a_group_are_refused_at_once(trained, change, message):
    task = replace(trained.images.task, **change(trained.images.task))
    images = TaskImages(trained.images.dataset, task)
    with pytest.raises(InputError, match=message):
        choose_images(images, ExplainSettings(images=40), torch.device("cpu"))


def test_an_auroc_ends_at_one_and_what_could_not_be_done_is_said():
    label, group = np.repeat([0, 1], 20), np.tile([0, 1], 20)
    odds = np.where(group == 1, 4.0, -4.0) + np.arange(40) / 100
    odds[0] = odds[1] + 0.005  # above one of the other group
    found = conditional_auroc(np.stack([-odds, odds], axis=1), label, group, np.arange(40))
    assert (found.value < 1.0, found.high) == (True, 1.0)
    model = ModelFound(
        opinions={}, deletion=Deleted(found, found, found), group_auroc=found, probe_sees="logit",
        counterfactual={}, sensitivity={}, mask=None, left_out=("Grad-CAM: no layer has rows and columns",),
    )  # fmt: skip
    explanation = Explanation("", "", {}, {}, {"vanilla": model}, {}, ())
    assert "vanilla: left out: Grad-CAM: no layer has rows and columns." in sentences(explanation)


def test_a_file_is_not_taken_for_a_folder(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"model\.onnx is a file: give the folder of a run or of a model"):
        explain_folder(ExplainRequest(path, ExplainSettings()))
