from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.readers.ham10000 import read_ham10000
from fairdx.data.source import Source

ROOT = Path(__file__).parents[3] / "shared" / "real_skin"
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason=f"no real dermatoscopy at {ROOT}")


def test_real_dermatoscopy(tmp_path):
    source = read_ham10000(ROOT)
    # Counted in the table with other tools: 7,556 pictures, sex unknown in 46, age blank in 44.
    assert len(source.table) == 7556
    assert source.table["sex"].isna().sum() == 46
    assert source.table["age_group"].isna().sum() == 44
    share = source.table.groupby("sex")["malignant"].mean()
    assert share["male"] == pytest.approx(0.23, abs=0.01)
    assert share["female"] == pytest.approx(0.16, abs=0.01)
    some = Source(**{**vars(source), "table": source.table.iloc[:300]})
    dataset = prepare(some, tmp_path, PrepareOptions(size=64, workers=1))
    assert dataset.images.shape == (300, 3, 64, 64)
    for row in (0, 299):
        picture = Image.open(ROOT / source.table["path"].iloc[row]).resize(
            (64, 48), Image.Resampling.BILINEAR
        )
        difference = dataset.images[row, :, 8:56].transpose(1, 2, 0).astype(int) - np.asarray(picture)
        assert np.abs(difference).mean() < 2
