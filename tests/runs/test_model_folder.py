"""The model folder that a run leaves: the same scores without data or training code, or a refusal."""

import json
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

import fairdx
from fairdx.core.errors import InputError
from fairdx.data.base import PreparedDataset
from fairdx.methods import METHODS as REGISTERED
from fairdx.models.card import ExportCard, ModelCard, read_card, write_card
from fairdx.models.diagnosis import weights_hash
from fairdx.models.store import load_model, save_model
from fairdx.runs.run import run
from fairdx.runs.settings import build_settings

QUICK = {
    "method": {"epochs": 1, "batch_size": 16},
    "model": {"encoder": "test_resnet", "epochs": 1, "batch_size": 16},
    "evaluation": {"replicates": 20, "true_effect_patients": 0},
    "trainer": {"precision": "fp32", "shift": 0, "device": "cpu"},
}


class Network(nn.Module):
    """Somebody's model: three channels, two classes."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.BatchNorm2d(4), nn.ReLU())
        self.fc = nn.Linear(4, 2)

    def forward(self, image):
        return self.fc(self.body(image).mean((2, 3)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Network().eval()


def trained(small_phantom, folder, method, network=None, **changes):
    values = {**QUICK, "data": {"root": str(small_phantom.root)}}
    values["method"] = {"name": method, **(QUICK["method"] if _learns(method) else {}), **changes}
    if network is not None:
        values["model"] = {"source": "memory:Network", "contract": {"high": 255.0}}
    run(build_settings(values, where="test"), folder, network=network)
    return folder


def _learns(method):
    return "epochs" in REGISTERED[method].config_class.model_fields


def predicted(folder, method):
    table = pd.read_parquet(folder / "predictions.parquet")
    return table[(table["split"] == "test") & (table["method"] == method)]


METHODS = ("fair_diagnosis", "reweighting", "vanilla", "concept_erasure", "score_shift")
BEHIND = ("corrector", "last_layer", "linear_post", "residual_head")
TRANSPORTS = ("optimal_transport", "guessed_transport")


@pytest.mark.parametrize("method", METHODS + TRANSPORTS + BEHIND)
@pytest.mark.parametrize("foreign", [False, True])
def test_loaded_it_scores_as_in_the_predictions_table_bit_for_bit(
    method, foreign, small_phantom, tmp_path, network
):
    own = network if foreign else None
    before = weights_hash(network)
    folder = trained(small_phantom, tmp_path / "run", method, own)
    assert weights_hash(network) == before
    stored = load_model(folder, network=own)
    task = small_phantom.task()
    test = task.indices("test")
    groups = [task.group_names[code] for code in task.group[test]]
    expected = predicted(folder, method)
    pixels = small_phantom.read(test)
    scores = stored.scores(pixels, groups)
    np.testing.assert_array_equal(scores[:, 1], expected["score"])
    np.testing.assert_array_equal(stored.decisions(pixels, groups), expected["decision"])
    np.testing.assert_array_equal(stored.scores(pixels / np.float32(255), groups), scores)
    assert stored.card.needs_group is (method == "optimal_transport")


def test_a_corrector_that_leaves_the_model_alone_says_so_in_results_and_report(small_phantom, tmp_path):
    from fairdx.runs.page import write_run_report

    folder = trained(small_phantom, tmp_path / "run", "corrector")  # its 40 images or so show no gap
    results = json.loads((folder / "results.json").read_text())
    (note,) = results["notes"]
    assert "the model is left alone" in note
    assert "the model is left alone" in write_run_report(folder).read_text()
    pairs = [predicted(folder, method)["score"].to_numpy() for method in ("vanilla", "corrector")]
    np.testing.assert_allclose(*pairs, atol=1e-6)


def test_a_realised_mask_is_loaded_as_it_was_measured_bit_for_bit(small_phantom, tmp_path):
    settings = {"realise": True, "weights": [8.0], "steps": 20}
    folder = trained(small_phantom, tmp_path / "run", "corrector", **settings)
    stored, test = load_model(folder), small_phantom.task().indices("test")
    pixels = small_phantom.read(test)
    found, expected = stored.scores(pixels)[:, 1], predicted(folder, "corrector")
    np.testing.assert_array_equal(found, expected["score"])
    image = torch.from_numpy(pixels / np.float32(255))
    change = (stored.fair.masked(image) - image).abs() * 255
    assert 0 < change.max() < 3.01


@pytest.mark.parametrize("method", ["vanilla", "score_shift"])
def test_views_are_loaded_as_they_were_measured_bit_for_bit(method, small_phantom, tmp_path):
    folder = trained(small_phantom, tmp_path / "run", method, views="turns")
    stored = load_model(folder)
    test = small_phantom.task().indices("test")
    scores = stored.scores(small_phantom.read(test))[:, 1]
    np.testing.assert_array_equal(scores, predicted(folder, method)["score"])
    stored.fair.views = "none"
    assert np.abs(stored.scores(small_phantom.read(test))[:, 1] - scores).max() > 1e-6


@pytest.fixture(scope="module")
def folder(small_phantom, tmp_path_factory):
    return trained(small_phantom, tmp_path_factory.mktemp("run"), "fair_diagnosis") / "model"


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def truncated(folder):
    path = folder / "mask.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def flipped(folder):
    path = folder / "frozen.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def edited(folder):
    card = json.loads((folder / "card.json").read_text())
    card["threshold"] = 0.9
    (folder / "card.json").write_text(json.dumps(card))


def newer(folder):
    card = json.loads((folder / "card.json").read_text())
    card["format"] = 99
    (folder / "card.json").write_text(json.dumps(card))


def removed(folder):
    (folder / "mask.safetensors").unlink()


def halved(folder):
    path = folder / "card.json"
    path.write_text(path.read_text()[:200])


def emptied(folder):
    (folder / "card.json").write_text("[]")


def unfinished(folder):
    (folder / "card.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, r"mask\.safetensors is not the file that was saved"),
        (flipped, r"frozen\.safetensors is not the file that was saved"),
        (edited, r"card\.json was edited"),
        (newer, "has format 99, and this fairdx reads up to 1"),
        (removed, r"mask\.safetensors is missing"),
        (halved, r"card\.json cannot be read"),
        (emptied, "is not the card of a model"),
        (unfinished, "holds no model"),
    ],
)
def test_a_folder_that_is_not_as_it_was_is_refused_in_a_sentence(damage, message, copied):
    damage(copied)
    with pytest.raises(InputError, match=message):
        load_model(copied)


def test_weights_that_fit_the_card_but_are_others_are_refused(copied):
    """As if somebody had put in other weights and sealed the card anew."""
    from fairdx.models.card import write_card

    path = copied / "frozen.safetensors"
    weights = load_file(path)
    weights["head.bias"] += 1
    save_file(weights, path)
    write_card(copied, read_card(copied, check=()))
    with pytest.raises(InputError, match="is not the frozen model"):
        load_model(copied)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 3, 32, 32), np.uint8), "the model takes"),
        (np.zeros((2, 32, 32), np.uint8), "the model takes"),
        (np.zeros((2, 1, 32, 32), np.int64), "give uint8, or floats"),
        (np.full((2, 1, 32, 32), 7.0), "floats are from 0 to 1"),
    ],
)
def test_images_of_another_form_are_refused(images, message, folder):
    with pytest.raises(InputError, match=message):
        load_model(folder).scores(images)


def test_no_images_no_scores(folder):
    assert load_model(folder).scores(np.zeros((0, 1, 32, 32), np.uint8)).shape == (0, 2)


def test_a_group_has_to_be_told_where_the_rule_needs_it(small_phantom, tmp_path):
    stored = load_model(trained(small_phantom, tmp_path, "optimal_transport"))
    images = np.zeros((2, 1, 32, 32), np.uint8)
    with pytest.raises(InputError, match="has to be told the sex"):
        stored.scores(images)
    with pytest.raises(InputError, match="no rule for the group `other`"):
        stored.scores(images, ["male", "other"])


def test_it_is_loaded_and_scores_without_data_or_training(folder):
    """In a fresh process, through the public name."""
    script = (
        "import sys, numpy as np, fairdx; m = fairdx.load(sys.argv[1]);"
        "print(m.scores(np.zeros((3, 1, 32, 32), np.uint8)).shape);"
        "assert not {'fairdx.training', 'fairdx.runs', 'fairdx.methods'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.strip().endswith("(3, 2)")


def test_mitigate_takes_a_network_in_memory(small_phantom, tmp_path, network):
    before = weights_hash(network)
    fair = fairdx.mitigate(
        network,
        small_phantom,
        tmp_path,
        contract={"mean": [0.5], "std": [0.5]},
        settings=("method.epochs=1", "method.batch_size=16", "evaluation.replicates=20"),
    )
    assert weights_hash(network) == before
    assert set(fair.card.metrics) == {"vanilla", "fair_diagnosis"}
    assert (tmp_path / "report.html").exists()
    scores = fair.scores(PreparedDataset.open(small_phantom.root).read(np.arange(4)))
    assert np.isfinite(scores).all()
    with pytest.raises(InputError, match="was in memory"):
        load_model(tmp_path)


def test_a_method_that_retrains_refuses_what_cannot_be_trained(small_phantom, tmp_path, network):
    path = tmp_path / "model.pt2"
    example = torch.rand(2, 3, 32, 32)
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("n")},))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path)
    values = {**QUICK, "data": {"root": str(small_phantom.root)}, "model": {"source": str(path)}}
    values["method"] = {"name": "reweighting", "batch_size": 16}
    with pytest.raises(
        InputError, match="cannot be trained; take one that leaves it as it is: concept_erasure"
    ):
        run(build_settings(values, where="test"), tmp_path / "run")


def test_without_an_embedding_the_discriminator_looks_at_the_logits(small_phantom, tmp_path, network, caplog):
    values = {**QUICK, "data": {"root": str(small_phantom.root)}}
    values["method"] = {"name": "fair_diagnosis", "epochs": 1, "batch_size": 16}
    values["model"] = {"source": "memory:Network", "contract": {"embedding": None}}
    run(build_settings(values, where="test"), tmp_path / "run", network=network)
    assert "d_Y looks at logit alone" in caplog.text
    values["method"] = {"name": "concept_erasure"}
    with pytest.raises(InputError, match="this model shows none"):
        run(build_settings(values, where="test"), tmp_path / "other", network=network)


def exported(folder):
    """What an export and an explanation leave in a model folder."""
    card = read_card(folder)
    (folder / "model.onnx").write_bytes(b"program")
    entry = ExportCard(
        file="model.onnx", content="model", images=1, largest_difference=0.0, equal_decisions=1.0
    )
    return write_card(
        folder,
        card.model_copy(update={"exports": {"onnx": entry}, "files": {**card.files, "model.onnx": ""}}),
    )


def test_a_model_that_is_written_again_keeps_what_was_exported_of_it(copied):
    before = exported(copied)
    stored = load_model(copied)
    plain = stored.card.model_copy(update={"exports": {}, "files": {}})
    again = save_model(copied, stored.fair, plain.model_copy(update={"created": "2030-01-01T00:00:00+00:00"}))
    assert again.exports == before.exports
    assert read_card(copied).files == before.files  # which checks every file
    (copied / "model.onnx").write_bytes(b"another program")
    assert save_model(copied, stored.fair, plain).exports == {}
    assert not (copied / "model.onnx").exists()


def test_what_was_exported_of_another_model_does_not_stand_beside_the_new_card(copied):
    exported(copied)
    stored = load_model(copied)
    plain = stored.card.model_copy(update={"exports": {}, "files": {}, "threshold": 0.123})
    assert save_model(copied, stored.fair, plain).exports == {}
    assert not (copied / "model.onnx").exists()
    assert read_card(copied).threshold == 0.123


def test_lists_and_tensors_are_images_too_and_what_is_none_is_refused(folder):
    stored = load_model(folder)
    image = stored.card.image
    pixels = np.zeros((2, image.channels, image.size, image.size), np.uint8)
    expected = stored.scores(pixels)
    np.testing.assert_array_equal(stored.scores(torch.from_numpy(pixels)), expected)
    with pytest.raises(InputError, match="images have shape"):
        stored.scores(None)


def test_images_of_which_the_model_gives_no_number_are_not_decided(folder, monkeypatch):
    stored = load_model(folder)
    image = stored.card.image
    pixels = np.zeros((3, image.channels, image.size, image.size), np.uint8)
    scores = np.array([[0.5, 0.5], [np.nan, np.nan], [0.2, 0.8]])
    monkeypatch.setattr(type(stored), "scores", lambda *_: scores)
    with pytest.raises(InputError, match="no number as its score for 1 of 3 images, the first at place 1"):
        stored.decisions(pixels)


@pytest.mark.parametrize("name", ["../precious", "/etc/passwd", "model.onnx/../../precious", "a\\b", ""])
def test_a_card_lists_nothing_outside_its_folder(name):
    listed = TypeAdapter(ModelCard.model_fields["files"].annotation)
    with pytest.raises(ValidationError, match="is no file inside the folder of the model"):
        listed.validate_python({name: "0"})
    assert listed.validate_python({"triton/1/model.onnx": "0"})
