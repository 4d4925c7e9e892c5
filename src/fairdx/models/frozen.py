"""A model that somebody else trained, behind the interface of our own: its weights never move."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf
from typing import Any, Final, Self, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import interpolate, log_softmax

from fairdx.core.errors import InputError
from fairdx.models.contract import Contract
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel, Edit

AUTO: Final = "auto"
SMALLEST: Final = 1e-7
"""Probabilities are kept so far from 0 and 1: beyond, 32 bits have no logit."""
LOWEST: Final = -104.0
"""The logarithm of the smallest number of 32 bits: of a probability of 0 there is none."""
CLOSE: Final = 1e-3
"""What rounding may add to a probability: some models compute in 16 bits."""
_RANGES: Final = {
    "logits": (-inf, inf),
    "probabilities": (0.0, 1.0),
    "log_probabilities": (-inf, 0.0),
}
_LUMA: Final = (0.299, 0.587, 0.114)


class FrozenModel(DiagnosisModel):
    """Any network from images to scores, with its input contract.

    Gradients flow through it to the image, as far as its operations have any. It stays in evaluation mode.

    Args:
        network: The network as it came; called with one tensor.
        contract: What it takes and gives.
        classes: Classes of the label.
        size: Height and width of the images that it will be given.
        trainable: Whether a method may train it anew.

    Raises:
        InputError: The network does not run on such images, its output is not what the contract says, or
            there is no layer of the name that the contract gives.
    """

    def __init__(
        self, network: nn.Module, contract: Contract, *, classes: int, size: int, trainable: bool = False
    ) -> None:
        super().__init__()
        self.network, self.contract, self.classes, self.trainable = network, contract, classes, trainable
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (contract.mean, contract.std))
        self._mean: Tensor
        self._std: Tensor
        self.register_buffer("_mean", mean, persistent=False)
        self.register_buffer("_std", std, persistent=False)
        with suppress(NotImplementedError):  # an exported program has no modes
            network.eval()
        self.training = False
        self.layer_name: str | None = None
        self._probe(size)

    def train(self, mode: bool = True) -> Self:
        """Switches nothing but what may be trained: programs of operations have no modes."""
        if self.trainable:
            return super().train(mode)
        self.training = False
        return self

    @property
    def _layer(self) -> nn.Module | None:
        return None if self.layer_name is None else self.network.get_submodule(self.layer_name)

    @contextmanager
    def under(self, contract: Contract) -> Iterator[None]:
        """Puts another range, mean, deviation or order of colours in place for a block, to compare them."""
        own = self.contract, self._mean, self._std
        self.contract = contract
        for name, values in (("_mean", contract.mean), ("_std", contract.std)):
            setattr(self, name, torch.tensor(values, device=own[1].device).view(1, -1, 1, 1))
        try:
            yield
        finally:
            self.contract, self._mean, self._std = own

    def forward(self, image: Tensor, edit: Edit | None = None) -> Diagnosis:
        """Diagnoses images (N, C, H, W) in [0, 1]; see `DiagnosisModel`."""
        if edit is not None and self._layer is None:
            raise InputError("the frozen model shows no embedding that could be changed")
        with _tapped(self._layer, edit) as seen:
            output = self.network(self.enter(image))
        embedding = seen[-1].float() if seen else None
        return Diagnosis(embedding, self._leave(_one(output).float()))

    def enter(self, image: Tensor) -> Tensor:
        """What the network takes for images in [0, 1]."""
        contract = self.contract
        if image.shape[1] != contract.channels:
            image = _recolour(image, contract.channels)
        if contract.size is not None and image.shape[-2:] != (contract.size, contract.size):
            shape = (contract.size, contract.size)
            image = interpolate(image, size=shape, mode="bilinear", align_corners=False, antialias=True)
        scaled = contract.low + image * (contract.high - contract.low)
        taken = (scaled - self._mean) / self._std
        if contract.colours == "BGR":
            taken = taken.flip(1)
        return taken.permute(0, 2, 3, 1).contiguous() if contract.layout == "NHWC" else taken

    def _leave(self, output: Tensor) -> Tensor:
        """Class logits (N, classes) of the network's output (N, columns)."""
        contract, columns = self.contract, self.contract.columns()
        if output.ndim == 1:
            output = output[:, None]
        output = output.flatten(1)
        if contract.separate or output.shape[1] == 1:
            chosen = output if not columns else output[:, list(columns)]
            odds = _log_odds(chosen, contract.output).amax(1)
            return torch.stack([torch.zeros_like(odds), odds], dim=1)
        logs = _log_probabilities(output, contract.output)
        if not columns:
            return logs
        others = [column for column in range(output.shape[1]) if column not in columns]
        return torch.stack([logs[:, others].logsumexp(1), logs[:, list(columns)].logsumexp(1)], dim=1)

    @torch.no_grad()
    def _probe(self, size: int) -> None:
        """Runs two black images through: finds the embedding, and what does not fit."""
        contract = self.contract
        device = next((p.device for p in self.network.parameters()), torch.device("cpu"))
        image = torch.zeros(2, contract.channels, size, size, device=device)
        try:
            for count in (1, 3):  # some programs take only as many images as they were exported with
                self.network(self.enter(image[:1].expand(count, -1, -1, -1)))
            with _watched(self.network) as calls:
                output = _one(self.network(self.enter(image)))
        except InputError:
            raise
        except Exception as error:
            taken = contract.size or size
            raise InputError(
                f"the model does not run on one, two and three images of {contract.channels} x {taken} x "
                f"{taken} ({contract.layout}, 32-bit floats): {str(error).strip().splitlines()[-1]}; change "
                "the contract, or export it for such, with a free batch size"
            ) from error
        self._check_output(output)
        self.layer_name = _embedding_layer(contract.embedding, calls)
        if self.layer_name is not None:
            self.features = int(self(image).embedding.shape[1])

    def _check_output(self, output: Tensor) -> None:
        contract, shape = self.contract, tuple(output.shape)
        if output.shape[0] != 2 or (output.ndim > 2 and output.flatten(1).shape[1] != output.shape[1]):
            raise InputError(
                f"of two images the model makes an output of shape {shape}, not two rows of scores"
            )
        count = 1 if output.ndim == 1 else output.flatten(1).shape[1]
        if contract.outputs and len(contract.outputs) != count:
            raise InputError(f"`outputs` names {len(contract.outputs)} columns, and the model has {count}")
        wrong = [column for column in contract.columns() if not 0 <= column < count]
        if wrong:
            raise InputError(f"`finding`: there is no output column {wrong[0]}; the model has {count}")
        low, high = _RANGES[contract.output]
        if (output < low - CLOSE).any() or (output > high + CLOSE).any():
            raise InputError(
                f"the contract calls the output {contract.output.replace('_', ' ')}, and of black images the "
                f"model makes values from {output.min():.3g} to {output.max():.3g}: give another `output`"
            )
        made = 2 if contract.finding or count == 1 or contract.separate else count
        if contract.separate and count > 1 and not contract.finding:
            raise InputError(f"the model has {count} separate outputs; say in `finding` which one is meant")
        if contract.finding and not contract.separate and len(set(contract.columns())) == count:
            raise InputError("`finding` holds every output column: nothing would be left for the others")
        if made != self.classes:
            raise InputError(
                f"the label has {self.classes} classes, and the model's {count} output columns make {made}; "
                "say in `finding` which columns are meant, or choose another label"
            )


def _one(output: Any) -> Tensor:
    """The scores among what a network returns."""
    while not isinstance(output, Tensor):
        if isinstance(output, dict) and len(output) == 1:
            output = next(iter(output.values()))
        elif isinstance(output, list | tuple) and len(output) == 1:
            output = output[0]
        elif hasattr(output, "logits"):
            output = output.logits
        else:
            raise InputError(
                f"the model returns {type(output).__name__}, not one tensor of scores; wrap it in a module "
                "that returns the scores alone"
            )
    return output


def _recolour(image: Tensor, channels: int) -> Tensor:
    if channels == 3:
        return image.expand(-1, 3, -1, -1)
    weight = torch.tensor(_LUMA, device=image.device, dtype=image.dtype).view(1, 3, 1, 1)
    return (image * weight).sum(1, keepdim=True)


def _log_odds(output: Tensor, kind: str) -> Tensor:
    """Log p - log (1 - p) of columns that are findings of their own."""
    if kind == "logits":
        return output
    p = output.exp() if kind == "log_probabilities" else output
    return torch.logit(p, eps=SMALLEST)


def _log_probabilities(output: Tensor, kind: str) -> Tensor:
    """Log p of columns that are classes which exclude each other."""
    if kind == "logits":
        return log_softmax(output, dim=1)
    if kind == "log_probabilities":
        return output.clamp_min(LOWEST)
    return output.clamp_min(SMALLEST).log()


@contextmanager
def _tapped(layer: nn.Module | None, edit: Edit | None) -> Iterator[list[Tensor]]:
    """Collects, and changes, what goes into a layer; the hook leaves with the block."""
    seen: list[Tensor] = []
    if layer is None:
        yield seen
        return

    def tap(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        embedding = inputs[0].flatten(1)
        if edit is not None:
            embedding = edit(embedding.float()).to(inputs[0].dtype)
        seen.append(embedding)
        return (embedding.view(inputs[0].shape), *inputs[1:])

    handle = layer.register_forward_pre_hook(tap)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def _watched(network: nn.Module) -> Iterator[list[tuple[str, nn.Module, tuple[int, ...]]]]:
    """Notes which layers ran, in order, and the shape of what went into them."""
    calls: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor):
                calls.append((name, module, tuple(inputs[0].shape)))

        return hook

    handles = [
        module.register_forward_pre_hook(note(name))
        for name, module in network.named_modules()
        if name and not isinstance(module, torch.jit.ScriptModule)
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _embedding_layer(name: str | None, calls: list[tuple[str, nn.Module, tuple[int, ...]]]) -> str | None:
    """Name of the layer whose input is the embedding."""
    if name is None:
        return None
    if name != AUTO:
        if any(called == name for called, _, _ in calls):
            return name
        known = ", ".join(dict.fromkeys(called for called, _, shape in calls if len(shape) == 2)) or "none"
        raise InputError(
            f"`embedding`: no layer `{name}` runs in the model; layers that take one vector an image: {known}"
        )
    linear = [called for called, module, shape in calls if _is_linear(module) and len(shape) == 2]
    return linear[-1] if linear else None


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Tap) or type(module).__name__ == "OnnxMatMul"


class Tap(nn.Module):
    """Stands in a program of operations where something passes that others want to see."""

    def forward(self, passing: Tensor) -> Tensor:
        """Returns what it is given."""
        return passing


def with_tap(program: fx.GraphModule) -> fx.GraphModule:
    """Puts a `Tap` where an exported program, which has no layers, would have one worth looking at.

    That is before the last linear operation, where the embedding passes (`embedding`), and after every
    operation whose result could be a picture or a row of tokens (`at_` and the operation's name).

    Args:
        program: What `ExportedProgram.module()` returns; changed in place.
    """
    linear = (torch.ops.aten.linear.default, torch.ops.aten.addmm.default)
    nodes = [node for node in program.graph.nodes if node.target in linear]
    if nodes:
        last = nodes[-1]
        place = 0 if last.target == linear[0] else 1
        program.add_submodule("embedding", Tap())
        with program.graph.inserting_before(last):
            tap = program.graph.call_module("embedding", (last.args[place],))
        arguments = list(last.args)
        arguments[place] = cast(Any, tap)
        last.args = tuple(arguments)
    for node in list(program.graph.nodes):
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, Tensor) and value.ndim in (3, 4):
            name = f"at_{node.name}"
            program.add_submodule(name, Tap())
            with program.graph.inserting_after(node):
                seen = program.graph.call_module(name, (node,))
            node.replace_all_uses_with(seen, delete_user_cb=lambda user, seen=seen: user is not seen)
    program.recompile()
    return program
