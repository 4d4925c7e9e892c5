"""Where models look on real images: that the way is open, for a network of ours and for somebody else's."""

from pathlib import Path

import pytest

from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.readers.ham10000 import read_ham10000
from fairdx.data.readers.nih import read_nih
from fairdx.data.readers.table import read_table
from fairdx.explain.settings import ExplainSettings
from fairdx.models.diagnosis import weights_hash
from fairdx.runs.explain import ExplainRequest, explain_folder
from fairdx.runs.reopen import reopen
from fairdx.runs.run import run
from fairdx.runs.settings import load_settings

SHARED = Path(__file__).resolve().parents[3] / "shared"
SHORT = ("model.encoder=test_resnet", "model.epochs=1", "method.epochs=1", "evaluation.replicates=20")
CLOSE = ExplainSettings(images=200, second_opinion=20, deals=9, dealt_images=20, occlusion_cells=4, shown=1)
EYES = ("data.label=D", "data.attribute=age_group", "model.batch_size=64", "method.batch_size=64")
FOREIGN = (
    "method.name=vanilla",
    f"model.source={SHARED / 'foreign' / 'skin_malignant.onnx'}",
    "model.contract.size=100",
    "model.contract.layout=NHWC",
    "model.contract.output=probabilities",
    "data.label=malignant",
    "data.attribute=age_group",
    "evaluation.replicates=20",
)


@pytest.fixture(scope="module")
def skin(tmp_path_factory, fewer):
    if not (SHARED / "real_skin").is_dir():
        pytest.skip(f"no real images at {SHARED / 'real_skin'}")
    options = PrepareOptions(size=64, test=0.3, validation=0.2)
    source = fewer(read_ham10000(SHARED / "real_skin"), 6)
    return prepare(source, tmp_path_factory.mktemp("skin") / "set", options).root


def test_a_foreign_model_on_skin(skin, tmp_path):
    if not (SHARED / "foreign").is_dir():
        pytest.skip(f"no foreign model at {SHARED / 'foreign'}")
    run(load_settings(None, (*FOREIGN, f"data.root={skin}")), tmp_path)
    before = weights_hash(reopen(tmp_path).obtained.model)
    found, folder = explain_folder(ExplainRequest(tmp_path, CLOSE))
    assert weights_hash(found.looked[0].subject.fair.model) == before
    model = found.explanation.models["vanilla"]
    assert set(model.opinions) == {"grad_cam", "occlusion"}  # ONNX has layers to look at
    assert set(model.sensitivity) == {"lightness -10 L*", "lightness +10 L*"}
    assert not model.counterfactual  # which nobody can draw of real people
    assert not model.opinions["grad_cam"].places
    assert (folder / "figure4.png").exists()


def test_a_model_of_ours_on_fundus_photographs(tmp_path, fewer):
    """Two eyes a patient, groups by age: intervals are over patients, and changes those of photographs."""
    if not (SHARED / "real_fundus").is_dir():
        pytest.skip(f"no real images at {SHARED / 'real_fundus'}")
    options = PrepareOptions(size=32, test=0.4, validation=0.2)
    source = read_table(SHARED / "real_fundus", label=("D",), attribute=("age@60",), channels=3)
    data = prepare(fewer(source, 4), tmp_path / "set", options).root
    run(load_settings(Path("configs/nih_small.toml"), (*SHORT, *EYES, f"data.root={data}")), tmp_path / "run")
    found, folder = explain_folder(ExplainRequest(tmp_path / "run", CLOSE))
    assert found.explanation.data["groups"] == ["under 60", "60 and over"]
    assert found.explanation.data["patients"] < found.explanation.data["images"]
    for model in found.explanation.models.values():
        assert set(model.opinions) == {"grad_cam", "occlusion"}
        assert set(model.sensitivity) == {"lightness -10 L*", "lightness +10 L*"}
        assert not model.counterfactual
    assert (folder / "figure4.png").exists()


def test_a_model_of_ours_on_x_rays(tmp_path):
    if not (SHARED / "real_cxr").is_dir():
        pytest.skip(f"no real images at {SHARED / 'real_cxr'}")
    options = PrepareOptions(size=32, test=0.4, validation=0.25, seed=1)
    data = prepare(read_nih(SHARED / "real_cxr"), tmp_path / "set", options).root
    run(load_settings(Path("configs/nih_small.toml"), (*SHORT, f"data.root={data}")), tmp_path / "run")
    found, _ = explain_folder(ExplainRequest(tmp_path / "run", CLOSE))
    for model in found.explanation.models.values():
        assert set(model.sensitivity) == {"contrast 0.8", "contrast 1.2", "blur"}
    assert "Where the model looks" in (tmp_path / "run" / "report.html").read_text()
