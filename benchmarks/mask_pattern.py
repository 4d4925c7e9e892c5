"""How much of a checkerboard the masks of finished runs show.

    python benchmarks/mask_pattern.py demo

Of the test images that a run keeps beside their masked versions (`samples.npz`), of an even size. A
pattern of 2 x 2 pixels is a line of a mask's spectrum at a Nyquist frequency. The first figure is the
energy of that bin as a multiple of the median of its 8 neighbours, at the strongest of the three
frequencies; without a pattern it is of the order of 1. The second is the variance between the means of
the four phases of the mean mask, as a share of that mask's variance.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairdx.runs.files import SAMPLES


def strongest_line(masks: NDArray[np.float64]) -> float:
    """Energy at the strongest Nyquist frequency over the median of its neighbours, for masks (n, h, w)."""
    height, width = masks.shape[-2:]
    window = np.outer(np.hanning(height + 1)[:-1], np.hanning(width + 1)[:-1])
    centred = masks - masks.mean((-2, -1), keepdims=True)
    energy = np.abs(np.fft.fft2(centred * window) ** 2).mean(0)
    ratios = []
    for row, column in ((height // 2, 0), (0, width // 2), (height // 2, width // 2)):
        # Every second bin: the window spreads each over the next.
        near = [energy[(row + i) % height, (column + j) % width] for i in (-2, 0, 2) for j in (-2, 0, 2)]
        ratios.append(near.pop(4) / np.median(near))
    return float(max(ratios))


def phase_share(masks: NDArray[np.float64]) -> float:
    """Variance between the four phases of the mean of masks (n, h, w), as a share of the mean's variance."""
    mean = masks.mean(0)
    phases = [mean[i::2, j::2].mean() for i in (0, 1) for j in (0, 1)]
    return float(np.var(phases) / mean.var())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders that `fairdx demo` or `fairdx run` wrote")
    for run in parser.parse_args().runs:
        with np.load(run / SAMPLES) as samples:
            masks = (samples["masked"].astype(float) - samples["image"]).mean(1)
        print(f"{run}: strongest line {strongest_line(masks):.3g}, between phases {phase_share(masks):.2%}")


if __name__ == "__main__":
    main()
