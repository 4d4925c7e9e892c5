import json
from dataclasses import asdict
from math import isfinite

import numpy as np
import pandas as pd
import pytest

from fairdx.auditing.engine import audit
from fairdx.auditing.evaluate import evaluate

GROUPS = ("male", "female", "<script>alert(1)</script>")


def _figures(truth, scores, group, patient, threshold):
    found = evaluate(
        truth,
        scores,
        sensitive_features=group,
        threshold=threshold,
        patients=patient,
        n_replicates=200,
        reference="male",
    )
    return {
        name: {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in asdict(e).items()}
        for name, e in found.items()
    }


def make_run(folder, *, methods=("vanilla", "fair_diagnosis"), n_classes=2, n_groups=2, n=1200, true=True):
    """Writes a run folder as `fairdx.runs.run.run` does, of invented scores."""
    rng = np.random.default_rng(3)
    groups, classes = GROUPS[:n_groups], ["absent", "present", "unsure"][:n_classes]
    code = rng.integers(0, n_groups, n)
    truth = (rng.random(n) < 0.3 + 0.1 * (code == 1)).astype(int) if n_classes == 2 else rng.integers(0, 3, n)
    patient = np.array([f"p{i // 2}" for i in range(n)])
    code, tables, results = code[np.arange(n) // 2], [], {}
    group = np.array(groups)[code]
    for number, method in enumerate(methods):
        base = pd.DataFrame(
            {"image": np.arange(n), "patient": patient, "split": "test", "method": method, "label": truth}
        )
        noise = np.random.default_rng(5).normal(0, 1.0, (n, n_classes))  # the same for both: paired
        signal = noise + 1.8 * (truth[:, None] == np.arange(n_classes))
        signal[:, -1] += (0.8 - 0.8 * number) * (code == 1)
        scores = np.exp(signal) / np.exp(signal).sum(1, keepdims=True)
        binary = n_classes == 2
        if binary:
            base["score"], base["decision"] = scores[:, 1], (scores[:, 1] >= 0.45).astype(int)
        else:
            for k, name in enumerate(classes):
                base[f"score_{name}"] = scores[:, k]
            base["decision"] = scores.argmax(1)
        base["sex"] = group
        tables.append(base)
        given = scores[:, 1] if binary else scores
        found = _figures(truth, given, group, patient, 0.45)
        found |= {
            "threshold": 0.45 if binary else None,
            "threshold_chosen_on": "validation" if binary else None,
        }
        if binary:
            found["at_half"] = _figures(truth, given, group, patient, 0.5)
        if true and binary:
            for effect in ("direct_effect", "indirect_effect", "total_effect"):
                value = found[effect]["value"]
                found[f"true_{effect}"] = {"value": value, "low": value - 0.01, "high": value + 0.01}
        results[method] = found
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, tables, results, groups, classes, n, rng)
    return folder


def _write(folder, tables, results, groups, classes, n, rng):
    described = {
        "source": "phantom",
        "hash": "0123abcd",
        "size": 32,
        "channels": 1,
        "label": "pneumonia",
        "classes": classes,
        "attribute": "sex",
        "groups": list(groups),
        "reference": "male",
        "images": {"train": 4096, "validation": 512, "test": n},
        "left_out": 7,
        "test_patients": n // 2,
        "prevalence": dict.fromkeys(groups, 0.3),
    }
    whole = {
        "schema_version": 1,
        "fairdx_version": "0.1.0",
        "created": "2025-01-01T00:00:00+00:00",
        "seconds": 61.2,
        "data": described,
        "methods": results,
    }
    (folder / "results.json").write_text(json.dumps(whole, allow_nan=False))
    config = {
        "method_name": "fair_diagnosis",
        "method": {"pretraining": {"encoder": "resnet18", "weights": None, "epochs": 3}, "eta": 0.2},
        "data": {
            "root": None,
            "phantom": {"groups": list(groups), "prevalence": [0.32, 0.47]},
            "label": None,
        },
        "trainer": {"device": "auto", "compile": False},
        "seed": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    pd.concat(tables, ignore_index=True).to_parquet(folder / "predictions.parquet")
    epochs = [
        {"stage": "pretraining", "epoch": e, "diagnoser/total": 1 / e, "validation/auroc": 0.7 + e / 50}
        for e in (1, 2, 3)
    ]
    epochs += [{"stage": "mask", "epoch": 0, "validation/auroc": 0.78}]
    epochs += [{"stage": "mask", "epoch": e, "mask_generator/total": 1 - e / 9} for e in (1, 2, 3)]
    history = pd.DataFrame(epochs).assign(kept=lambda table: table["epoch"] == 2)
    history.to_parquet(folder / "history.parquet")
    cells = [(g, y) for g in range(len(groups)) for y in range(2) for _ in range(2)]
    image = rng.random((len(cells), 1, 32, 32)).astype(np.float32)
    change = 0.03 * rng.standard_normal(image.shape).astype(np.float32) * (len(results) > 1)
    np.savez_compressed(
        folder / "samples.npz",
        image=image,
        masked=np.clip(image + change, 0, 1),
        label=np.array([y for _, y in cells]),
        group=np.array([g for g, _ in cells]),
    )


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "two")


@pytest.fixture(scope="session")
def run_maker():
    return make_run


def make_audit(**options):
    """An audit of invented scores in which women score higher, with a hostile group name."""
    rng = np.random.default_rng(0)
    n = 2000
    patient = np.arange(n) // 2
    sex = np.array(["male", "female"])[rng.integers(0, 2, n)[patient]]
    race = np.array(["A", "B", GROUPS[2]])[rng.choice(3, n, p=[0.6, 0.3, 0.1])[patient]]
    truth = (rng.random(n) < 0.3 + 0.1 * (sex == "female")).astype(int)
    logits = rng.normal(0, 1, n) + 1.7 * truth - 0.8
    given = {
        "sensitive_features": {"sex": sex, "race": race},
        "patients": patient,
        "n_replicates": 300,  # as many as the explorer uses, so that both intervals are the same
        "n_permutations": 99,
    }
    scores = 1 / (1 + np.exp(-(logits + 0.5 * (sex == "female"))))
    if options.pop("after", False):
        options["compare_to"] = 1 / (1 + np.exp(-logits))
    return audit(options.pop("truth", truth), options.pop("scores", scores), **(given | options))


@pytest.fixture(scope="session")
def audit_maker():
    return make_audit


@pytest.fixture(scope="session")
def result():
    return make_audit()
