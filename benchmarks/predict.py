"""`fairdx predict` against the two things it cannot be faster than, and its memory on ten times the files.

2,000 mixed files (8-bit PNG, JPEG, 12-bit DICOM; 1 % broken) are scored by a convolutional network of random
weights. Beside it, in turn in the same run, on the same number of processors: decoding alone, by the same
processes; and the bare model in ONNX Runtime on arrays that are decoded already.

Two bounds. With one thread that decodes and one that scores, each has a processor of its own, and the slower
of the two is the bound (at least 0.9 of its files per second). With as many of each as there are processors,
both use all of them, and the bound is one after the other: time of decoding plus time of scoring. Whatever
else the machine does, processor time of decoding plus scoring over that of the whole says what is added.

Memory is that of all processes together (PSS), the largest of a run, on 2,000 and on 20,000 files.

    OMP_NUM_THREADS=1 python benchmarks/predict.py
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pydicom
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from scipy.ndimage import gaussian_filter

from fairdx.data.pool import available_cpus, ordered_map
from fairdx.deploy.decoding import Job, Reading, decode_batch
from fairdx.deploy.inputs import find_inputs
from fairdx.deploy.onnx_model import open_model
from fairdx.deploy.predict import PredictOptions, predict
from fairdx.models.card import ExportCard, FrozenCard, ImageCard, ModelCard, Range, write_card

SIZE, BATCH, DISTINCT = 224, 16, 8


LAYERS = [(32, 7, 2), (64, 3, 2), (128, 3, 2), (128, 3, 1), (256, 3, 2), (256, 3, 1)]
"""Channels, kernel and stride: about a tenth of a ResNet50's work."""


def network(layers: list[tuple[int, int, int]]) -> onnx.ModelProto:
    """Convolutions, global average, softmax."""
    rng = np.random.default_rng(0)
    nodes, weights, last, width = [], [], "image", 1
    for layer, (wide, kernel, stride) in enumerate(layers):
        values = rng.normal(0, (2 / (width * kernel**2)) ** 0.5, (wide, width, kernel, kernel))
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{layer}"))
        nodes.append(
            helper.make_node(
                "Conv", [last, f"w{layer}"], [f"c{layer}"], strides=[stride] * 2, pads=[kernel // 2] * 4
            )
        )
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        last, width = f"r{layer}", wide
    weights.append(numpy_helper.from_array(rng.normal(0, 0.1, (width, 2)).astype(np.float32), "head"))
    weights.append(numpy_helper.from_array(np.array(0, np.float32), "zero"))
    nodes += [
        helper.make_node("ReduceMean", [last], ["embedding"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["embedding", "head"], ["logit"]),
        helper.make_node("Softmax", ["logit"], ["probability"]),
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["change"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "benchmark",
        [value("image", TensorProto.FLOAT, ["n", 1, SIZE, SIZE])],
        [value("probability", TensorProto.FLOAT, ["n", 2]), value("change", TensorProto.FLOAT, ["n"])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def write_model(folder: Path, layers: list[tuple[int, int, int]]) -> Path:
    folder.mkdir()
    onnx.save(network(layers), folder / "model.onnx")
    card = ModelCard(
        fairdx="0",
        created="",
        method="none",
        image=ImageCard(size=SIZE, channels=1),
        label="finding",
        classes=("no", "yes"),
        attribute="sex",
        groups=("male", "female"),
        threshold=0.5,
        frozen=FrozenCard(source="benchmark", kind="onnx", weights_sha256=""),
        familiar={"mean": Range(low=0.1, high=0.9), "spread": Range(low=0.0, high=0.5)},
        exports={
            "onnx": ExportCard(
                file="model.onnx", content="model", images=0, largest_difference=0, equal_decisions=1
            )
        },
        files={"model.onnx": ""},
    )
    write_card(folder, card)
    return folder


def radiograph(seed: int, side: int) -> np.ndarray:
    """Structure at every scale, float32 in [0, 1]."""
    rng = np.random.default_rng(seed)
    scales = [gaussian_filter(rng.normal(size=(side, side)), scale) * scale for scale in (1, 4, 16, 64)]
    picture = np.sum(scales, axis=0)
    return ((picture - picture.min()) / np.ptp(picture)).astype(np.float32)


def write_dicom(path: Path, values: np.ndarray) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.4", "1.2.5"
    image.Rows, image.Columns = values.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.PixelData = (values * 4095).astype(np.uint16).tobytes()
    pydicom.dcmwrite(path, image, enforce_file_format=True)


def write_files(folder: Path, count: int, side: int) -> int:
    """`count` files, every hundredth broken; few distinct pictures, many names. Returns how many are good."""
    kept = folder.with_name(f"{folder.name}-distinct")
    kept.mkdir()
    folder.mkdir()
    sources = []
    for seed in range(DISTINCT):
        values = radiograph(seed, side)
        grey = Image.fromarray((values * 255).astype(np.uint8))
        grey.save(kept / f"{seed}.png")
        grey.save(kept / f"{seed}.jpg", quality=90)
        write_dicom(kept / f"{seed}.dcm", values)
        sources += [kept / f"{seed}.{ending}" for ending in ("png", "jpg", "dcm")]
    for number in range(count):
        source = sources[number % len(sources)]
        target = folder / f"{number:05}{source.suffix}"
        if number % 100 == 50:
            target.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
        else:
            target.hardlink_to(source)
    return count - len(range(50, count, 100))


def spent() -> float:
    """Processor seconds of this process and of those that ended below it."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def measured(work: Callable[[], object]) -> np.ndarray:
    """Seconds of work, and its processor seconds."""
    start, before = time.perf_counter(), spent()
    work()
    return np.array([time.perf_counter() - start, spent() - before])


def decoding(files: tuple[str, ...], reading: Reading, workers: int) -> None:
    """Decoding alone."""
    parts = [files[k : k + BATCH] for k in range(0, len(files), BATCH)]
    jobs = (Job(part, "", (None,) * len(part)) for part in parts)
    for _ in ordered_map(partial(decode_batch, reading=reading), jobs, workers=workers):
        pass


def scoring(session: Any, count: int) -> None:
    """The bare model on float32 arrays."""
    batch = np.random.default_rng(0).random((BATCH, 1, SIZE, SIZE), np.float32)
    for _ in range(0, count, BATCH):
        session.run(["probability", "change"], {"image": batch})


def throughput(folder: Path, files: Path, work: Path, rounds: int, workers: int) -> None:
    """Print files per second of each way, and the ratios by round."""
    names = find_inputs([str(files)]).files
    model = open_model(folder, batch_size=BATCH, threads=workers)
    ways: dict[str, Callable[[str], object]] = {
        "decoding": lambda _: decoding(names, Reading(model.form), workers),
        "scoring": lambda _: scoring(model.session, len(names)),
        "predict": lambda out: predict(
            folder, [str(files)], work / out, PredictOptions(workers=workers, batch_size=BATCH)
        ),
    }
    rows = [  # in turn, so that a busy machine slows all alike
        [measured(partial(way, f"{workers}-{number}.csv")) for way in ways.values()]
        for number in range(rounds)
    ]
    seconds, processor = np.moveaxis(np.array(rows), -1, 0)
    bound = (np.max if workers == 1 else np.sum)(seconds[:, :2], axis=1)
    rates = len(names) / np.median(seconds, axis=0)
    print(f"{workers} of each: " + ", ".join(f"{n} {r:.0f}/s" for n, r in zip(ways, rates, strict=True)))
    for what, ratio in (
        ("files per second, of the bound", bound / seconds[:, 2]),
        ("processor time of decoding and scoring, of the whole", processor[:, :2].sum(1) / processor[:, 2]),
    ):
        print(f"  {what}: {np.median(ratio):.2f} (by round {ratio.min():.2f} to {ratio.max():.2f})")


def memory(folder: Path, files: Path, out: Path) -> float:
    """Largest PSS of `fairdx predict` and its processes, in MiB."""
    command = [sys.executable, "-m", "fairdx.cli", "predict", str(folder), str(files), "--out", str(out)]
    process = subprocess.Popen([*command, "--workers", "2"], stdout=subprocess.DEVNULL)
    largest = 0
    while process.poll() is None:
        largest = max(largest, sum(map(pss, family(process.pid))))
        time.sleep(0.2)
    if process.returncode != 3:
        sys.exit(f"predict ended with {process.returncode}")
    return largest / 1024


def family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    threads = [Path(task, "children") for task in Path(f"/proc/{pid}/task").iterdir()]
    for thread in threads:
        try:
            children += thread.read_text().split()
        except OSError:
            continue
    return [pid, *(p for child in sorted(set(children)) for p in family(int(child)))]


def pss(pid: int) -> int:
    """Proportional share of memory in KiB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def compare(work: Path, given: argparse.Namespace) -> None:
    """Print speed, and what became of the files."""
    folder = write_model(work / "model", LAYERS)
    good = write_files(work / "files", given.files, given.side)
    for workers in sorted({1, available_cpus()}):
        throughput(folder, work / "files", work, given.rounds, workers)
    table, broken = (pd.read_csv(work / f"1-0.csv{end}") for end in ("", ".errors.csv"))
    print(f"{len(table)} of {good} good files scored, {len(broken)} of {given.files - good} broken listed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--many", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3, help="0 measures the memory only")
    parser.add_argument("--side", type=int, default=768, help="height and width of the pictures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if given.rounds:
            compare(work, given)
        light = write_model(work / "light", LAYERS[:1])
        write_files(work / "many", given.many, 128)
        write_files(work / "few", given.files, 128)
        few, many = (memory(light, work / n, work / f"{n}.csv") for n in ("few", "many"))
        print(f"memory: {few:.0f} MiB with {given.files} files, {many:.0f} MiB with {given.many}")
        record = json.loads((work / "many.csv.json").read_text())
        print(f"  {record['scored']} scored, {record['broken']} broken")


if __name__ == "__main__":
    main()
