"""ONNX programs as torch networks, so that gradients flow through them.

`onnx2torch` knows the operators as they were up to opset 17. Most later versions of an operator only take
more types. The few that take their settings otherwise are written back here, and operators that ONNX itself
defines by others are taken apart. What is left over is named.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fairdx.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

OPSET: Final = 17
"""The newest opset that the converter knows."""
_NEEDS: Final = "ONNX models need onnx and onnx2torch; run `pip install 'fairdx[onnx]'`"


def load_onnx(path: Path) -> "nn.Module":
    """Loads an ONNX file as a torch network with the same numbers.

    Args:
        path: The file; weights of its own beside it are read too.

    Raises:
        InputError: It is missing or no ONNX file, takes several inputs, or has operators that cannot be
            converted; the message names them.
    """
    try:
        import onnx
        from onnx2torch import convert
    except ImportError as error:
        raise InputError(f"{path}: {_NEEDS}") from error
    try:
        program = onnx.load(str(path))
    except Exception as error:
        raise InputError(f"{path} is not an ONNX file: {error}") from error
    if not program.graph.node:  # an empty file, and some texts, are read as an empty program
        raise InputError(f"{path} is not an ONNX file: there is no program in it")
    inputs = _inputs(program)
    if len(inputs) != 1:
        raise InputError(
            f"{path} takes {len(inputs)} inputs ({', '.join(inputs)}); only the image is possible"
        )
    try:
        program = as_old(program)
        network: nn.Module = convert(program)
    except Exception as error:
        reason = ", ".join(unknown_operators(program)) or f"an operator in this form: {error}"
        raise InputError(
            f"{path} cannot be converted to torch, so no gradient flows through it: onnx2torch does not "
            f"support {reason}"
        ) from error
    return network


def _inputs(program: Any) -> list[str]:
    given = {tensor.name for tensor in program.graph.initializer}
    return [value.name for value in program.graph.input if value.name not in given]


def as_old(program: Any) -> Any:
    """Returns the same program in operators of opset 17 at most.

    Args:
        program: An `onnx.ModelProto`; changed in place where that is possible.
    """
    import onnx

    program = _taken_apart(program)
    _bypass_identities(program.graph)
    _name_each_node(program.graph)
    constants = _constants(program.graph)
    for node in program.graph.node:
        rewrite = _REWRITES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rewrite is not None:
            rewrite(node, constants)
    for entry in program.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = min(entry.version, OPSET)
    known = {entry.domain for entry in program.opset_import}
    if "" not in known:
        program.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    return program


def _taken_apart(program: Any) -> Any:
    """Without functions: those of the file, and operators that ONNX defines by others and torch has not."""
    import onnx
    from onnx import inliner

    program = inliner.inline_local_functions(program)
    version = next((e.version for e in program.opset_import if e.domain in ("", "ai.onnx")), OPSET)
    apart = []
    for name in sorted(set(unknown_operators(program, bare=True))):
        schema: Any = onnx.defs.get_schema(name, version) if onnx.defs.has(name) else None
        if schema is not None and (schema.has_function or schema.has_context_dependent_function):
            apart.append(("", name))
    if apart:
        program = inliner.inline_selected_functions(program, apart, inline_schema_functions=True)
    return program


def _name_each_node(graph: Any) -> None:
    """The converter keeps nodes by name, and exporters give some names twice."""
    seen: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.name or node.op_type}_node{number}"
        seen.add(node.name)


def _bypass_identities(graph: Any) -> None:
    """Exporters give a weight that is used twice a second name; the converter looks for weights by name."""
    results = {value.name for value in graph.output}
    other: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = other.get(name, name)
        if node.op_type == "Identity" and node.output[0] not in results:
            other[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def unknown_operators(program: Any, *, bare: bool = False) -> list[str]:
    """Lists the operators that the converter does not know, by name.

    Args:
        program: An `onnx.ModelProto`.
        bare: Only those of ONNX itself.
    """
    from onnx2torch.node_converters.registry import get_converter

    versions = {"" if e.domain == "ai.onnx" else e.domain: e.version for e in program.opset_import}
    unknown = []
    for node in program.graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        version = versions.get(domain, 1)
        try:
            get_converter(node.op_type, min(version, OPSET) if not domain else version, domain)
        except NotImplementedError:
            if not (bare and domain):
                unknown.append(node.op_type)
    return list(dict.fromkeys(unknown))


Constants = dict[str, np.ndarray[Any, Any]]


def _constants(graph: Any) -> Constants:
    """Tensors that are the same for every image, by name."""
    from onnx import numpy_helper

    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Constant":
            continue
        for attribute in node.attribute:
            if attribute.name == "value":
                found[node.output[0]] = numpy_helper.to_array(attribute.t)
            elif attribute.name in ("value_ints", "value_int"):
                values = attribute.ints if attribute.name == "value_ints" else attribute.i
                found[node.output[0]] = np.array(values, dtype=np.int64)
    return found


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _set(node: Any, **values: Any) -> None:
    """Sets attributes of a node, or removes those that are None."""
    import onnx

    kept = [attribute for attribute in node.attribute if attribute.name not in values]
    del node.attribute[:]
    node.attribute.extend(kept)
    given = {name: value for name, value in values.items() if value is not None}
    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in given.items())


def _constant_input(node: Any, place: int, constants: Constants) -> np.ndarray[Any, Any] | None:
    """An input that is there and known; None where it is left out.

    Raises:
        NotImplementedError: It depends on the image.
    """
    if len(node.input) <= place or not node.input[place]:
        return None
    if node.input[place] not in constants:
        raise NotImplementedError(f"{node.op_type} with settings that depend on the image")
    return constants[node.input[place]]


def _reduction(node: Any, constants: Constants) -> None:
    """Axes were an attribute (opset 13) and are an input (opset 18)."""
    axes = _constant_input(node, 1, constants)
    if "axes" in _attributes(node) or len(node.input) < 2:
        _set(node, noop_with_empty_axes=None)
        return
    del node.input[1:]
    if (axes is None or axes.size == 0) and _attributes(node).get("noop_with_empty_axes"):
        raise NotImplementedError(f"{node.op_type} that may do nothing")
    _set(node, axes=None if axes is None else axes.ravel().tolist(), noop_with_empty_axes=None)


def _reshape(node: Any, constants: Constants) -> None:
    """Without a zero in the shape it does not matter what a zero means."""
    if not _attributes(node).get("allowzero"):
        return
    shape = _constant_input(node, 1, constants)
    if shape is not None and not (shape == 0).any():
        _set(node, allowzero=None)


def _split(node: Any, constants: Constants) -> None:
    """Equal parts, whose number opset 18 gives, are what opset 13 makes of as many outputs."""
    del constants
    _set(node, num_outputs=None)


def _pad(node: Any, constants: Constants) -> None:
    """Opset 18 can name the axes."""
    if len(node.input) > 3 and node.input[3]:
        raise NotImplementedError("Pad of chosen axes")
    del constants


def _resize(node: Any, constants: Constants) -> None:
    """Opset 18 added antialiasing and chosen axes."""
    del constants
    attributes = _attributes(node)
    if attributes.get("antialias") or attributes.get("axes"):
        raise NotImplementedError("Resize with antialias or axes")
    _set(node, antialias=None, axes=None, keep_aspect_ratio_policy=None)


def _average_pool(node: Any, constants: Constants) -> None:
    """Opset 19 added dilation."""
    del constants
    if any(d != 1 for d in _attributes(node).get("dilations", ())):
        raise NotImplementedError("AveragePool with dilation")
    _set(node, dilations=None)


def _cast_like(node: Any, constants: Constants) -> None:
    """Bodies of operators cast their constants to the type of the image, which is float32."""
    import onnx

    if node.input[0] not in constants or constants[node.input[0]].dtype.kind != "f":
        raise NotImplementedError("CastLike of what is no constant")
    del node.input[1:]
    node.op_type = "Cast"
    _set(node, to=onnx.TensorProto.FLOAT, saturate=None)


_REDUCTIONS: Final = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
_REWRITES: Final[dict[str, Any]] = {
    **{f"Reduce{name}": _reduction for name in _REDUCTIONS},
    "Reshape": _reshape,
    "Split": _split,
    "Pad": _pad,
    "Resize": _resize,
    "AveragePool": _average_pool,
    "CastLike": _cast_like,
}
