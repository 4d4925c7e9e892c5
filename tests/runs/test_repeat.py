"""A run repeated from its own folder: the same bit for bit, and what differs is named."""

import json
import shutil

import pandas as pd
import pytest
from typer.testing import CliRunner

from fairdx.cli import app
from fairdx.core.errors import InputError
from fairdx.core.files import read_sealed
from fairdx.methods import METHODS
from fairdx.runs.folder import to_toml
from fairdx.runs.repeat import earlier_run
from fairdx.runs.run import run
from fairdx.runs.settings import load_settings

SETTINGS = (
    *("method.name=faap", "method.epochs=1", "method.batch_size=16", "method.eta=0.15"),
    *("model.encoder=test_resnet", "model.epochs=1", "model.batch_size=16"),
    *("evaluation.replicates=20", "evaluation.true_effect_patients=16"),
)


@pytest.fixture(scope="module")
def first(small_phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    run(load_settings(None, (*SETTINGS, f"data.root={small_phantom.root}")), folder)
    return folder


def repeated(folder, *options):
    return CliRunner().invoke(app, ["run", str(folder / "config.toml"), *options])


def test_a_repeated_run_is_the_same_bit_for_bit(first):
    done = repeated(first)
    assert done.exit_code == 0, done.output
    again = first.with_name("first-again")
    said = " ".join(done.stdout.split())
    assert "weights and predictions are the same, bit for bit" in said
    assert "Differs" not in said
    for path in first.glob("stages/*/best.safetensors"):
        assert read_sealed(again / path.relative_to(first)) == read_sealed(path)
    pd.testing.assert_frame_equal(*(pd.read_parquet(one / "predictions.parquet") for one in (first, again)))
    results = [json.loads((one / "results.json").read_text()) for one in (first, again)]
    assert results[1]["fingerprints"] == results[0]["fingerprints"]
    assert results[1]["repeats"] == {
        "run": str(first.resolve()),
        "differences": [],
        "same_weights": True,
        "same_predictions": True,
    }
    assert "repeats" not in results[0]
    assert "bit for bit" in (again / "report.html").read_text()
    # What is there already is not trained again, and so would repeat nothing.
    done = repeated(first)
    assert done.exit_code == 1
    assert "--out" in str(done.exception)


def test_what_differs_is_named(first, tmp_path):
    folder = tmp_path / "first"
    shutil.copytree(first, folder)
    results = json.loads((folder / "results.json").read_text())
    made, prints = results["made_with"], results["fingerprints"]
    made["versions"]["torch"] = "1.0"
    del made["versions"]["timm"]
    made["cpu"], made["threads"], made["data"] = "A loom", 77, "other"
    prints["predictions"] = "other"
    (folder / "results.json").write_text(json.dumps(results))
    done = repeated(folder, "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    said = " ".join(done.stdout.split())
    found = json.loads((tmp_path / "out" / "results.json").read_text())["repeats"]
    assert [one.partition(":")[0] for one in found["differences"]] == [
        *("torch", "timm", "the data (their hash)", "the processor", "threads")
    ]
    assert found["differences"][0].startswith("torch: 1.0 then, ")
    assert found["differences"][1].startswith("timm: none then, ")
    assert (found["same_weights"], found["same_predictions"]) == (True, False)
    assert "other predictions came out" in said
    page = (tmp_path / "out" / "report.html").read_text()
    for difference in found["differences"]:
        assert f"Differs: {difference}." in said
        assert difference in page


def test_a_run_of_an_older_version_is_repeated_without_a_verdict(first, tmp_path):
    folder = tmp_path / "first"
    shutil.copytree(first, folder)
    results = json.loads((folder / "results.json").read_text())
    del results["made_with"], results["fingerprints"]
    (folder / "results.json").write_text(json.dumps(results))
    earlier = earlier_run(folder / "config.toml", load_settings(folder / "config.toml"))
    assert "not known" in earlier.differences(None)[0]


def test_changed_settings_repeat_nothing(first, tmp_path):
    config = first / "config.toml"
    assert earlier_run(config, load_settings(config)).folder == first.resolve()
    assert earlier_run(config, load_settings(config, ("trainer.save_minutes=1",))) is not None
    assert earlier_run(config, load_settings(config, ("method.eta=0.1",))) is None
    alone = tmp_path / "config.toml"
    shutil.copy(config, alone)
    assert earlier_run(alone, load_settings(alone)) is None


def test_a_damaged_record_is_named(first, tmp_path):
    folder = tmp_path / "first"
    shutil.copytree(first, folder)
    (folder / "results.json").write_text("{")
    with pytest.raises(InputError, match=r"results.json is not what .fairdx run. writes"):
        earlier_run(folder / "config.toml", load_settings(folder / "config.toml"))


@pytest.mark.parametrize(
    "changes",
    [
        *((f"method.name={name}",) for name in METHODS),
        ("method.preset=paper",),
        ("data.fold=1", "data.root=some where", "track=['tensorboard']"),
        ("model.source=resnet18.pt", "model.contract.high=255", "model.trust=true"),
    ],
)
def test_the_file_holds_every_setting(changes, tmp_path):
    settings = load_settings(None, changes)
    file = tmp_path / "config.toml"
    file.write_text(to_toml(settings.model_dump(mode="json")))
    assert load_settings(file) == settings
