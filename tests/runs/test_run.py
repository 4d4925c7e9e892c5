"""The main job on a phantom small enough for a test, through the same functions as the command line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load, save

from fairdx.auditing.evaluate import evaluate
from fairdx.core.errors import InputError
from fairdx.core.files import read_sealed, write_sealed
from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.metrics.threshold import youden_threshold
from fairdx.models.runtime import precision_of
from fairdx.runs.checklist_facts import facts_of_run
from fairdx.runs.precision import recalled
from fairdx.runs.reopen import reopen
from fairdx.runs.results import RunResults, run_schema
from fairdx.runs.run import run
from fairdx.runs.seen import FOLDER
from fairdx.runs.settings import load_settings

TINY = (
    "model.encoder=test_resnet",
    "model.epochs=2",
    "model.batch_size=32",
    "method.epochs=1",
    "method.batch_size=32",
    "evaluation.replicates=50",
    "evaluation.true_effect_patients=64",
    "trainer.precision=fp32",
    "trainer.shift=1",
)
PHANTOM = PhantomSettings(size=32, train=256, validation=128, test=256, conspicuity=0.6, images_per_patient=2)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(Phantom(PHANTOM).source(), tmp_path_factory.mktemp("data") / "set").root


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run(load_settings(None, (*TINY, f"data.root={prepared}")), folder)
    return folder


@pytest.fixture(scope="module")
def results(finished):
    return json.loads((finished / "results.json").read_text())


CONTRACT = (
    "auroc",
    "accuracy",
    "demographic_parity_difference",
    "equal_opportunity_difference",
    "approximate_diagnosis_fairness",
    "direct_effect",
    "indirect_effect",
    "total_effect",
    "true_direct_effect",
)


@pytest.mark.parametrize("method", ["vanilla", "fair_diagnosis"])
def test_results_hold_what_the_contract_says(results, method):
    figures = results["methods"][method]
    for name in CONTRACT:
        assert set(figures[name]) >= {"value", "low", "high"}
    assert 0 <= figures["threshold"] <= 1
    assert figures["threshold_chosen_on"] == "validation"
    assert set(figures["at_half"]) >= set(CONTRACT[:-1])
    effects = [figures[f"{name}_effect"]["value"] for name in ("total", "direct", "indirect")]
    assert effects[0] == pytest.approx(effects[1] + effects[2])


def test_the_file_follows_the_published_schema(results):
    published = Path(__file__).parents[2] / "docs" / "run.schema.json"
    # To publish a new version: json.dumps(run_schema(), indent=2, ensure_ascii=False)
    assert json.loads(published.read_text(encoding="utf-8")) == run_schema()
    assert results["schema_version"] == run_schema()["version"]
    jsonschema.validate(results, run_schema())
    assert RunResults.model_validate(results).as_json() == results
    for damaged in (
        {**results, "extra": 1},
        {k: v for k, v in results.items() if k != "data"},
        {**results, "methods": {"vanilla": {**results["methods"]["vanilla"], "auroc": 0.9}}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(damaged, run_schema())


def test_the_figures_are_those_of_the_predictions_table(finished, results):
    table = pd.read_parquet(finished / "predictions.parquet")
    for method, rows in table.groupby("method"):
        figures = results["methods"][method]
        validation, test = (rows[rows["split"] == split] for split in ("validation", "test"))
        assert figures["threshold"] == youden_threshold(validation["label"], validation["score"])
        assert (test["decision"] == (test["score"] >= figures["threshold"])).all()
        again = evaluate(
            test["label"].to_numpy(),
            test["score"].to_numpy(),
            sensitive_features=test["sex"].to_numpy(),
            threshold=figures["threshold"],
            patients=test["patient"].to_numpy(),
            n_replicates=50,
            reference="male",
        )
        for name, estimate in again.items():
            assert figures[name]["value"] == pytest.approx(estimate.value)
            assert figures[name]["low"] == pytest.approx(estimate.low)


def test_a_checklist_is_filled_from_it(finished, results):
    facts = facts_of_run(finished)
    assert f"test {results['data']['images']['test']:,}" in facts["partitions"]
    assert f"AUC {results['methods']['vanilla']['auroc']['value']:.4f}" in facts["mitigated"]
    assert "test_resnet" in facts["model"]
    assert str(finished) not in " ".join(facts.values())
    with pytest.raises(InputError, match="holds no finished run"):
        facts_of_run(finished / "stages")


def test_no_patient_is_in_two_splits_and_every_image_is_scored_once_by_each_method(finished):
    table = pd.read_parquet(finished / "predictions.parquet")
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    assert (table.groupby("image")["method"].nunique() == 2).all()
    assert len(table) == 2 * (PHANTOM.validation + PHANTOM.test)


def test_the_mask_keeps_to_its_bound_and_samples_show_every_group_and_label(finished):
    samples = np.load(finished / "samples.npz")
    assert np.abs(samples["masked"] - samples["image"]).max() <= 0.2 + 1e-6
    assert {(g, y) for g, y in zip(samples["group"], samples["label"], strict=True)} == {
        (g, y) for g in (0, 1) for y in (0, 1)
    }


def test_stage_one_is_shared_with_a_run_that_differs_only_in_the_mask(finished, prepared, tmp_path):
    stages = sorted(path.name for path in (finished / "stages").iterdir())
    settings = load_settings(None, (*TINY, f"data.root={prepared}", "method.eta=0.05"))
    alone = run(settings, tmp_path, stages=finished / "stages", beside_vanilla=False)
    assert list(alone["methods"]) == ["fair_diagnosis"]
    assert not (tmp_path / "stages").exists()
    after = sorted(path.name for path in (finished / "stages").iterdir())
    assert [name for name in after if name.startswith("pretrain")] == [
        name for name in stages if name.startswith("pretrain")
    ]
    assert len(after) == len(stages) + 1


def test_stages_of_an_older_recipe_are_left_alone(finished, prepared, tmp_path, monkeypatch):
    stages = tmp_path / "stages"
    shutil.copytree(finished / "stages", stages)
    before = {path.name: path.stat().st_mtime_ns for path in stages.iterdir()}
    monkeypatch.setattr("fairdx.runs.trained.RECIPE", 0)
    settings = load_settings(None, (*TINY, f"data.root={prepared}"))
    run(settings, tmp_path / "run", stages=stages, beside_vanilla=False)
    assert {path.name: path.stat().st_mtime_ns for path in stages.iterdir() if path.name in before} == before
    assert len(list(stages.iterdir())) == len(before) + 2  # both stages again


def test_a_mask_behind_other_weights_of_stage_one_is_trained_again(finished, prepared, tmp_path, caplog):
    shutil.copytree(finished, tmp_path / "run")
    stages = tmp_path / "run" / "stages"
    for first in stages.glob("pretrain-*"):
        weights = load(read_sealed(first / "best.safetensors"))
        weights = {
            key: 1.01 * value if value.is_floating_point() else value for key, value in weights.items()
        }
        write_sealed(first / "best.safetensors", save(weights))  # as another machine would have trained them
    with pytest.raises(InputError, match="was trained behind other weights than those there are now"):
        reopen(tmp_path / "run")
    before = {path: (path.read_text(), path.stat().st_mtime_ns) for path in stages.glob("mask-*/behind.txt")}
    settings = load_settings(None, (*TINY, f"data.root={prepared}"))
    run(settings, tmp_path / "run", resume=True)
    assert "was trained behind other weights" in caplog.text
    # Other tests may have left masks of other settings here. Weights may be those of the start both times.
    changed = [path for path, was in before.items() if path.read_text() != was[0]]
    assert len(changed) == 1
    assert changed[0].stat().st_mtime_ns > before[changed[0]][1]
    reopen(tmp_path / "run")


@pytest.mark.parametrize("first", [True, False])
def test_what_was_measured_of_the_precision_holds_for_all_of_a_run(prepared, tmp_path, monkeypatch, first):
    changes = (*TINY, f"data.root={prepared}", "trainer.precision=auto", "trainer.device=cpu")
    settings = load_settings(None, (*changes, "evaluation.true_effect_patients=0"))
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr("fairdx.models.runtime._bf16_gains", lambda: first)
    once = run(settings, tmp_path)
    monkeypatch.setattr("fairdx.models.runtime._bf16_gains", lambda: not first)
    (tmp_path / "results.json").unlink()
    again = run(settings, tmp_path, resume=True)
    assert once["made_with"]["precision"] == again["made_with"]["precision"] == ("bf16" if first else "fp32")
    assert once["fingerprints"] == again["fingerprints"]
    assert reopen(tmp_path).current.settings.trainer.precision == "auto"
    monkeypatch.setattr("fairdx.runs.precision.processor", lambda: "another one")
    assert precision_of(recalled(settings, tmp_path / "stages").trainer) == ("fp32" if first else "bf16")


def test_a_folder_with_another_run_is_refused(finished, prepared):
    with pytest.raises(InputError, match="holds a run with other settings"):
        run(load_settings(None, (*TINY, f"data.root={prepared}", "seed=9")), finished)


def test_settings_that_cannot_be_kept_stop_a_run_before_it_trains(prepared, tmp_path):
    (tmp_path / "config.json.partial").mkdir()
    with pytest.raises(InputError, match="cannot write to"):
        run(load_settings(None, (*TINY, f"data.root={prepared}")), tmp_path)
    assert not (tmp_path / "stages").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.label=pneumnia", "pneumonia"),
        ("data.attribute=gender", "sex"),
        ("evaluation.reference=women", "no group `women`, only male, female"),
        ("data.root=nowhere", "nowhere"),
    ],
)
def test_a_mistake_in_the_settings_is_named(prepared, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        run(load_settings(None, (*TINY, f"data.root={prepared}", change)), tmp_path / "out")


def test_without_validation_images_the_threshold_says_where_it_is_from(tmp_path, caplog):
    source = Phantom(PHANTOM).source()
    source.table["split"] = source.table["split"].replace("validation", "train")
    root = prepare(source, tmp_path / "set", PrepareOptions(validation=0)).root
    short = [change for change in TINY if not change.startswith(("method.epochs", "method.batch"))]
    settings = load_settings(None, (*short, f"data.root={root}", "method.name=vanilla"))
    figures = run(settings, tmp_path / "run")["methods"]["vanilla"]
    assert figures["threshold_chosen_on"] == "train"
    assert "chosen on training images" in caplog.text


def test_an_intersection_of_attributes_runs_to_the_table(tmp_path):
    source = Phantom(PHANTOM).source()
    source.table["age"] = np.where(np.arange(len(source.table)) % 4 < 2, "young", "old")
    source = replace(source, attributes={**source.attributes, "age": ["young", "old"]})
    root = prepare(source, tmp_path / "set").root
    figures = run(
        load_settings(None, (*TINY, f"data.root={root}", "data.attribute=sex & age")), tmp_path / "run"
    )
    table = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert table["sex & age"].nunique() == 4
    assert figures["data"]["attribute"] == "sex & age"


def test_the_truth_is_left_out_for_a_label_that_interventions_do_not_move(tmp_path, prepared):
    plain = load_settings(None, (*TINY, f"data.root={prepared}", "data.label=cardiomegaly"))
    assert "true_direct_effect" not in run(plain, tmp_path / "run")["methods"]["vanilla"]


def test_a_split_without_a_class_is_found_before_training(tmp_path):
    source = Phantom(PHANTOM).source()
    source.table.loc[source.table["split"] == "validation", "pneumonia"] = 0
    root = prepare(source, tmp_path / "set").root
    with pytest.raises(InputError, match="no validation image whose pneumonia is `present`"):
        run(load_settings(None, (*TINY, f"data.root={root}")), tmp_path / "run")
    assert not (tmp_path / "run" / "stages").exists()


def test_three_groups_have_effects_for_each(tmp_path):
    three = PHANTOM.model_copy(
        update={
            "groups": ("a", "b", "c"),
            "group_share": (0.4, 0.3, 0.3),
            "prevalence": (0.3, 0.5, 0.4),
            "shadow": (0.0, 0.1, 0.2),
        }
    )
    phantom = Phantom(three)
    root = prepare(phantom.source(), tmp_path / "set").root
    figures = run(load_settings(None, (*TINY, f"data.root={root}")), tmp_path / "run")["methods"][
        "fair_diagnosis"
    ]
    assert set(figures["true_effects_by_group"]) == {"b", "c"}
    assert figures["total_effect"]["value"] == pytest.approx(
        figures["direct_effect"]["value"] + figures["indirect_effect"]["value"]
    )


def test_a_run_is_repeated_exactly(finished, prepared, tmp_path):
    run(load_settings(None, (*TINY, f"data.root={prepared}")), tmp_path)
    first, second = (pd.read_parquet(f / "predictions.parquet") for f in (finished, tmp_path))
    pd.testing.assert_frame_equal(first, second)
    assert torch.is_grad_enabled()


def test_a_fold_is_tested_by_a_model_that_never_saw_it(tmp_path, prepared):
    stages, tested = tmp_path / "stages", []
    left_out = ("method.epochs", "method.batch_size")
    for fold in (0, 1):
        change = (*TINY, f"data.root={prepared}", "data.folds=2", f"data.fold={fold}", "method.name=vanilla")
        settings = load_settings(None, tuple(c for c in change if not c.startswith(left_out)))
        results = run(settings, tmp_path / str(fold), stages=stages)
        table = pd.read_parquet(tmp_path / str(fold) / "predictions.parquet")
        assert results["methods"]["vanilla"]["threshold_chosen_on"] == "validation"
        assert not set(table[table["split"] == "validation"]["patient"]) & set(
            table[table["split"] == "test"]["patient"]
        )
        tested += table[table["split"] == "test"]["image"].tolist()
    assert len(tested) == len(set(tested)) == PHANTOM.train + PHANTOM.validation + PHANTOM.test
    assert len([stage for stage in stages.iterdir() if stage.name != FOLDER]) == 2
