"""A table of predictions for tests of `fairdx audit`, and how its output is read."""

import json

import numpy as np
import pandas as pd

QUICK = ("--replicates", "50")


def make(n=300, seed=0):
    """Two images for each patient; the second score is better for women."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) // 2
    sex = np.array(["F", "M"])[rng.integers(0, 2, n)[patient]]
    y = (rng.random(n) < np.where(sex == "F", 0.5, 0.3)).astype(int)
    noise = rng.normal(size=n)
    before, after = (1 / (1 + np.exp(1.2 - 2 * y - shift * (sex == "F") - noise)) for shift in (0.8, 0.1))
    return pd.DataFrame(
        {
            "image": [f"i{k}" for k in range(n)],
            "patient": patient,
            "y": y,
            "p": before,
            "fair": after,
            "sex": sex,
            "race": rng.choice(["A", "B"], n // 2)[patient],
            "split": np.where(patient % 3 == 0, "val", "test"),
        }
    )


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def words(out):
    return " ".join(out.split())
