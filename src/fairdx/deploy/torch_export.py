"""Models for PyTorch: a program of torch.export, TorchScript, or weights alone as safetensors."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import torch
from safetensors import torch as safetensors
from torch import Tensor, fx, nn

from fairdx.core.errors import InputError
from fairdx.deploy.program import First, Program, exporting

DESCRIPTION: Final = "fairdx.json"
"""Name of the description inside an exported program."""
Run = Callable[[Tensor], tuple[Tensor, ...]]


def write_program(program: Program, file: Path) -> None:
    """Writes a program of `torch.export` (`.pt2`) with a free batch size.

    Raises:
        InputError: The program cannot be written so.
    """
    if program.holds_script:
        raise InputError("a model that is TorchScript cannot become a program of torch.export; try onnx")
    with exporting("a program of torch.export"):
        exported = torch.export.export(
            program.module, (program.example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
        )
        for module in exported.graph_module.modules():
            if isinstance(module, fx.GraphModule):
                for node in module.graph.nodes:
                    node.meta.pop("stack_trace", None)  # it names files of this machine
        content = io.BytesIO()  # on a full disk torch would end the process
        torch.export.save(exported, content, extra_files={DESCRIPTION: program.describe()})
    file.write_bytes(content.getbuffer())


def open_program(file: Path) -> Run:
    """Returns the program of a file, images (N, C, H, W) to a tuple of tensors."""
    run: Run = torch.export.load(file).module()
    return run


def write_weights(program: Program, file: Path) -> None:
    """Writes all weights into one safetensors file; tensors that share memory are there once.

    Raises:
        InputError: They cannot be written.
    """
    with exporting("safetensors"):
        safetensors.save_model(program.module, str(file), {"fairdx": program.describe()})


def open_weights(program: Program, file: Path) -> Run:
    """Empties a program and fills it from a file; what the file lacks stays empty, and shows."""
    with torch.no_grad():
        for tensor in program.module.state_dict().values():
            tensor.zero_()
    safetensors.load_model(program.module, str(file))
    run: Run = program.module
    return run


def write_script(program: Program, file: Path, extra: dict[str, str]) -> None:
    """Writes TorchScript that returns the first output alone.

    Args:
        program: It.
        file: Where to.
        extra: Texts to keep in the file, by name.

    Raises:
        InputError: The program cannot be written so.
    """
    content = io.BytesIO()  # on a full disk torch would end the process
    with exporting("TorchScript"):
        module: nn.Module = First(program.module).eval()
        traced = torch.jit.trace(module, program.example)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, content, _extra_files=extra)
    _without_sources(content, file)


def open_script(file: Path) -> Run:
    """Returns the TorchScript of a file that we wrote, as a function to a tuple of one tensor."""
    with exporting("TorchScript"):
        module = torch.jit.load(str(file), map_location="cpu")  # type: ignore[no-untyped-call]
    return lambda image: (module(image),)


def _without_sources(traced: IO[bytes], file: Path) -> None:
    """Copies TorchScript but for its debugging tables, which name the source files of this machine."""
    with zipfile.ZipFile(traced) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                new.writestr(entry.filename, old.read(entry))
