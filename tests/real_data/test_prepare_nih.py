from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.readers.nih import read_nih

ROOT = Path(__file__).parents[3] / "shared" / "real_cxr"
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason=f"no real chest X-rays at {ROOT}")


def test_real_chest_x_rays(tmp_path):
    dataset = prepare(read_nih(ROOT), tmp_path, PrepareOptions(size=64, workers=1))
    # Counted in the table with other tools.
    assert len(dataset) == 790
    assert dataset.meta.exclusions == {}
    assert int(dataset.table["Pneumonia"].sum()) == 8
    assert int(dataset.table["Effusion"].sum()) == 127
    task = dataset.task("Effusion", "sex")
    assert task.usable.all()
    assert not set(task.patient[task.indices("train")]) & set(task.patient[task.indices("test")])
    for row in (0, 400, 789):
        picture = Image.open(ROOT / "images" / dataset.table["image"][row]).convert("L")
        assert (dataset.images[row, 0] == np.asarray(picture)).all()
