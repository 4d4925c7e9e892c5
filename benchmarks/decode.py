"""Time of one 2544 x 3056 JPEG (quality 90) to 224 x 224, side by side in one process.

Against TorchXRayVision's own loading and resizing (at least 10 times faster), against simplejpeg's scaled
decode with the same final resize, the practical limit (at most 1.3 times its time), and how far the pictures
are from a full decode with an antialiased resize (mean absolute difference of at most 2 grey levels).

TorchXRayVision is not a dependency and brings its own versions of others: install it beside, not into, the
environment of the project.

    pip install --no-deps --target peers torchxrayvision scikit-image imageio lazy_loader tifffile
    PYTHONPATH=peers python benchmarks/decode.py

Against another version of the project, both in one run, in turn (JPEG, PNG and DICOM; peers are not needed):

    git worktree add ../before COMMIT
    python benchmarks/decode.py --against ../before/src
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from PIL import Image
from scipy.ndimage import gaussian_filter

from fairdx.data.decode import Form, decode_file

if TYPE_CHECKING:
    from collections.abc import Callable

FORM = Form(size=224, geometry="stretch")
HEIGHT, WIDTH = 3056, 2544
ROUNDS = 5


def radiograph(seed: int) -> Image.Image:
    """Structure at every scale, from the fields of the lungs down to the grain of the detector."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((HEIGHT, WIDTH))
    for scale in (1, 2, 4, 16, 64, 200):
        small = rng.normal(size=(HEIGHT // scale + 1, WIDTH // scale + 1))
        grown = Image.fromarray(gaussian_filter(small, 1).astype(np.float32)).resize((WIDTH, HEIGHT))
        picture += np.asarray(grown) * scale**0.8
    return Image.fromarray(np.uint8((picture - picture.min()) / np.ptp(picture) * 255))


def full(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).resize((224, 224), Image.Resampling.BILINEAR))


def ours(path: Path) -> np.ndarray:
    return decode_file(path, FORM)[0]


def limit(path: Path) -> np.ndarray:
    pixels = simplejpeg.decode_jpeg(path.read_bytes(), "GRAY", min_height=224, min_width=224)[..., 0]
    return np.asarray(Image.fromarray(pixels).resize((224, 224), Image.Resampling.BILINEAR))


def peer(path: Path) -> np.ndarray:
    import torchxrayvision

    loaded = torchxrayvision.datasets.imread(path)
    normalised = torchxrayvision.datasets.normalize(loaded, maxval=255, reshape=True)
    return np.asarray(torchxrayvision.datasets.XRayResizer(224)(normalised))


def seconds(function: Callable[[Path], np.ndarray], paths: list[Path]) -> float:
    start = time.perf_counter()
    for path in paths:
        function(path)
    return (time.perf_counter() - start) / len(paths)


def write_kinds(folder: Path) -> list[str]:
    """One radiograph as JPEG, as PNG of 8 and of 16 bits, and as DICOM with a window."""
    picture = radiograph(0)
    deep = Image.fromarray(np.asarray(picture).astype(np.uint16) * 16)
    picture.save(folder / "scan.jpg", quality=90)
    picture.save(folder / "scan.png", compress_level=1)
    deep.save(folder / "deep.png", compress_level=1)
    import pydicom
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, UID("1.2.3")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = pydicom.dataset.FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, "1.2.3"
    image.Rows, image.Columns, image.SamplesPerPixel = HEIGHT, WIDTH, 1
    image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.WindowCenter, image.WindowWidth, image.RescaleSlope, image.RescaleIntercept = 2000, 3000, 1, 0
    image.PixelData = np.asarray(deep).tobytes()
    image.save_as(folder / "scan.dcm", enforce_file_format=True)
    return ["scan.jpg", "scan.png", "deep.png", "scan.dcm"]


TIMED = """
import sys, time
from pathlib import Path
from fairdx.data.decode import Form, decode_file
path, form = Path(sys.argv[1]), Form(size=224)
decode_file(path, form)
start, rounds = time.process_time(), 0
while rounds < 3 or time.process_time() - start < 1:
    decode_file(path, form)
    rounds += 1
print((time.process_time() - start) / rounds)
"""


def against(other: str) -> None:
    """The processor time of this version over that of another, for each kind of file."""
    ours = str(Path(__file__).parents[1] / "src")
    with tempfile.TemporaryDirectory() as folder:
        for name in write_kinds(Path(folder)):
            times: dict[str, list[float]] = {ours: [], other: []}
            for _ in range(ROUNDS):  # in turn, so that a busy machine slows both alike
                for source, measured in times.items():
                    command = [sys.executable, "-c", TIMED, str(Path(folder) / name)]
                    environment = {**os.environ, "PYTHONPATH": source}
                    done = subprocess.run(
                        command, env=environment, capture_output=True, text=True, check=True
                    )
                    measured.append(float(done.stdout))
            here, there = (float(np.median(times[source])) for source in (ours, other))
            print(
                f"{name}: {here * 1000:.1f} ms, the other version {there * 1000:.1f} ms: {here / there:.2f}"
            )


def main() -> None:
    if sys.argv[1:2] == ["--against"]:
        against(sys.argv[2])
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{seed}.jpg" for seed in range(3)]
        for seed, path in enumerate(paths):
            radiograph(seed).save(path, quality=90)
        ways = {"ours": ours, "simplejpeg": limit, "full decode": full, "TorchXRayVision": peer}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):  # in turn, so that a busy machine slows all alike
            for name, way in ways.items():
                times[name].append(seconds(way, paths))
        median = {name: float(np.median(values)) for name, values in times.items()}
        error = max(np.abs(ours(path).astype(int) - full(path)).mean() for path in paths)
    for name, value in median.items():
        print(f"{name}: {value * 1000:.1f} ms per image")
    faster, slower = median["TorchXRayVision"] / median["ours"], median["ours"] / median["simplejpeg"]
    print(f"{faster:.1f} times faster than TorchXRayVision (at least 10)")
    print(f"{slower:.2f} times the time of simplejpeg's scaled decode (at most 1.3)")
    print(f"mean absolute difference from the full decode: {error:.2f} grey levels (at most 2)")
    if faster < 10 or slower > 1.3 or error > 2:
        sys.exit("over a limit")


if __name__ == "__main__":
    main()
