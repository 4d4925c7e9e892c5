"""Small pictures in a folder, and the source that describes them."""

import numpy as np
import pandas as pd
from PIL import Image

from fairdx.data.prepare import PrepareOptions
from fairdx.data.source import Source

OPTIONS = PrepareOptions(size=16, workers=1)


def pictures(root, count, seed=0):
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(root / "images" / f"{i:04d}.png")


def source(root, count=60, **changes):
    rows = np.arange(count)
    table = pd.DataFrame(
        {
            "image": [f"{i:04d}" for i in rows],
            "path": [f"images/{i:04d}.png" for i in rows],
            "patient": [f"p{i // 2}" for i in rows],
            "y": pd.array(rows % 2, dtype="Int16"),
            "sex": np.where(rows % 3 == 0, "male", "female"),
            "age": rows * 1.5,
        }
    )
    fields = {
        "name": "made",
        "table": table,
        "labels": {"y": ("no", "yes")},
        "attributes": {"sex": ("male", "female")},
        "root": root,
        "policies": {"view": "frontal"},
    }
    return Source(**(fields | changes))


def contents(folder):
    return {name: (folder / name).read_bytes() for name in ("images.npy", "table.parquet", "exclusions.csv")}


def spoil(root):
    (root / "images" / "0005.png").write_bytes(b"")
    (root / "images" / "0017.png").write_bytes((root / "images" / "0017.png").read_bytes()[:60])
    (root / "images" / "0033.png").unlink()
