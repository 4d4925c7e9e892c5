"""What an export writes beside the model: its card, its texts, and what it leaves alone."""

import json
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
import export_models as models
import onnx
import onnxruntime

import fairdx.deploy.comparison
import fairdx.deploy.export
import fairdx.deploy.onnx_export
from fairdx.core.errors import InputError
from fairdx.deploy.comparison import TOLERANCE
from fairdx.deploy.export import FORMATS, Request, export
from fairdx.models.card import CARD, RuleCard, read_card
from fairdx.models.store import load_model

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning"
)


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


def test_a_rule_stays_on_the_card_and_the_output_says_so(tmp_path):
    rule = RuleCard(needs_group=True, score=(0.0, 1.0), changed={"male": (0.0, 1.0), "female": (0.2, 1.0)})
    folder = models.store(tmp_path / "model", models.our_model(), rule=rule, needs_group=True)
    exported = export(Request(folder, "onnx"))
    assert any("on the card, not in the file" in note and "group" in note for note in exported.notes)
    assert exported.card.rule == rule
    probability, _ = models.run_onnx(exported.path, models.images(5))
    female = load_model(folder).scores(models.images(5), ["female"] * 5)[:, 1]
    assert np.abs(0.2 + 0.8 * probability[:, 1] - female).max() < 1e-5
    told = {entry.key: entry.value for entry in onnx.load(exported.path).metadata_props}
    assert json.loads(told["fairdx"])["rule"]["changed"]["female"] == [0.2, 1.0]


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
    assert (
        np.abs(
            models.run_onnx(first.path, models.images(3))[0] - load_model(folder).scores(models.images(3))
        ).max()
        < 1e-5
    )
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
    pixels = models.images(5, channels)
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
    assert np.abs(network(torch.from_numpy(models.unit(pixels))).numpy() - expected).max() < 1e-5
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
