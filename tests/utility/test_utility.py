"""Data utility on a phantom small enough for a test, and its bootstrap beside other ways to the same."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairdx import audit
from fairdx.core.errors import InputError
from fairdx.data.base import PreparedDataset
from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import prepare
from fairdx.models.loading import TaskImages
from fairdx.utility.heads import MEAN, Answer, Head, compare, fit_head
from fairdx.utility.run import DIFFERENCES, check_measurable, data_utility
from fairdx.utility.settings import UtilityOptions, load_utility_settings
from fairdx.utility.tables import write_utility

RUN = """
[data]
root = "{root}"
[method]
epochs = 1
batch_size = 64
[model]
encoder = "test_resnet"
epochs = 1
batch_size = 64
[trainer]
precision = "fp32"
[evaluation]
replicates = 60
[utility]
findings = ["effusion", "nodule"]
fewest = 5
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    phantom = PhantomSettings(size=32, train=192, validation=128, test=192, other_prevalence=0.3)
    folder = tmp_path_factory.mktemp("utility")
    root = prepare(Phantom(phantom).source(), folder / "set").root
    (folder / "utility.toml").write_text(RUN.format(root=root))
    return folder / "utility.toml"


@pytest.fixture(scope="module")
def finished(config):
    folder = config.parent / "out"
    return folder, data_utility(load_utility_settings(config), folder)


def test_every_finding_is_diagnosed_from_four_kinds_of_embeddings(finished):
    folder, figures = finished
    table = pd.read_parquet(folder / "utility.parquet")
    assert len(table) == len(figures) == 3 * (4 + len(DIFFERENCES)) * 2
    assert set(table["finding"]) == {"effusion", "nodule", MEAN}
    values = table[table["kind"] == "value"]
    assert values["arm"].nunique() == 4
    assert (values["low"] <= values["value"]).all()
    assert (values["value"] <= values["high"]).all()
    assert values["value"].between(0, 1).all()


def test_stage_one_is_trained_with_and_without_the_mutual_information(finished):
    stages = [path.name.partition("-")[0] for path in (finished[0] / "stages").iterdir()]
    assert len(stages) == 4
    assert stages.count("pretrain") == 2


def test_differences_are_those_of_the_values(finished):
    table = pd.read_parquet(finished[0] / "utility.parquet").set_index(["finding", "arm", "metric"])["value"]
    for name, (one, other) in DIFFERENCES.items():
        for finding in ("effusion", MEAN):
            assert table[finding, name, "auroc"] == pytest.approx(
                table[finding, one, "auroc"] - table[finding, other, "auroc"]
            )


def test_doing_it_again_loads_the_stages_and_gives_the_same(finished, config):
    folder, figures = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "stages").rglob("best.safetensors")}
    assert data_utility(load_utility_settings(config), folder) == figures
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_other_settings_need_another_folder(finished, config):
    with pytest.raises(InputError, match="holds a run with other settings"):
        data_utility(load_utility_settings(config, ("seed=1",)), finished[0])


def test_a_mistake_in_the_settings_does_not_claim_the_folder(finished, config, tmp_path):
    with pytest.raises(InputError, match="pneumonia"):
        data_utility(load_utility_settings(config, ("data.label=pneumnia",)), tmp_path)
    assert data_utility(load_utility_settings(config), tmp_path, stages=finished[0] / "stages")


def test_findings_that_are_all_too_rare_are_named(finished, config):
    settings = load_utility_settings(config, ("utility.fewest=55",))
    with pytest.raises(InputError, match=r"no other finding to diagnose \(effusion: \d+ .* each needs 55"):
        data_utility(settings, config.parent / "rare", stages=finished[0] / "stages")


def test_what_cannot_be_measured_is_said_before_anything_is_trained(config, tmp_path):
    with pytest.raises(InputError, match="no other finding to diagnose"):
        data_utility(load_utility_settings(config, ("utility.fewest=55",)), tmp_path)
    assert not list((tmp_path / "stages").glob("*"))


def test_test_images_of_one_patient_give_no_intervals_without_width(config):
    dataset = PreparedDataset.open(config.parent / "set")
    task = dataset.task(None, None)
    images = TaskImages(dataset, replace(task, patient=np.full(len(task.patient), "somebody")))
    with pytest.raises(InputError, match="all test images are of one patient"):
        check_measurable(SimpleNamespace(images=images), UtilityOptions(fewest=5))


def test_bad_settings_name_the_key(config):
    for change, message in (
        ("utility.finding=[]", "did you mean `findings`"),
        ("model.mutual_information=0", "mutual_information` is 0"),
        ("method.etta=1", "etta"),
    ):
        with pytest.raises(InputError, match=message):
            load_utility_settings(config, (change,))


def test_a_label_that_is_not_there_is_named(config, finished):
    settings = load_utility_settings(config, ('utility.findings=["gout"]',))
    with pytest.raises(InputError, match=r"`gout` is not one of the other labels: .*effusion"):
        data_utility(settings, config.parent / "gout", stages=finished[0] / "stages")


def test_the_settings_are_kept(finished):
    assert json.loads((finished[0] / "config.json").read_text())["utility"]["fewest"] == 5


@pytest.fixture(scope="module")
def embeddings():
    rng = np.random.default_rng(0)
    labels = {split: rng.integers(0, 2, 300) for split in ("train", "validation", "test")}
    seen = {s: rng.normal(0, 1, (300, 6)) * [1, 9, 1, 1, 0, 1] + y[:, None] * 0.5 for s, y in labels.items()}
    return seen, labels


def test_a_head_is_scikit_learns_on_standardised_embeddings(embeddings):
    seen, labels = embeddings
    head = fit_head(seen, labels, (0.001, 1.0))
    found = {}
    for penalty in (0.001, 1.0):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=5000))
        model.fit(seen["train"], labels["train"])
        auc = roc_auc_score(labels["validation"], model.predict_proba(seen["validation"])[:, 1])
        found[penalty] = (auc, model.predict_proba(seen["test"])[:, 1])
    best = max(found, key=lambda penalty: found[penalty][0])
    assert head.penalty == best
    np.testing.assert_allclose(head.score, found[best][1], atol=1e-3)


def answers(rng, n=600):
    truth = rng.integers(0, 2, n)
    base = rng.normal(0, 1, n)
    made = []
    for finding in ("a", "b"):
        for arm, shift in (("one", 1.5), ("two", 0.9)):
            score = 1 / (1 + np.exp(-(base + shift * truth - shift / 2)))
            made.append(Answer(finding, arm, truth, np.arange(n), Head(1.0, score)))
    return made


def test_the_bootstrap_agrees_with_drawing_patients_one_by_one():
    made = answers(np.random.default_rng(1))
    patient = np.arange(600) // 2
    found = compare(made, patient.tolist(), {"d": ("one", "two")}, replicates=800, level=0.95, seed=0)
    table = pd.DataFrame(found).set_index(["finding", "arm", "metric"])
    one, two = made[0], made[1]
    assert table.loc[("a", "one", "auroc"), "value"] == pytest.approx(
        roc_auc_score(one.truth, one.head.score)
    )
    rng = np.random.default_rng(5)
    drawn = []
    for _ in range(800):
        chosen = rng.integers(0, 300, 300)
        rows = np.concatenate([2 * chosen, 2 * chosen + 1])
        aucs = [roc_auc_score(a.truth[rows], a.head.score[rows]) for a in (one, two)]
        right = ((one.head.score >= 0.5) == one.truth)[rows].mean()
        drawn.append((aucs[0], aucs[0] - aucs[1], right))
    for key, column in ((("a", "one", "auroc"), 0), (("a", "d", "auroc"), 1), (("a", "one", "accuracy"), 2)):
        expected = np.quantile([row[column] for row in drawn], [0.025, 0.975])
        spread = np.std([row[column] for row in drawn])
        # Ends of 800 replicates have a Monte-Carlo error of a tenth of the spread.
        assert abs(table.loc[key, "low"] - expected[0]) < 0.35 * spread
        assert abs(table.loc[key, "high"] - expected[1]) < 0.35 * spread


def test_the_mean_over_findings_is_of_the_same_patients():
    made = answers(np.random.default_rng(2))
    found = compare(made, list(range(600)), {}, replicates=300, level=0.95, seed=0)
    table = pd.DataFrame(found).set_index(["finding", "arm", "metric"])
    # Both findings are the same here: so is their mean, whose interval is as wide, not 0.7 times that.
    widths = {name: np.ptp(table.loc[(name, "one", "auroc"), ["low", "high"]]) for name in (MEAN, "a")}
    assert widths[MEAN] == pytest.approx(widths["a"], rel=0.15)
    assert stats.norm.cdf(1.5 / np.sqrt(2)) == pytest.approx(
        table.loc[(MEAN, "one", "auroc"), "value"], abs=0.03
    )


def test_a_finding_has_the_figures_that_an_audit_of_the_same_scores_gives():
    made = answers(np.random.default_rng(3))
    group = np.arange(600) % 2
    for patient in (np.arange(600), np.arange(600) // 2):
        found = compare(made, patient.tolist(), {}, replicates=400, level=0.95, seed=0)
        table = pd.DataFrame(found).set_index(["finding", "arm", "metric"])
        own = audit(
            made[0].truth,
            made[0].head.score,
            sensitive_features={"group": group if patient[1] else group[patient]},
            patients=patient,
            n_replicates=400,
            explore=False,
        ).overall
        for metric in ("auroc", "accuracy"):
            row, estimate = table.loc["a", "one", metric], own[metric]
            assert row["value"] == pytest.approx(estimate.value, abs=1e-12)
            # Design effects of the accuracy are those of replicates, which differ with the groups' tables.
            assert row["low"] == pytest.approx(estimate.low, abs=2e-3)
            assert row["high"] == pytest.approx(estimate.high, abs=2e-3)


def test_tables_say_what_was_left_out_and_what_always_deciding_the_same_gives(finished, tmp_path):
    table = pd.read_parquet(finished[0] / "utility.parquet")
    write_utility(table, tmp_path, main="a_b", notes=["mass is left out: 3 & 4"], level=0.95)
    text, tex = (tmp_path / "utility.md").read_text(), (tmp_path / "utility.tex").read_text()
    assert "- mass is left out: 3 &amp; 4" in text
    assert r"trained for a\_b" in tex
    assert r"3 \& 4" in tex
    table.loc[table["kind"] == "difference", ["value", "low", "high"]] = (-1e-7, -0.01, 0.02)
    write_utility(table, tmp_path, main="a", notes=[], level=0.95)
    assert "| 0.00 (−1.00 to +2.00) |" in (tmp_path / "utility.md").read_text()
    one = table[table["finding"] == "effusion"].iloc[0]
    assert f"| {100 * one['frequent']:.2f} |" in text
    assert one["frequent"] >= 0.5
    drawn = (tmp_path / "figure3.svg").read_text()
    assert (
        drawn.count('class="mark') == 4 + 2 * 3 * 4
    )  # the legend, and two metrics of three lines in four arms


def test_a_full_disk_does_not_spoil_the_settings_of_what_is_there(config, finished, full_disk):
    folder = finished[0]
    before = (folder / "config.json").read_bytes()
    with full_disk(folder):
        data_utility(load_utility_settings(config), folder)
    assert (folder / "config.json").read_bytes() == before
