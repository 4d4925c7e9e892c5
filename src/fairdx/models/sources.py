"""Where a model that was trained elsewhere comes from: code, an exported program, ONNX, or weights."""

import io
import json
import sys
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from re import fullmatch
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from fairdx.core.config import Config
from fairdx.core.errors import InputError
from fairdx.models.card import FrozenCard, file_hash
from fairdx.models.contract import Contract
from fairdx.models.diagnosis import weights_hash
from fairdx.models.frozen import FrozenModel, with_tap
from fairdx.models.networks import read_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["architecture", "module", "torch-export", "torchscript", "onnx"]

_KINDS: Final[dict[str, Kind]] = {
    ".onnx": "onnx",
    ".pt2": "torch-export",
    ".ts": "torchscript",
    ".torchscript": "torchscript",
    ".jit": "torchscript",
    ".pt": "torchscript",
}
_WEIGHTS: Final = (".safetensors", ".pth", ".bin", ".ckpt")


class GivenModel(Config):
    """A model that was trained elsewhere and stays as it is; the table `[model]` with a `source`."""

    source: str
    """A file (`model.onnx`, `model.pt2`, `model.ts`, or weights as `.safetensors`), or
    `package.module:factory`, where the factory returns a `torch.nn.Module`."""
    architecture: str | None = None
    """Of a file of weights: `timm:NAME` or `torchvision:NAME`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """How the architecture or the factory is called, as `{ in_chans = 1 }`. The number of classes is read
    from the weights where it is not given."""
    trust: bool = False
    """Whether a file may run code of its own: TorchScript, and exported programs with pickled parts."""
    contract: Contract = Contract()
    """What it takes and gives."""

    @property
    def kind(self) -> Kind:
        """How it is loaded.

        Raises:
            InputError: It is nothing that could be loaded.
        """
        ending = Path(self.source).suffix.lower()
        if self.architecture is not None:
            return "architecture"
        if ending in _KINDS:
            return _KINDS[ending]
        if ending in _WEIGHTS:
            raise InputError(
                f"{self.source} holds weights alone: name the network as `architecture`, as in "
                '`architecture = "torchvision:densenet121"`'
            )
        if fullmatch(r"[\w.]+:[\w.]+", self.source):
            return "module"
        raise InputError(
            f"`{self.source}` is no model: give a file ({', '.join(_KINDS)}, or .safetensors with "
            "`architecture`), or `package.module:factory`"
        )


def load_given(config: GivenModel, *, classes: int, size: int) -> FrozenModel:
    """Loads a model that was trained elsewhere.

    Args:
        config: Where it is and what it takes.
        classes: Classes of the label.
        size: Height and width of the images that it will be given.

    Raises:
        InputError: It cannot be found, loaded or run; the message says why.
    """
    kind = config.kind
    network = _LOADERS[kind](config)
    trainable = kind in ("architecture", "module")
    return FrozenModel(network, config.contract, classes=classes, size=size, trainable=trainable)


def frozen_card(config: GivenModel, model: FrozenModel) -> FrozenCard:
    """Returns what a model folder has to say of it."""
    file = Path(config.source)
    return FrozenCard(
        source=config.source if config.kind == "module" else str(file.resolve()),
        kind=config.kind,
        sha256=None if config.kind == "module" else file_hash(file),
        contract=config.contract,
        inside=config.kind == "architecture",
        options={**config.options, **({"architecture": config.architecture} if config.architecture else {})},
        weights_sha256=weights_hash(model),
    )


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"there is no model file {path}")


def _load_module(config: GivenModel) -> nn.Module:
    name, _, attribute = config.source.partition(":")
    if "" not in sys.path:  # as `python -m` has it, and an installed command does not
        sys.path.insert(0, "")
    try:
        found: Any = import_module(name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise InputError(f"`{config.source}` cannot be imported: {error}") from error
    network = found if isinstance(found, nn.Module) else found(**config.options)
    if not isinstance(network, nn.Module):
        raise InputError(f"`{config.source}` returns {type(network).__name__}, not a torch.nn.Module")
    return network


def _load_onnx(config: GivenModel) -> nn.Module:
    _require_file(Path(config.source))
    try:
        import onnx
        from onnx2torch import convert
    except ImportError as error:
        raise InputError(
            f"{config.source}: ONNX models need onnx and onnx2torch; run `pip install 'fairdx[onnx]'`"
        ) from error
    try:
        program = onnx.load(config.source)
    except Exception as error:
        raise InputError(f"{config.source} is not an ONNX file: {error}") from error
    if len(program.graph.input) - len(program.graph.initializer) > 1 and len(_inputs(program)) > 1:
        raise InputError(f"{config.source} takes {len(_inputs(program))} inputs; one, the image, is possible")
    try:
        network: nn.Module = convert(program)
    except NotImplementedError as error:
        missing = ", ".join(_unsupported(program)) or str(error)
        raise InputError(
            f"{config.source} cannot be converted to torch, so no gradient flows through it: onnx2torch does "
            f"not support {missing}"
        ) from error
    return network


def _inputs(program: Any) -> list[str]:
    given = {tensor.name for tensor in program.graph.initializer}
    return [value.name for value in program.graph.input if value.name not in given]


def _unsupported(program: Any) -> list[str]:
    """The operators that the converter does not know, by name and version."""
    from onnx2torch.node_converters.registry import get_converter

    versions = {entry.domain: entry.version for entry in program.opset_import}
    unknown = []
    for node in program.graph.node:
        version = versions.get(node.domain, 1)
        try:
            get_converter(operation_type=node.op_type, version=version, domain=node.domain)
        except NotImplementedError:
            unknown.append(f"{node.op_type} (opset {version})")
    return list(dict.fromkeys(unknown))


def _load_export(config: GivenModel) -> nn.Module:
    path = Path(config.source)
    _require_file(path)
    if not config.trust:
        _refuse_pickles(path)
    try:
        program = torch.export.load(path).module()
    except Exception as error:
        raise InputError(f"{path} is not a program of torch.export: {_last_line(error)}") from error
    return with_tap(program)


def _refuse_pickles(path: Path) -> None:
    """`torch.export.load` unpickles what it finds pickled; without trust such a file is not loaded."""
    try:
        with zipfile.ZipFile(path) as archive:
            problem = _pickled_part(archive)
    except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not a program of torch.export: {_last_line(error)}") from error
    if problem:
        raise InputError(
            f"{path} holds {problem}, and loading it could run code of whoever made it; if you trust them, "
            "set model.trust=true"
        )


def _pickled_part(archive: zipfile.ZipFile) -> str:
    """What in an archive is neither JSON nor plain numbers; empty if nothing is."""
    numbers = r"data/(weights|constants)/(weight_\d+|tensor_\d+|\w+_config\.json)|data/sample_inputs/\w+\.pt"
    texts = r"models/\w+\.json|archive_format|archive_version|\.data/\w+|byteorder|extra/.*"
    plain = rf"[^/]+/({numbers}|{texts})"
    for name in archive.namelist():
        if fullmatch(plain, name) is None:
            return f"the part {name}"
        if name.endswith("_config.json"):
            entries = json.loads(archive.read(name))["config"]
            if any(entry.get("use_pickle") for entry in entries.values()):
                return "pickled weights"
        if "/sample_inputs/" in name:
            try:
                torch.load(io.BytesIO(archive.read(name)), weights_only=True)
            except Exception:
                return "pickled sample inputs"
    return ""


def _load_script(config: GivenModel) -> nn.Module:
    path = Path(config.source)
    _require_file(path)
    if not config.trust:
        raise InputError(
            f"{path} is TorchScript: loading it runs code of whoever made it; if you trust them, set "
            "model.trust=true"
        )
    try:
        network: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:
        raise InputError(f"{path} is not TorchScript: {_last_line(error)}") from error
    return network


def _load_architecture(config: GivenModel) -> nn.Module:
    weights = read_weights(Path(config.source))
    network = build_architecture(str(config.architecture), config.options, weights)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).splitlines()
        problem = lines[1 if len(lines) > 1 else 0].strip()
        raise InputError(
            f"{config.source} does not hold the weights of {config.architecture}: {problem}"
        ) from error
    return network


def build_architecture(name: str, options: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """Builds a network of a library, with as many outputs as its weights have.

    Args:
        name: `timm:NAME` or `torchvision:NAME`.
        options: Passed on to the library.
        weights: What will be loaded into it.

    Raises:
        InputError: There is no such library or network, or the options do not suit it.
    """
    library, _, network = name.partition(":")
    last = [tensor for key, tensor in weights.items() if key.endswith("bias")]
    if "num_classes" not in options and last:
        options = {**options, "num_classes": len(last[-1])}
    try:
        if library == "timm":
            import timm

            network_: nn.Module = timm.create_model(network, pretrained=False, **options)
            return network_
        if library == "torchvision":
            import torchvision

            return cast(nn.Module, torchvision.models.get_model(network, weights=None, **options))
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"`architecture`: {name} cannot be built: {_last_line(error)}") from error
    raise InputError(f'`architecture = "{name}"`: give timm:NAME or torchvision:NAME')


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


_LOADERS: Final[dict[Kind, Callable[[GivenModel], nn.Module]]] = {
    "architecture": _load_architecture,
    "module": _load_module,
    "torch-export": _load_export,
    "torchscript": _load_script,
    "onnx": _load_onnx,
}


@torch.no_grad()
def onnx_difference(config: GivenModel, model: FrozenModel, images: Tensor) -> float:
    """Returns the largest difference between ONNX Runtime and the converted model on the raw output.

    Args:
        config: Where the ONNX file is.
        model: The converted model.
        images: Shape (N, C, H, W), in [0, 1].

    Raises:
        InputError: ONNX Runtime is not installed, or cannot run the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "checking an ONNX model needs ONNX Runtime; run `pip install 'fairdx[onnx]'`"
        ) from error
    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(config.source, providers=["CPUExecutionProvider"])
    taken = model.enter(images.cpu().float())
    expected: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: taken.numpy()})[0]
    got = model.network(taken.to(images.device)).cpu()
    return float((got.flatten() - torch.from_numpy(expected).flatten()).abs().max())
