"""Exported models run elsewhere: the files in their own runtimes, beside the model folder in PyTorch."""

import dataclasses
import json
import re
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
import onnx
import onnxruntime

sys.path.insert(0, str(Path(__file__).parent))  # so that `export_models:small` can be imported as a module
import export_models as models

import fairdx.deploy.comparison
import fairdx.deploy.export
import fairdx.deploy.onnx_export
from fairdx.core.errors import InputError
from fairdx.deploy.comparison import TOLERANCE, noise
from fairdx.deploy.export import FORMATS, Request, export
from fairdx.models.card import CARD, RealisationCard, RuleCard, read_card
from fairdx.models.store import load_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning"
)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A model of our own with a mask."""
    return models.store(tmp_path_factory.mktemp("ours") / "model", models.our_model())


@pytest.fixture(scope="module")
def in_onnx(ours):
    """The same, and what its export said."""
    return read_card(ours), export(Request(ours, "onnx"))


def images(count, channels=1, seed=1):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, channels, models.SIZE, models.SIZE), dtype=np.uint8)


def unit(pixels):
    return (pixels / np.float32(255)).astype(np.float32)


def run_onnx(path, pixels):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": unit(pixels)})


def run_export(path, pixels):
    return [
        found.detach().numpy() for found in torch.export.load(path).module()(torch.from_numpy(unit(pixels)))
    ]


def run_script(path, pixels):
    return [torch.jit.load(str(path))(torch.from_numpy(unit(pixels))).detach().numpy()]


RUN = {"onnx": run_onnx, "torch-export": run_export, "monai": run_script}
SOURCES = {
    "architecture": "erasure",
    "module": "shift",
    "onnx": "erasure",
    "torch-export": "erasure",
    "torchscript": None,
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_frozen_model_of_every_source_scores_the_same_in_every_runtime(tmp_path, source):
    pair = models.foreign_model(source, tmp_path)
    folder = models.store(tmp_path / "model", pair, channels=3, correction=SOURCES[source], temperature=1.7)
    stored = load_model(folder, trust=True)
    for name, run in RUN.items():
        if (source, name) == ("torchscript", "torch-export"):
            continue
        file = export(Request(folder, name, trust=True)).path
        for count in (1, 5):
            expected = stored.scores(images(count, 3))
            assert np.abs(run(file, images(count, 3))[0] - expected).max() < 1e-5, name
    assert expected[:, 1].std() > 1e-3  # a constant would fit any export


def test_torchscript_cannot_become_a_program_of_torch_export(tmp_path):
    folder = models.store(tmp_path / "model", models.foreign_model("torchscript", tmp_path), channels=3)
    with pytest.raises(InputError, match="TorchScript"):
        export(Request(folder, "torch-export", trust=True))


@pytest.mark.parametrize("correction", ["erasure", "shift", "transport", "head", "linear_rule", "residual"])
def test_every_correction_is_in_the_graph(tmp_path, correction):
    folder = models.store(tmp_path / "with", models.our_model(), mask=False, correction=correction)
    plain = models.store(tmp_path / "without", models.our_model(), mask=False)
    probability, _ = run_onnx(export(Request(folder, "onnx")).path, images(5))
    assert np.abs(probability - load_model(folder).scores(images(5))).max() < 1e-5
    assert np.abs(probability - load_model(plain).scores(images(5))).max() > 1e-2


@pytest.mark.parametrize("name", ["onnx", "torch-export", "monai"])
def test_views_are_in_the_graph(tmp_path, name):
    folder = models.store(tmp_path / "with", models.our_model(), mask=False, views="mirror")
    plain = models.store(tmp_path / "without", models.our_model(), mask=False)
    found = RUN[name](export(Request(folder, name)).path, images(5))[0]
    assert np.abs(found - load_model(folder).scores(images(5))).max() < 1e-5
    assert np.abs(found - load_model(plain).scores(images(5))).max() > 1e-3


def test_a_mask_along_the_gradient_is_loaded_bit_for_bit_and_cannot_be_exported(tmp_path):
    plan = RealisationCard(steps=2, levels=3)
    pair = models.our_model()
    folder = models.store(tmp_path / "model", pair, mask=False, correction="residual", realisation=plan)
    first, again = load_model(folder).scores(images(5)), load_model(folder).scores(images(5))
    np.testing.assert_array_equal(first, again)
    with pytest.raises(InputError, match="follows the model's gradient"):
        export(Request(folder, "onnx"))


def test_temperature_is_in_the_graph_and_change_is_zero_without_a_mask(tmp_path):
    folder = models.store(tmp_path / "model", models.our_model(), mask=False, temperature=3.0)
    plain = models.store(tmp_path / "plain", models.our_model(), mask=False)
    probability, change = run_onnx(export(Request(folder, "onnx")).path, images(7))
    odds = np.log(load_model(plain).scores(images(7)))
    expected = np.exp((odds[:, 1] - odds[:, 0]) / 3)
    assert np.allclose(probability[:, 1] / probability[:, 0], expected, rtol=1e-4)
    assert change.shape == (7,)
    assert not change.any()


def test_change_is_the_masks_mean_absolute_change(ours, in_onnx):
    _, change = run_onnx(in_onnx[1].path, images(4))
    image = torch.from_numpy(unit(images(4)))
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
    pixels = images(3, channels)
    (masked,) = RUN[name](exported.path, pixels)
    expected = load_model(folder).fair.cpu().masked(torch.from_numpy(unit(pixels)))
    assert np.abs(masked - expected.numpy()).max() < 1e-5
    assert masked.min() >= 0
    assert masked.max() <= 1
    assert 0.01 < np.abs(masked - unit(pixels)).max() <= 0.2 + 1e-6
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


def test_the_card_says_how_the_export_compared_and_stays_sealed(ours, in_onnx):
    before, exported = in_onnx
    entry = read_card(ours).exports["onnx"]
    assert entry == exported.entry
    assert (entry.file, entry.images, entry.compared_on, entry.opset) == ("model.onnx", 256, "noise", 18)
    assert entry.largest_difference <= TOLERANCE
    assert (entry.equal_decisions, entry.precision) == (1.0, "fp32")
    assert load_model(ours).card.files["model.onnx"]
    assert read_card(ours).model_copy(update={"exports": {}, "files": {}, "seal": ""}) == before.model_copy(
        update={"exports": {}, "files": {}, "seal": ""}
    )


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


def test_a_rule_stays_on_the_card_and_the_output_says_so(tmp_path):
    rule = RuleCard(needs_group=True, score=(0.0, 1.0), changed={"male": (0.0, 1.0), "female": (0.2, 1.0)})
    folder = models.store(tmp_path / "model", models.our_model(), rule=rule, needs_group=True)
    exported = export(Request(folder, "onnx"))
    assert any("on the card, not in the file" in note and "group" in note for note in exported.notes)
    assert exported.card.rule == rule
    probability, _ = run_onnx(exported.path, images(5))
    female = load_model(folder).scores(images(5), ["female"] * 5)[:, 1]
    assert np.abs(0.2 + 0.8 * probability[:, 1] - female).max() < 1e-5
    told = {entry.key: entry.value for entry in onnx.load(exported.path).metadata_props}
    assert json.loads(told["fairdx"])["rule"]["changed"]["female"] == [0.2, 1.0]


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


def _texts(file):
    """The bytes of a file, and of the files in it."""
    yield file.read_bytes()
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def test_no_file_names_a_path_of_this_machine(tmp_path):
    folder = models.store(tmp_path / "model", models.foreign_model("onnx", tmp_path), channels=3)
    for name in FORMATS:
        export(Request(folder, name, out=tmp_path / "out"))
    here = Path(models.__file__).resolve()
    places = [tmp_path, Path(fairdx.__file__).parent.parent, Path(torch.__file__).parent, here.parent]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) >= 8
    for file in files:
        for text in _texts(file):
            for place in (*places, Path.home(), Path.cwd()):
                assert str(place).encode() not in text, (file, place)


def test_another_folder_gets_a_card_and_the_model_folder_stays(tmp_path):
    folder = models.store(tmp_path / "model", models.our_model())
    before = (folder / CARD).read_bytes()
    export(Request(folder, "onnx", out=tmp_path / "out"))
    export(Request(folder, "triton", out=tmp_path / "out"))
    assert (folder / CARD).read_bytes() == before
    card = read_card(tmp_path / "out")
    assert set(card.exports) == {"onnx", "triton"}
    assert card.threshold == 0.4
    with pytest.raises(InputError, match="holds no weights"):
        load_model(tmp_path / "out")
    other = models.store(tmp_path / "other", models.our_model(), created="2026-02-02T00:00:00+00:00")
    with pytest.raises(InputError, match="holds another model"):
        export(Request(other, "onnx", out=tmp_path / "out"))


def test_an_export_replaces_the_one_before_and_leaves_the_others(tmp_path, monkeypatch):
    folder = models.store(tmp_path / "model", models.our_model())
    monkeypatch.setattr(fairdx.deploy.onnx_export, "LARGEST", 1000)
    export(Request(folder, "safetensors"))
    first = export(Request(folder, "onnx"))
    assert {"model.onnx", "model.onnx.data", "model.safetensors"} <= set(first.card.files)
    assert np.abs(run_onnx(first.path, images(3))[0] - load_model(folder).scores(images(3))).max() < 1e-5
    monkeypatch.undo()
    second = export(Request(folder, "onnx"))
    assert not (folder / "model.onnx.data").exists()
    assert set(second.card.exports) == {"safetensors", "onnx"}
    assert second.card == read_card(folder)


def test_what_was_exported_in_the_meantime_stays_on_the_card(tmp_path, monkeypatch):
    folder = models.store(tmp_path / "model", models.our_model())
    measured = fairdx.deploy.export.reference_of

    def meantime(*given):
        monkeypatch.undo()
        export(Request(folder, "safetensors"))
        return measured(*given)

    monkeypatch.setattr(fairdx.deploy.export, "reference_of", meantime)
    assert set(export(Request(folder, "onnx")).card.exports) == {"safetensors", "onnx"}
    assert set(load_model(folder).card.exports) == {"safetensors", "onnx"}


@pytest.mark.parametrize("content", ["model", "mask"])
def test_triton_reads_the_configuration(ours, content):
    schema = pytest.importorskip(
        "tritonclient.grpc.model_config_pb2", reason="the extra `test` is not installed"
    )
    from google.protobuf import text_format

    exported = export(Request(ours, "triton", content))
    folder = exported.path.parent.parent
    config = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
    assert (config.name, config.backend) == (folder.name, "onnxruntime")
    assert config.max_batch_size > 1
    assert config.HasField("dynamic_batching")
    session = onnxruntime.InferenceSession(str(exported.path))
    for told, got in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [tensor.name for tensor in told] == [value.name for value in got]
        for tensor, value in zip(told, got, strict=True):
            dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
            assert list(dims) == value.shape[1:]
            assert isinstance(value.shape[0], str)  # a free batch size
            assert tensor.data_type == schema.TYPE_FP32
            assert value.type == "tensor(float)"
    assert json.loads(config.parameters["fairdx"].string_value)["classes"] == ["absent", "present"]


@pytest.mark.parametrize("channels", [1, 3])
def test_monai_loads_checks_and_runs_the_bundle(tmp_path, channels):
    pytest.importorskip("monai", reason="the extra `test` is not installed")
    pytest.importorskip("ignite", reason="the extra `test` is not installed")
    from PIL import Image

    folder = models.store(tmp_path / "model", models.our_model(channels), channels=channels)
    bundle = export(Request(folder, "monai")).path.parent.parent
    (bundle / "images").mkdir()
    pixels = images(5, channels)
    for number, image in enumerate(pixels):
        Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0)).save(
            bundle / "images" / f"{number}.png"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's own
        from monai.bundle import ConfigWorkflow, load, verify_net_in_out

        configs = [str(bundle / "configs" / name) for name in ("inference.json", "metadata.json")]
        verify_net_in_out(
            "network_def",
            meta_file=configs[1],
            config_file=configs[0],
            device="cpu",
            bundle_root=str(bundle),
        )
        network, metadata, _ = load(
            bundle.name, bundle_dir=bundle.parent, load_ts_module=True, device="cpu", source="github"
        )
        assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {
            "0": "absent",
            "1": "present",
        }
        workflow = ConfigWorkflow(
            configs[0],
            configs[1],
            workflow_type="infer",
            bundle_root=str(bundle),
            device="$torch.device('cpu')",
        )
        workflow.initialize()
        assert not workflow.check_properties()
        workflow.run()
    expected = load_model(folder).scores(pixels)
    assert np.abs(network(torch.from_numpy(unit(pixels))).numpy() - expected).max() < 1e-5
    rows = [line.split(",") for line in (bundle / "eval" / "predictions.csv").read_text().splitlines()]
    assert [Path(row[0]).name for row in rows] == [f"{number}.png" for number in range(5)]
    assert np.abs(np.array([row[1:] for row in rows], float) - expected).max() < 1e-5


def test_predict_gives_the_scores_of_the_model_folder(tmp_path, write_grey, here):
    """The hinge: what `export` writes, `predict` reads."""
    folder = models.store(tmp_path / "run" / "model", models.our_model())
    values = [10, 60, 120, 180, 250]
    for value in values:
        write_grey(tmp_path / "images" / f"{value:03}.png", value, models.SIZE)
    done = here("export", tmp_path / "run", "--format", "onnx")
    assert done.returncode == 0, done.stderr
    assert re.search(r"On 256 images of noise it differs from PyTorch by at most \d", done.stdout)
    table = tmp_path / "scores.csv"
    scored = here("predict", tmp_path / "run", tmp_path / "images", "--out", table)
    assert scored.returncode == 0, scored.stderr
    import pandas as pd

    rows = pd.read_csv(table).sort_values("path")
    stored = load_model(folder)
    pixels = np.stack([np.full((1, models.SIZE, models.SIZE), value, np.uint8) for value in values])
    assert np.abs(rows["score"] - stored.scores(pixels)[:, 1]).max() < 1e-5
    assert np.array_equal(rows["decision"], stored.decisions(pixels)) or list(rows["decision"]) == [
        stored.card.classes[code] for code in stored.decisions(pixels)
    ]


def test_the_command_compares_on_the_runs_validation_images(tmp_path, small_phantom, here):
    entries = {"data": {"hash": small_phantom.meta.hash}}
    models.store(tmp_path / "run" / "model", models.our_model(small_phantom.meta.channels), **entries)
    config = {"data": {"root": str(small_phantom.root)}}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    done = here("export", tmp_path / "run", "--format", "torch-export")
    assert done.returncode == 0, done.stderr
    assert "On 48 validation images" in done.stdout
    entry = read_card(tmp_path / "run").exports["torch-export"]
    assert (entry.images, entry.compared_on) == (48, "validation")


def test_the_command_refuses_in_one_sentence(tmp_path, here):
    done = here("export", tmp_path, "--format", "onnx")
    assert done.returncode == 2
    assert done.stderr.strip() == f"fairdx: {tmp_path} holds no model: it has no card.json"


@pytest.mark.parametrize("form", ["safetensors", "torch-export"])
def test_a_full_disk_is_one_sentence_and_keeps_the_model(ours, full_disk, form):
    before = {path.name: path.read_bytes() for path in ours.iterdir() if path.is_file()}
    with full_disk(ours):
        export(Request(ours, format=form))
    assert {path.name: path.read_bytes() for path in ours.iterdir() if path.is_file()} == before
