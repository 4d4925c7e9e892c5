"""Where a model that was trained elsewhere comes from: code, an exported program, ONNX, or weights."""

import io
import json
import sys
import warnings
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from re import fullmatch
from typing import TYPE_CHECKING, Any, Final, Literal

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
from fairdx.models.onnx_program import load_onnx

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["architecture", "module", "memory", "torch-export", "torchscript", "onnx"]

MEMORY: Final = "memory:"
"""Before the name of the class of a network that somebody holds in memory."""

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
        if self.source.startswith(MEMORY):
            return "memory"
        if fullmatch(r"[\w.]+:[\w.]+", self.source):
            return "module"
        raise InputError(
            f"`{self.source}` is no model: give a file ({', '.join(_KINDS)}, or .safetensors with "
            "`architecture`), or `package.module:factory`"
        )


def load_given(
    config: GivenModel, *, classes: int, size: int, network: nn.Module | None = None
) -> FrozenModel:
    """Loads a model that was trained elsewhere.

    Args:
        config: Where it is and what it takes.
        classes: Classes of the label.
        size: Height and width of the images that it will be given.
        network: The model itself, where `config` says that it is in memory.

    Raises:
        InputError: It cannot be found, loaded or run; the message says why.
    """
    kind = config.kind
    if kind == "memory" and network is None:
        raise InputError(
            f"the model {config.source.removeprefix(MEMORY)} was in memory; give it as `network`"
        )
    if kind != "memory" or network is None:
        network = _LOADERS[kind](config)
    trainable = kind in ("architecture", "module", "memory")
    return FrozenModel(network, config.contract, classes=classes, size=size, trainable=trainable)


def frozen_card(config: GivenModel, model: FrozenModel) -> FrozenCard:
    """Returns what a model folder has to say of it."""
    file, code = Path(config.source), config.kind in ("module", "memory")
    return FrozenCard(
        source=config.source if code else str(file.resolve()),
        kind=config.kind,
        sha256=None if code else file_hash(file),
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
    except (Exception, SystemExit) as error:  # somebody's code may raise anything, and must not end us
        raise InputError(f"`{config.source}` cannot be imported: {_told(error)}") from error
    if not callable(found):
        raise InputError(f"`{config.source}` is of type {type(found).__name__}, and makes no torch.nn.Module")
    try:
        network = found if isinstance(found, nn.Module) else found(**config.options)
    except (Exception, SystemExit) as error:
        raise InputError(f"`{config.source}` makes no network: {_told(error)}") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"`{config.source}` returns {type(network).__name__}, not a torch.nn.Module")
    return network


def _load_onnx(config: GivenModel) -> nn.Module:
    _require_file(Path(config.source))
    return load_onnx(Path(config.source))


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is deprecated: hospitals have such files
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
    if library not in _LIBRARIES:
        raise InputError(f'`architecture = "{name}"`: give timm:NAME or torchvision:NAME')
    try:
        built = _LIBRARIES[library](network, options)
        linear = [key for key, module in built.named_modules() if isinstance(module, nn.Linear)]
        head = weights.get(f"{linear[-1]}.weight") if linear else None
        if "num_classes" not in options and head is not None:
            built = _LIBRARIES[library](network, {**options, "num_classes": len(head)})
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"`architecture`: {name} cannot be built: {_last_line(error)}") from error
    return built


def _timm(name: str, options: dict[str, Any]) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(name, pretrained=False, **options)
    return network


def _torchvision(name: str, options: dict[str, Any]) -> nn.Module:
    import torchvision

    network: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return network


_LIBRARIES: Final[dict[str, Callable[[str, dict[str, Any]], nn.Module]]] = {
    "timm": _timm,
    "torchvision": _torchvision,
}


def _told(error: BaseException) -> str:
    """What somebody's code raised, and with which words."""
    if isinstance(error, ImportError | AttributeError):
        return str(error)
    return f"{type(error).__name__}: {error}"


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
    taken = model.enter(images.cpu().float())
    try:
        session = onnxruntime.InferenceSession(config.source, providers=["CPUExecutionProvider"])
        found: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: taken.numpy()})[0]
    except Exception as error:  # its own exceptions have no common base
        raise InputError(
            f"{config.source}: ONNX Runtime cannot run it on {len(taken)} images of 32-bit floats "
            f"({str(error).strip().splitlines()[0]}): export it for such, with a free batch size"
        ) from error
    expected = torch.from_numpy(found).flatten()
    got = model.network(taken.to(images.device)).cpu().flatten()
    same = (got == expected) | (got.isnan() & expected.isnan())  # also where neither is a number
    return float((got - expected).abs().masked_fill(same, 0).max())
