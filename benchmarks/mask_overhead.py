"""What a mask costs at inference: its time as a share of the time of the model that it is put in front of.

    OMP_NUM_THREADS=1 python benchmarks/mask_overhead.py

ResNet50, images of 224 x 224, batches of 16, float32 on the CPU. Model and masks take turns in one run.
Beside the mask stands an earlier form, which convolved after enlarging and ended in a pixel shuffle: it cost
more and left a checkerboard.
"""

import argparse
import time
from functools import partial
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle, pixel_unshuffle, silu

from fairdx.models.networks import Diagnoser, Encoder, MaskGenerator, apply_mask


class Shuffled(nn.Module):
    """The earlier form, for even sizes."""

    def __init__(self, channels: int, *, width: int = 24, depth: int = 2) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.enter = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.down = nn.ModuleList(_block(a, b, 2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_block(a + b, a, 1) for a, b in reversed(list(pairwise(widths))))
        self.leave = nn.Conv2d(width, 4 * channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Returns the unbounded mask."""
        skips = [silu(self.enter(pixel_unshuffle(image - 0.5, 2)))]
        for down in self.down:
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in self.up:
            skip = skips.pop()
            x = up(torch.cat([skip, interpolate(x, size=skip.shape[-2:], mode="nearest")], dim=1))
        return pixel_shuffle(self.leave(x), 2)


def _block(channels: int, width: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(8, width), nn.SiLU(inplace=True))


def seconds(module: nn.Module, image: Tensor) -> float:
    """Seconds of one batch: of a diagnosis by the model, or of masking by a generator."""
    work = partial(module, image)
    if not isinstance(module, Diagnoser):
        work = partial(apply_mask, image, module, eta=0.2)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    model = Diagnoser(Encoder(options.backbone, channels=3, size=options.size)).eval()
    masks = {"mask": MaskGenerator(3).eval(), "pixel shuffle": Shuffled(3).eval()}
    image = torch.rand(options.batch, 3, options.size, options.size)
    shares: dict[str, list[float]] = {name: [] for name in masks}
    with torch.inference_mode():
        for turn in range(options.rounds + 1):
            own = seconds(model, image)
            for name, mask in masks.items():
                taken = seconds(mask, image) / own
                if turn > 0:  # the first is to warm up
                    shares[name].append(taken)
    for name, mask in masks.items():
        low, high = min(shares[name]), max(shares[name])
        count = sum(weight.numel() for weight in mask.parameters())
        share = f"{median(shares[name]):.1%} of the model's time (round by round {low:.1%} to {high:.1%})"
        print(f"{name}: {share}, {count:,} parameters")


if __name__ == "__main__":
    main()
