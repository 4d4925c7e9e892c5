"""From real images to figures, in few steps: that the way is open, not that the model is good."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.readers.ham10000 import read_ham10000
from fairdx.data.readers.nih import read_nih
from fairdx.runs.page import write_run_report
from fairdx.runs.run import run
from fairdx.runs.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
SHORT = (
    "model.encoder=test_resnet",
    "model.epochs=1",
    "method.epochs=1",
    "evaluation.replicates=100",
)


@pytest.mark.parametrize(
    ("folder", "reader", "config", "part", "options"),
    [
        (
            "real_cxr",
            read_nih,
            "nih_small.toml",
            1,
            PrepareOptions(size=32, test=0.4, validation=0.25, seed=1),
        ),
        ("real_skin", read_ham10000, "ham10000.toml", 5, PrepareOptions(size=32, test=0.3, validation=0.2)),
    ],
)
def test_from_real_images_to_a_report(tmp_path, folder, reader, config, part, options, fewer):
    if not (SHARED / folder).is_dir():
        pytest.skip(f"no real images at {SHARED / folder}")
    dataset = prepare(fewer(reader(SHARED / folder), part), tmp_path / "set", options)
    settings = load_settings(ROOT / "configs" / config, (*SHORT, f"data.root={dataset.root}"))
    results = run(settings, tmp_path / "run")
    for figures in results["methods"].values():
        for name in ("auroc", "approximate_diagnosis_fairness", "direct_effect"):
            estimate = figures[name]
            assert estimate["low"] <= estimate["value"] <= estimate["high"] or name.startswith("approx")
        assert "true_direct_effect" not in figures
    table = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    assert np.isfinite(table["score"]).all()
    assert write_run_report(tmp_path / "run").stat().st_size > 50_000
