"""Weights whose tensors have other names than timm's, given the names that timm has for them."""

from collections.abc import Mapping
from pathlib import Path

import timm
from torch import Tensor

from fairdx.core.errors import InputError, writing_to
from fairdx.core.files import write_whole
from fairdx.models.networks import read_weights

_COUNTER = "num_batches_tracked"
"""What BatchNorm counts; some libraries leave it out, and nothing that is frozen looks at it."""


def rename_by_order(weights: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives tensors the names of another table that has the same tensors in the same order.

    Another implementation of a network usually makes its layers in the same order, and so lists their tensors
    in the same order, under names of its own.

    Args:
        weights: Tensors under foreign names, in the order in which their network made them.
        like: Tensors of the same network under the names that are wanted.

    Returns:
        The tensors of `weights` under the names of `like`.

    Raises:
        InputError: A tensor is missing or has another shape; the message names the first.
    """
    foreign = [(name, tensor) for name, tensor in weights.items() if not name.endswith(_COUNTER)]
    wanted = [(name, tensor) for name, tensor in like.items() if not name.endswith(_COUNTER)]
    for place, ((theirs, given), (ours, expected)) in enumerate(zip(foreign, wanted, strict=False), start=1):
        if given.shape != expected.shape:
            raise InputError(
                f"tensor {place} is `{theirs}` of shape {tuple(given.shape)}, and `{ours}` has "
                f"{tuple(expected.shape)}: another network, or another order"
            )
    if len(foreign) != len(wanted):
        raise InputError(f"there are {len(foreign)} tensors, and the network has {len(wanted)}")
    return {ours: given for (_, given), (ours, _) in zip(foreign, wanted, strict=True)}


def convert_weights(source: Path, encoder: str, target: Path) -> int:
    """Writes a file of weights with the names that timm has for them, as safetensors.

    Same shapes in the same order are no proof that it is the same network: compare scores of a few images
    with the library that the weights come from.

    Args:
        source: Weights; a pickle is read as plain tensors or not at all.
        encoder: The network's name in timm.
        target: The file to write.

    Returns:
        How many tensors were written.

    Raises:
        InputError: The weights cannot be read, timm has no such network, or they are not its.
    """
    from safetensors.torch import save

    if not timm.is_model(encoder):
        raise InputError(f"timm has no model `{encoder}`")
    try:
        renamed = rename_by_order(read_weights(source), timm.create_model(encoder).state_dict())
    except InputError as error:
        raise InputError(f"{source}, as weights of {encoder}: {error}") from error
    plain = {name: tensor.contiguous() for name, tensor in renamed.items()}
    with writing_to(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, save(plain))
    return len(plain)
