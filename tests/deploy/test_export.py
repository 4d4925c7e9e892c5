"""Exported models run elsewhere: the files in their own runtimes, beside the model folder in PyTorch."""

import dataclasses
import json

import numpy as np
import pytest
import torch

pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
import export_models as models
import onnx

import fairdx.deploy.comparison
import fairdx.deploy.export
import fairdx.deploy.onnx_export
from fairdx.core.errors import InputError
from fairdx.deploy.comparison import noise
from fairdx.deploy.export import FORMATS, Request, export
from fairdx.models.card import RealisationCard, read_card
from fairdx.models.store import load_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning"
)


def run_export(path, pixels):
    return [
        found.detach().numpy()
        for found in torch.export.load(path).module()(torch.from_numpy(models.unit(pixels)))
    ]


def run_script(path, pixels):
    return [torch.jit.load(str(path))(torch.from_numpy(models.unit(pixels))).detach().numpy()]


RUN = {"onnx": models.run_onnx, "torch-export": run_export, "monai": run_script}
SOURCES = ("architecture", "module", "onnx", "torch-export")
CORRECTED = [
    *((source, "erasure") for source in SOURCES[1:]),
    *((source, "residual") for source in SOURCES),
    ("torchscript", None),
]
"""Of TorchScript no embedding and no maps are seen."""


@pytest.mark.parametrize(("source", "correction"), CORRECTED)
def test_a_frozen_model_of_every_source_scores_the_same_in_every_runtime(tmp_path, source, correction):
    pair = models.foreign_model(source, tmp_path)
    folder = models.store(tmp_path / "model", pair, channels=3, correction=correction, temperature=1.7)
    stored = load_model(folder, trust=True)
    for name, run in RUN.items():
        if (source, name) == ("torchscript", "torch-export"):
            continue
        file = export(Request(folder, name, trust=True)).path
        for count in (1, 5):
            expected = stored.scores(models.images(count, 3))
            assert np.abs(run(file, models.images(count, 3))[0] - expected).max() < 1e-5, name
    assert expected[:, 1].std() > 1e-3  # a constant would fit any export


def test_torchscript_cannot_become_a_program_of_torch_export(tmp_path):
    folder = models.store(tmp_path / "model", models.foreign_model("torchscript", tmp_path), channels=3)
    with pytest.raises(InputError, match="TorchScript"):
        export(Request(folder, "torch-export", trust=True))


@pytest.mark.parametrize("correction", ["erasure", "shift", "transport", "head", "linear_rule", "residual"])
def test_every_correction_is_in_the_graph(tmp_path, correction):
    folder = models.store(tmp_path / "with", models.our_model(), mask=False, correction=correction)
    plain = models.store(tmp_path / "without", models.our_model(), mask=False)
    probability, _ = models.run_onnx(export(Request(folder, "onnx")).path, models.images(5))
    assert np.abs(probability - load_model(folder).scores(models.images(5))).max() < 1e-5
    assert np.abs(probability - load_model(plain).scores(models.images(5))).max() > 1e-2


@pytest.mark.parametrize("name", ["onnx", "torch-export", "monai"])
def test_views_are_in_the_graph(tmp_path, name):
    folder = models.store(tmp_path / "with", models.our_model(), mask=False, views="mirror")
    plain = models.store(tmp_path / "without", models.our_model(), mask=False)
    found = RUN[name](export(Request(folder, name)).path, models.images(5))[0]
    assert np.abs(found - load_model(folder).scores(models.images(5))).max() < 1e-5
    assert np.abs(found - load_model(plain).scores(models.images(5))).max() > 1e-3


def test_a_mask_along_the_gradient_is_loaded_bit_for_bit_and_cannot_be_exported(tmp_path):
    plan = RealisationCard(steps=2, levels=3)
    pair = models.our_model()
    folder = models.store(tmp_path / "model", pair, mask=False, correction="residual", realisation=plan)
    first, again = load_model(folder).scores(models.images(5)), load_model(folder).scores(models.images(5))
    np.testing.assert_array_equal(first, again)
    with pytest.raises(InputError, match="follows the model's gradient"):
        export(Request(folder, "onnx"))


def test_temperature_is_in_the_graph_and_change_is_zero_without_a_mask(tmp_path):
    folder = models.store(tmp_path / "model", models.our_model(), mask=False, temperature=3.0)
    plain = models.store(tmp_path / "plain", models.our_model(), mask=False)
    probability, change = models.run_onnx(export(Request(folder, "onnx")).path, models.images(7))
    odds = np.log(load_model(plain).scores(models.images(7)))
    expected = np.exp((odds[:, 1] - odds[:, 0]) / 3)
    assert np.allclose(probability[:, 1] / probability[:, 0], expected, rtol=1e-4)
    assert change.shape == (7,)
    assert not change.any()


def test_change_is_the_masks_mean_absolute_change(ours, in_onnx):
    _, change = models.run_onnx(in_onnx[1].path, models.images(4))
    image = torch.from_numpy(models.unit(models.images(4)))
    masked = load_model(ours).fair.cpu().masked(image)
    assert np.allclose(change, (masked - image).abs().mean((1, 2, 3)), atol=1e-6)
    assert (change > 0.01).all()


@pytest.mark.parametrize(
    ("name", "channels", "steps"), [("onnx", 1, 1), ("torch-export", 3, 2), ("monai", 1, 2)]
)
def test_the_mask_alone_gives_masked_images(tmp_path, name, channels, steps):
    pair = models.our_model(channels)
    folder = models.store(tmp_path / "model", pair, channels=channels, steps=steps)
    exported = export(Request(folder, name, "mask"))
    pixels = models.images(3, channels)
    (masked,) = RUN[name](exported.path, pixels)
    expected = load_model(folder).fair.cpu().masked(torch.from_numpy(models.unit(pixels)))
    assert np.abs(masked - expected.numpy()).max() < 1e-5
    assert masked.min() >= 0
    assert masked.max() <= 1
    assert 0.01 < np.abs(masked - models.unit(pixels)).max() <= 0.2 + 1e-6
    assert exported.card.exports[f"{name}-mask"].content == "mask"
    assert "model" not in {entry.content for entry in exported.card.exports.values()}


def test_without_a_mask_there_is_none_to_export(tmp_path):
    folder = models.store(tmp_path / "model", models.our_model(), mask=False)
    with pytest.raises(InputError, match="no mask"):
        export(Request(folder, "onnx", "mask"))


def test_one_safetensors_file_holds_all_weights(tmp_path):
    from safetensors import safe_open

    folder = models.store(tmp_path / "model", models.our_model(), correction="erasure")
    exported = export(Request(folder, "safetensors"))
    state = load_model(folder).fair.state_dict()
    with safe_open(exported.path, "pt") as file:
        assert {name.removeprefix("fair.") for name in file.keys()} == set(state)  # noqa: SIM118
        for name in file.keys():  # noqa: SIM118
            assert torch.equal(file.get_tensor(name), state[name.removeprefix("fair.")].cpu())
        assert json.loads(file.metadata()["fairdx"])["threshold"] == 0.4


def test_the_largest_difference_is_that_of_the_file(tmp_path):
    """Scores moved by a known amount, in a file that the comparison reads back."""
    folder = models.store(tmp_path / "model", models.our_model(), mask=False)
    stored = load_model(folder)
    reference = fairdx.deploy.comparison.reference_of(
        stored, lambda image: (stored.fair(image).softmax(1),), "model", noise(stored.card)
    )
    moved = reference.compare(lambda image: (stored.fair(image).softmax(1) + 3e-5,), 1)
    assert moved.largest_difference == pytest.approx(3e-5, rel=0.01)
    turned = reference.compare(lambda image: (1 - stored.fair(image).softmax(1),), 1)
    ours_ = reference.outputs[0][:, 1]
    assert turned.equal_decisions == np.mean((ours_ >= 0.4) == (1 - ours_ >= 0.4))


def _spoil(monkeypatch, change):
    """Changes the scores of what is read back, as a broken runtime would."""
    form = FORMATS["safetensors"]

    def spoilt(program, file):
        run = form.load(program, file)
        return lambda image: (change(run(image)[0]), run(image)[1])

    monkeypatch.setitem(FORMATS, "safetensors", dataclasses.replace(form, load=spoilt))


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda p: p + 2e-4, r"differs from PyTorch by 0\.0002"), (lambda p: p * np.nan, "by nan")],
)
def test_an_export_that_differs_is_not_kept(tmp_path, monkeypatch, change, message):
    folder = models.store(tmp_path / "model", models.our_model())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    _spoil(monkeypatch, change)
    with pytest.raises(InputError, match=message):
        export(Request(folder, "safetensors"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_export_that_decides_otherwise_is_not_kept(tmp_path, monkeypatch):
    """A threshold that lies between a score and the same score moved by less than the tolerance."""
    folder = models.store(tmp_path / "probe", models.our_model(), mask=False)
    card = read_card(folder)
    score = float(load_model(folder).scores(noise(card).images)[7, 1])
    folder = models.store(tmp_path / "model", models.our_model(), mask=False, threshold=score + 2e-5)
    _spoil(monkeypatch, lambda scores: scores + 4e-5)
    with pytest.raises(InputError, match=r"decides 0\.\d% of the images otherwise"):
        export(Request(folder, "safetensors"))


@pytest.mark.parametrize("name", ["onnx", "torch-export", "monai"])
def test_a_model_that_fixes_its_batch_is_refused(tmp_path, name):
    folder = models.store(tmp_path / "model", models.foreign_model("fixed", tmp_path), channels=3)
    with pytest.raises(InputError, match=r"cannot be exported|batch"):
        export(Request(folder, name))
    assert read_card(folder).exports == {}


def test_a_model_measured_in_bf16_is_exported_in_fp32_and_the_card_says_so(tmp_path):
    folder = models.store(tmp_path / "model", models.our_model(), precision="bf16")
    exported = export(Request(folder, "onnx", samples=noise(read_card(folder), 40)))
    assert exported.entry.precision == "fp32"
    assert 0.9 < exported.entry.equal_to_measured <= 1
    assert any("bf16" in note for note in exported.notes)
    floats = {tensor.data_type for tensor in onnx.load(exported.path).graph.initializer}
    assert onnx.TensorProto.BFLOAT16 not in floats


@pytest.mark.parametrize("opset", [17, 20])
def test_the_file_has_the_opset_that_was_asked_for(ours, opset):
    exported = export(Request(ours, "onnx", "mask", opset=opset))
    proto = onnx.load(exported.path)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", opset)]
    assert proto.ir_version <= 10
    assert exported.entry.opset == opset


@pytest.mark.parametrize(
    ("name", "opset", "message"),
    [("onnx", 3, "--opset 3"), ("onnx", 999, "--opset 999"), ("monai", 18, "--opset is for")],
)
def test_an_opset_that_cannot_be_is_refused(ours, name, opset, message):
    with pytest.raises(InputError, match=message):
        export(Request(ours, name, opset=opset))
