"""Reading a prepared data set for training: speed against ImageFolder, memory against the number of images.

Samples/s of batches in random order, as float tensors of 224 x 224: from the prepared set, and from
torchvision's ImageFolder over the same 2544 x 3056 JPEGs (at least 20 times faster). Then the resident memory
after reading every image of sets of 10,000 and of 200,000 images (at most 5 % more for the larger).

    python benchmarks/loader.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fairdx.core.files import write_whole
from fairdx.data.base import PreparedDataset
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.source import Source
from fairdx.models.loading import TaskImages

FILES, BATCH = 64, 32
SMALL, LARGE = 10_000, 200_000


def pictures(root: Path) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(FILES):
        label = i % 2
        path = root / str(label) / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (382, 318), np.uint8)).resize((2544, 3056))
        coarse.save(path, quality=90)
        rows.append((f"{label}/{i}.jpg", f"p{i}", label, "ab"[i % 4 // 2]))
    table = pd.DataFrame(rows, columns=["image", "patient", "y", "sex"])
    return table.assign(path=table["image"], split="train")


def ours_per_second(dataset: PreparedDataset, batches: int) -> float:
    images, device = TaskImages(dataset, dataset.task()), torch.device("cpu")
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(FILES) for _ in range(batches * BATCH // FILES)])
    start = time.perf_counter()
    total = sum(len(batch.image) for batch in images.batches(order, BATCH, device))
    return total / (time.perf_counter() - start)


def folder_per_second(root: Path) -> float:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [transforms.Grayscale(), transforms.Resize((224, 224)), transforms.ToTensor()]
    data = ImageFolder(str(root), transforms.Compose(steps))
    start = time.perf_counter()
    total = sum(len(image) for image, _ in torch.utils.data.DataLoader(data, BATCH, shuffle=True))
    return total / (time.perf_counter() - start)


def enlarge(dataset: PreparedDataset, out: Path, images: int) -> None:
    """A set of many images for the measure of memory: the pixels are a hole in the file, read as zeros."""
    out.mkdir()
    np.lib.format.open_memmap(out / "images.npy", mode="w+", dtype=np.uint8, shape=(images, 1, 224, 224))
    table = pd.concat([dataset.table] * (images // FILES + 1), ignore_index=True)[:images]
    table.to_parquet(out / "table.parquet")
    meta = json.loads((dataset.root / "meta.json").read_text())
    meta["counts"]["images"] = images
    write_whole(out / "meta.json", json.dumps(meta).encode())


def resident(root: str) -> None:
    """Print the resident memory in MiB after reading every image of a set once, in random order."""
    dataset = PreparedDataset.open(root)
    order = np.random.default_rng(0).permutation(len(dataset))
    for start in range(0, len(order), BATCH):
        dataset.read(order[start : start + BATCH])
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmRSS:")[2].split()[0]) / 1024)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "jpeg").mkdir()
        table = pictures(folder / "jpeg")
        source = Source("made", table, {"y": ("0", "1")}, {"sex": ("a", "b")}, folder / "jpeg")
        dataset = prepare(source, folder / "prepared", PrepareOptions(validation=0, workers=1))
        ours_per_second(dataset, 4)
        rounds = [(ours_per_second(dataset, 40), folder_per_second(folder / "jpeg")) for _ in range(3)]
        ours, theirs = np.median(rounds, axis=0)
        print(f"prepared set: {ours:,.0f} samples/s, ImageFolder: {theirs:,.0f} samples/s")
        print(f"{ours / theirs:.0f} times faster (at least 20)")
        memory = []
        for images in (SMALL, LARGE):
            enlarge(dataset, folder / str(images), images)
            command = [sys.executable, __file__, str(folder / str(images))]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            memory.append(float(done.stdout))
            print(f"resident memory after reading {images:,} images: {memory[-1]:.0f} MiB")
    growth = memory[1] / memory[0] - 1
    print(f"growth: {growth:.1%} (at most 5 %)")
    if ours < 20 * theirs or growth > 0.05:
        sys.exit("over a limit")


if __name__ == "__main__":
    resident(sys.argv[1]) if len(sys.argv) > 1 else main()
