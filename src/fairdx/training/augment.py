"""Random changes of training images that leave the diagnosis as it is."""

import torch
from torch import Tensor


def augment(image: Tensor, *, shift: int, flip: bool, turn: bool = False) -> Tensor:
    """Shifts each image at random by up to `shift` pixels (edges repeat) and mirrors it with probability 1/2.

    Args:
        image: Shape (N, C, H, W).
        shift: Largest shift along each axis, in pixels.
        flip: Whether to mirror left to right.
        turn: Whether to turn by 0, 90, 180 or 270 degrees, with equal probability; for square images.
    """
    count, _, height, width = image.shape
    if shift > 0:
        padded = torch.nn.functional.pad(image, (shift,) * 4, mode="replicate")
        moves = torch.randint(0, 2 * shift + 1, (2, count, 1), device=image.device)
        rows = moves[0] + torch.arange(height, device=image.device)
        columns = moves[1] + torch.arange(width, device=image.device)
        image = padded[
            torch.arange(count, device=image.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]
        ]
        image = image.permute(0, 3, 1, 2)
    if flip:
        mirrored = torch.rand(count, 1, 1, 1, device=image.device) < 0.5
        image = torch.where(mirrored, image.flip(3), image)
    if turn:
        quarter, half = torch.rand(2, count, 1, 1, 1, device=image.device) < 0.5
        image = torch.where(quarter, image.transpose(2, 3).flip(2), image)
        image = torch.where(half, image.flip((2, 3)), image)
    return image.contiguous(memory_format=torch.channels_last)
