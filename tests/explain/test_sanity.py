"""Sanity of maps and of their overlap, on a network that was trained (Adebayo et al., NeurIPS 2018)."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from torch.nn.functional import avg_pool2d, conv2d

from fairdx.explain.findings import assess
from fairdx.explain.mapped import gradient_maps
from fairdx.explain.maps import grad_cam, occlusion
from fairdx.explain.overlap import MEASURES, rank_correlation
from fairdx.explain.probe import dealt_groups
from fairdx.explain.subject import DIAGNOSIS, GROUP, LOT, answer
from fairdx.models.layers import Reading, SpatialLayer

PARTS = ("head", "stages.3", "stages.2", "stages.1", "stages.0")
"""From the output to the input, in the order in which Adebayo et al. randomise them."""
DRAWS = 8
PAIRS_ALONE = "common_mass, shuffled pairs alone"


def by_grad_cam(network, images):
    layer = SpatialLayer("stages.3", network.stages[3], Reading("NCHW", 8, 8), 1.0)
    return grad_cam(network, layer, lambda x: [log_odds(network, x)], images)[0]


def by_occlusion(network, images):
    return occlusion(network, lambda x: [log_odds(network, x)], images, cells=8)[0]


def by_edges(network, images):
    """No map of a network at all: how steep the image is."""
    steep = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    edges = [conv2d(images, kernel[None, None], padding=1) for kernel in (steep, steep.T)]
    return avg_pool2d((edges[0] ** 2 + edges[1] ** 2).sqrt(), 4)[:, 0]


def log_odds(network, images):
    logit = network(images).logit
    return logit[:, 1] - logit[:, 0]


def randomised(network, parts, seed):
    """A copy with some of its parts drawn anew, as they were before the training."""
    made = copy.deepcopy(network)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name in parts:
            for part in made.get_submodule(name).modules():
                if hasattr(part, "reset_parameters"):
                    part.reset_parameters()
    return made.eval().requires_grad_(False)


def survival(way, network, images):
    """Rank correlation of the maps before and after, by number of parts that are random: mean and error."""
    before = way(network, images).flatten(1).double().numpy()
    found = []
    for count in range(1, len(PARTS) + 1):
        means = []
        for seed in range(DRAWS):
            after = way(randomised(network, PARTS[:count], seed), images).flatten(1).double().numpy()
            means.append(np.nanmean(rank_correlation(before, after)))
        found.append((np.mean(means), np.std(means, ddof=1) / DRAWS**0.5))
    return found


def passes(found):
    """With every weight random, less than half of a map is left, and by more than its error says."""
    mean, error = found[-1]
    return mean + 2 * error < 0.5


def some_images(trained, count=100):
    asked = trained.asked(count)
    return asked.batch(np.arange(count))[0], asked.label


def test_the_network_has_learnt_the_disease(trained):
    images, label = some_images(trained, 300)
    assert roc_auc_score(label, log_odds(trained.model, images)) > 0.9
    fresh = randomised(trained.model, PARTS, 0)
    assert 0.2 < roc_auc_score(label, log_odds(fresh, images)) < 0.8


@pytest.mark.parametrize("way", [by_grad_cam, by_occlusion])
def test_maps_do_not_survive_random_weights(trained, way):
    images, _ = some_images(trained, 100 if way is by_grad_cam else 25)  # occlusion takes 65 passes
    found = survival(way, trained.model, images)
    assert passes(found), found
    assert abs(found[0][0]) < 0.5, found  # the head alone is enough
    np.testing.assert_array_equal(way(trained.model, images), way(trained.model, images))


def test_an_edge_detector_fails_that_test(trained):
    images, _ = some_images(trained)
    assert not passes(survival(by_edges, trained.model, images))


def overlap(trained, asked, *, model=None, deals=39):
    """Overlap of the maps of diagnosis and group, as `fairdx explain` finds it."""
    subject, few = (
        trained.subject(model),
        {"layer": "model.stages.3", "smallest": 2, "advance": lambda _: None},
    )
    answers = answer(subject, asked, lambda _: None, deals=deals)
    maps = gradient_maps(subject, asked, answers, **few)
    lots = gradient_maps(subject, asked, answers, names=[f"{LOT}{i}" for i in range(deals)], **few)
    groups = zip(lots.values(), (lot.group for lot in answers.dealt), strict=True)
    return assess(maps, asked, None, level=0.95, lots=list(groups)).opinion.pairs[GROUP]


def false_findings(trained, runs, *, deals, level):
    """In how many runs something is found of groups that no image shows: by measure, and without deals."""
    asked = trained.asked(80)
    found = dict.fromkeys((*MEASURES, PAIRS_ALONE), 0)
    for seed in range(runs):
        (group,) = dealt_groups(asked.label, asked.group, asked.patients, count=1, seed=1000 + seed)
        pair = overlap(trained, trained.with_groups(asked, group), deals=deals)
        for name, dealt in pair.dealt.items():
            found[name] += dealt.p <= level
        beyond = pair.overlap["all"]["common_mass"].beyond
        found[PAIRS_ALONE] += not beyond.low <= 0 <= beyond.high
    return found


@pytest.mark.long
def test_groups_by_lot_show_nothing(trained):
    """Where no image shows the group, a test at the level of 10 % finds something in a tenth of the runs."""
    runs = 40
    found = false_findings(trained, runs, deals=19, level=0.1)
    # Shuffled pairs of images alone are no such test: both maps are made of the same activations.
    assert binomtest(found.pop(PAIRS_ALONE), runs, 0.05).pvalue < 0.001
    for name, count in found.items():
        assert binomtest(count, runs, 0.1).pvalue > 0.001, (name, count)


def test_a_diagnosis_by_the_group_is_found(trained):
    asked = trained.asked(300)
    assert roc_auc_score(asked.group, log_odds(trained.shortcut, asked.batch(np.arange(300))[0])) > 0.8
    pair = overlap(trained, asked, model=trained.shortcut)
    for name, dealt in pair.dealt.items():
        assert dealt.p <= 0.05, name
        assert dealt.own > dealt.high, name
        assert (dealt.deals, dealt.images) == (39, 300)


def test_the_maps_asked_for_are_the_maps_made(trained):
    asked = trained.asked(40)
    answers = answer(trained.subject(), asked, lambda _: None, deals=2)
    options = {"layer": None, "smallest": 2, "advance": lambda _: None}
    every = gradient_maps(trained.subject(), asked, answers, names=[DIAGNOSIS, f"{LOT}1"], **options)
    plain = gradient_maps(trained.subject(), asked, answers, **options)
    assert list(every) == [DIAGNOSIS, "lot 1"]
    assert list(plain) == [DIAGNOSIS, GROUP]
    np.testing.assert_array_equal(every[DIAGNOSIS].values, plain[DIAGNOSIS].values)
