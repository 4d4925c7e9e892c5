"""Models as ONNX: one file, a free batch size, no traces of the machine that wrote it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from fairdx.core.errors import InputError
from fairdx.deploy.program import INPUT, Program, exporting

OPSET: Final = 18
"""What PyTorch writes without a conversion; ONNX Runtime takes it from 1.14 on, Triton from 23.02 on."""
OLDEST: Final = 11
LARGEST: Final = 2_000_000_000
"""Bytes from which on weights lie in a second file, `NAME.data`: protobuf ends at 2 GiB."""
BATCH: Final = "batch"


def write_onnx(program: Program, file: Path, opset: int | None = None) -> None:
    """Writes a program as ONNX.

    Args:
        program: It.
        file: Where to.
        opset: Version of ONNX's operators; `OPSET` by default.

    Raises:
        InputError: onnx is not installed, or the program cannot be written with this opset.
    """
    onnx = _require_onnx()
    wanted = OPSET if opset is None else opset
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST <= wanted <= newest:
        raise InputError(f"--opset {wanted}: give one from {OLDEST} to {newest}")
    with exporting("ONNX"), _quiet():
        older = program.holds_script or wanted < OPSET
        proto = _scripted(program, file, wanted) if older else _traced(program, wanted)
        written = {entry.domain: entry.version for entry in proto.opset_import}
        if written.get("") != wanted:
            raise InputError(
                f"--opset {wanted}: an operation of the model cannot be written with it; leave it out for "
                f"{written.get('')}"
            )
        _plain(onnx, proto, program)
        large = proto.ByteSize() > LARGEST
        onnx.save(proto, str(file), save_as_external_data=large, location=f"{file.name}.data")
        onnx.checker.check_model(str(file))


def open_onnx(file: Path) -> Any:
    """Returns a function that runs an ONNX file with ONNX Runtime, images (N, C, H, W) to a tuple of tensors.

    Raises:
        InputError: ONNX Runtime is not installed, or does not take the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "an export is checked with ONNX Runtime; run `pip install 'fairdx[export]'`"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions have no common base
        raise InputError(f"ONNX Runtime does not take the exported model: {error}") from error

    def run(image: Tensor) -> tuple[Tensor, ...]:
        given = {INPUT: image.contiguous().numpy()}
        return tuple(torch.from_numpy(found) for found in session.run(None, given))

    return run


def _require_onnx() -> Any:
    try:
        import onnx
        import onnxscript  # noqa: F401 - PyTorch's exporter writes with it
    except ImportError as error:
        raise InputError(
            "exporting as ONNX needs onnx and onnxscript; run `pip install 'fairdx[export]'`"
        ) from error
    return onnx


def _traced(program: Program, opset: int) -> Any:
    """The ONNX model by way of `torch.export`."""
    exported = torch.export.export(
        program.module, (program.example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    made = torch.onnx.export(
        exported,
        dynamo=True,
        opset_version=opset,
        input_names=[INPUT],
        output_names=list(program.outputs),
        verbose=False,
    )
    assert made is not None
    return made.model_proto


def _scripted(program: Program, file: Path, opset: int) -> Any:
    """The ONNX model by way of a TorchScript trace, which can hold other TorchScript and has older opsets."""
    onnx = _require_onnx()
    names = [INPUT, *program.outputs]
    traced = torch.jit.trace(program.module, program.example)  # type: ignore[no-untyped-call]
    torch.onnx.export(
        traced,
        (program.example,),
        str(file),
        dynamo=False,
        opset_version=opset,
        input_names=names[:1],
        output_names=names[1:],
        dynamic_axes={name: {0: BATCH} for name in names},
    )
    return onnx.load(str(file))


def _plain(onnx: Any, proto: Any, program: Program) -> None:
    """Takes the exporter's notes out, among them paths and source code, and puts the description in."""
    del proto.functions[:]
    proto.producer_name, proto.doc_string = "fairdx", ""
    proto.producer_version = program.card.fairdx
    # The oldest format that the opset allows, so that older servers read it, too.
    proto.ir_version = onnx.helper.find_min_ir_version_for(proto.opset_import)
    graph = proto.graph
    graph.name, graph.doc_string = f"fairdx_{program.content}", ""
    del graph.value_info[:]  # ONNX Runtime infers them
    for notes in (proto.metadata_props, graph.metadata_props, graph.quantization_annotation):
        del notes[:]
    _strip(graph)
    for value in (*graph.input, *graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    onnx.helper.set_model_props(proto, {"fairdx": program.describe()})


def _strip(graph: Any) -> None:
    for part in (*graph.node, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    _strip(inner)
                    del inner.value_info[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """Mutes the exporter's log, which speaks of its own versions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
