"""`fairdx explain` on a run small enough for a test, through the same functions as the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fairdx.cli import app
from fairdx.commands.explain import add_explain
from fairdx.core.errors import InputError
from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import prepare
from fairdx.explain.result import read_explanation
from fairdx.explain.settings import ExplainSettings, load_explain_settings
from fairdx.inference.uncertainty import Estimate
from fairdx.models.diagnosis import weights_hash
from fairdx.models.store import load_model
from fairdx.runs.explain import ExplainRequest, explain_folder, rows_of
from fairdx.runs.figure4 import figure4, lines_of, load_figure4, table_of
from fairdx.runs.folder import RunFolder
from fairdx.runs.reopen import reopen
from fairdx.runs.run import run
from fairdx.runs.settings import load_settings

TINY = (
    "model.encoder=test_resnet",
    "model.epochs=1",
    "model.batch_size=32",
    "method.epochs=1",
    "method.batch_size=32",
    "method.width=8",
    "evaluation.replicates=20",
    "evaluation.true_effect_patients=0",
    "trainer.precision=fp32",
)
FIGURE4 = Path(__file__).parents[2] / "configs" / "figure4_explain.toml"
PHANTOM = PhantomSettings(size=32, train=128, validation=64, test=80, conspicuity=0.6)
CLOSE = ExplainSettings(
    images=60, second_opinion=20, occlusion_cells=4, counterfactuals=12, shown=1, deals=5, dealt_images=40
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare(Phantom(PHANTOM).source(), tmp_path_factory.mktemp("data") / "set").root


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run(load_settings(None, (*TINY, f"data.root={data}")), folder)
    return folder


@pytest.fixture(scope="module")
def explained(finished):
    before, state = weights_hash(reopen(finished).method.fair), torch.get_rng_state()
    found, folder = explain_folder(ExplainRequest(finished, CLOSE, chosen=("195", "phantom/0000200")))
    assert folder == finished
    assert weights_hash(reopen(finished).method.fair) == before
    assert weights_hash(found.looked[-1].subject.fair) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for looked in found.looked for p in looked.subject.fair.parameters())
    return found


def test_everything_is_written_and_read_again(explained, finished):
    stored = read_explanation(finished / "overlap.json")
    assert list(stored.models) == ["vanilla", "fair_diagnosis"]
    assert stored.json() == explained.explanation.json()
    assert (finished / "figure4.png").read_bytes().startswith(b"\x89PNG")
    assert (finished / "figures" / "overlap.svg").exists()
    page = (finished / "report.html").read_text()
    assert "Where the model looks" in page
    card = load_model(finished).card  # sealed again, and every file as the card says
    assert "overlap.json" in card.files
    assert "Where it looks" in (finished / "model" / "README.md").read_text()


def test_a_full_disk_is_one_sentence_and_keeps_the_figures(explained, finished, full_disk, monkeypatch):
    monkeypatch.setattr("fairdx.runs.explain.explain", lambda *_: explained)
    names = ("overlap.json", "figure4.png", "report.html", "model/card.json", "model/README.md")
    before = {name: (finished / name).read_bytes() for name in names}
    with full_disk(finished):
        explain_folder(ExplainRequest(finished, CLOSE, chosen=("195", "phantom/0000200")))
    assert {name: (finished / name).read_bytes() for name in names} == before


def test_the_first_version_is_still_read(explained, tmp_path):
    values = json.loads(explained.explanation.json())
    values["schema_version"] = 1
    for model in values["models"].values():
        model["group_auroc"] = 0.7
        for opinion in model["opinions"].values():
            for pair in opinion["pairs"].values():
                del pair["dealt"]
    (tmp_path / "overlap.json").write_text(json.dumps(values))
    model = read_explanation(tmp_path / "overlap.json").models["vanilla"]
    assert model.group_auroc.value == 0.7
    assert np.isnan(model.group_auroc.low)
    assert model.opinions["grad_cam"].pairs["group"].dealt == {}


def test_figures_make_sense(explained):
    for name, model in explained.explanation.models.items():
        assert set(model.opinions) == {"grad_cam", "occlusion"}
        places = model.opinions["grad_cam"].places["diagnosis"].share["all"]
        assert sum(places[region].value for region in places) == pytest.approx(1, abs=1e-4)
        pair = model.opinions["grad_cam"].pairs["group"]
        assert pair.images <= 60
        assert pair.images >= 60 - pair.empty_diagnosis - pair.empty_group
        assert len(pair.overlap) == 5  # all, and two groups by two labels
        for opinion, count in (("grad_cam", 40), ("occlusion", 20)):
            for dealt in model.opinions[opinion].pairs["group"].dealt.values():
                assert (dealt.deals, dealt.images) == (5, count)
                assert dealt.low <= dealt.mean <= dealt.high
                assert 0 < dealt.p <= 1
        assert all(
            not pair.dealt for name, pair in model.opinions["grad_cam"].pairs.items() if name != "group"
        )
        assert sum(model.counterfactual["female"].histogram) == 12
        assert 0 <= model.group_auroc.low <= model.group_auroc.high <= 1
        assert (model.mask is None) == (name == "vanilla")
    fair = explained.explanation.models["fair_diagnosis"]
    assert set(fair.opinions["grad_cam"].pairs) == {"group", "adversary"}
    shares = list(fair.mask.pattern.values())
    if fair.mask.largest["all"].value == 0:  # so short a training may keep the model as it was
        assert np.isnan(shares).all()
    else:
        assert sum(shares) == pytest.approx(1)
    changes = explained.explanation.changes["grad_cam"]
    assert "overlap beyond null common_mass" in changes
    assert len(explained.explanation.sentences) >= 8


def test_the_same_again_is_the_same(explained, finished, tmp_path):
    again, folder = explain_folder(ExplainRequest(finished, CLOSE, out=tmp_path / "again"))
    one, two = (json.loads(e.explanation.json()) for e in (explained, again))
    one.pop("created")
    two.pop("created")
    assert one == two
    assert (folder / "explain.html").exists()


def test_a_model_folder_with_images_from_elsewhere(explained, finished, data, tmp_path):
    with pytest.raises(InputError, match="say which, as in --data"):
        explain_folder(ExplainRequest(finished / "model", CLOSE))
    found, folder = explain_folder(ExplainRequest(finished / "model", CLOSE, data=data, out=tmp_path / "out"))
    assert [looked.subject.name for looked in found.looked] == ["vanilla", "fair_diagnosis"]
    assert (folder / "overlap.json").exists()
    one = (
        found.explanation.models["vanilla"].opinions["grad_cam"].pairs["group"].overlap["all"]["common_mass"]
    )
    two = explained.explanation.models["vanilla"].opinions["grad_cam"].pairs["group"]
    assert one.own.value == pytest.approx(two.overlap["all"]["common_mass"].own.value, rel=0.02)


def test_bad_input_is_named(finished, data, tmp_path):
    with pytest.raises(InputError, match="holds no model"):
        explain_folder(ExplainRequest(tmp_path, CLOSE))
    settings = CLOSE.model_copy(update={"layer": "nowhere"})
    with pytest.raises(InputError, match="no layer `nowhere`"):
        explain_folder(ExplainRequest(finished, settings, out=tmp_path / "x"))
    images = reopen(finished).current.images
    assert rows_of(images, ("phantom/0000003", "7")).tolist() == [3, 7]
    with pytest.raises(InputError, match="has no image `9999`"):
        rows_of(images, ("9999",))
    with pytest.raises(InputError, match=r"did you mean `second_opinion`"):
        load_explain_settings(("second_opinio=3",))


def test_the_command_shows_help_and_an_example():
    add_explain(app)
    result = CliRunner().invoke(app, ["explain", "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output


def test_seeds_are_put_together(explained):
    lines = lines_of([explained.explanation] * 3, level=0.95)
    name = "Grad-CAM: overlap beyond null common_mass"
    line = next(line for line in lines if line.name == name)
    own = explained.explanation.changes["grad_cam"]["overlap beyond null common_mass"]
    assert isinstance(own, Estimate)
    assert line.mean.value == pytest.approx(own.value)
    assert np.isclose(line.mean.low, own.value)  # three times the same
    assert name in table_of(lines, [0, 1, 2])


@pytest.mark.long
def test_several_processes_go_on_with_what_is_there(explained, finished, tmp_path):
    settings = load_figure4(FIGURE4, ("figure4.seeds=[4, 7, 8]", "explain.images=60"))
    for seed in (4, 7):  # finished seeds: nothing is left to be done for them
        (tmp_path / f"seed_{seed}").mkdir()
        for name in ("results.json", "overlap.json"):
            (tmp_path / f"seed_{seed}" / name).write_bytes((finished / name).read_bytes())
    (tmp_path / "seed_8").mkdir()
    (tmp_path / "seed_8" / "results.json").write_text("{}")  # and this one cannot be explained
    with pytest.raises(InputError, match="seed_8 holds no model"):
        figure4(settings, tmp_path, processes=2)
    (tmp_path / "seed_8" / "overlap.json").write_bytes((finished / "overlap.json").read_bytes())
    lines = figure4(settings, tmp_path, processes=2)
    assert [len(line.values) for line in lines] == [3] * len(lines)
    assert (tmp_path / "figure4.md").read_text() == table_of(lines, [4, 7, 8])
    assert (tmp_path / "seed_7" / "log.txt").exists()


def test_the_shipped_file_of_figure_4():
    settings = load_figure4(FIGURE4, ("figure4.seeds=[3]",))
    assert settings.figure4.seeds == (3,)
    assert settings.explain.images == 2000


@pytest.mark.parametrize("damage", [b"", b"null", b"[]", b'{"methods": 3}', b"[" * 200_000])
@pytest.mark.parametrize("name", ["results.json", "config.json"])
def test_a_damaged_file_of_the_run_is_named(finished, tmp_path, name, damage):
    for own in ("results.json", "config.json"):
        (tmp_path / own).write_bytes(damage if own == name else (finished / own).read_bytes())
    with pytest.raises(InputError, match=str(tmp_path / name)):
        reopen(tmp_path)


@pytest.mark.parametrize("name", ["results.json", "predictions.parquet", "history.parquet", "samples.npz"])
def test_a_report_names_the_file_that_it_cannot_read(finished, tmp_path, name):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=str(path)):
        RunFolder.read(tmp_path / "run")
