"""How far exported models differ from PyTorch, on 1,000 validation images of a finished run.

Usage: python benchmarks/export.py RUN
"""

import shutil
import sys
import tempfile
from pathlib import Path

from fairdx.data.base import PreparedDataset
from fairdx.deploy.comparison import validation_images
from fairdx.deploy.export import FORMATS, Request, export

IMAGES = 1000


def main(run: Path) -> None:
    samples = validation_images(PreparedDataset.open(run / "phantom"), IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model"
        shutil.copytree(run / "model", copy)
        for content in ("model", "mask"):
            for name in FORMATS:
                entry = export(Request(copy, name, content, samples=samples)).entry
                print(
                    f"{content:5} {name:12} {entry.images} images: largest difference "
                    f"{entry.largest_difference:.1e}, equal decisions {entry.equal_decisions:.2%}"
                )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
