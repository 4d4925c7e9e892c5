"""A model repository of NVIDIA's Triton Inference Server: `NAME/config.pbtxt` and `NAME/1/model.onnx`."""

import json
import re
from pathlib import Path
from typing import Final

from fairdx.deploy.onnx_export import write_onnx
from fairdx.deploy.program import INPUT, Program

REPOSITORY: Final = "model_repository"
LARGEST_BATCH: Final = 64
"""Images that the server may put together."""
DELAY: Final = 500
"""Microseconds that it may wait for more of them."""


def triton_name(program: Program) -> str:
    """Returns what the server calls the model."""
    label = re.sub(r"[^A-Za-z0-9]+", "_", program.card.label).strip("_").lower()
    return "_".join(part for part in ("fairdx", label, "mask" * (program.content == "mask")) if part)


def write_triton(program: Program, folder: Path, opset: int | None = None) -> None:
    """Writes a model for a model repository.

    Args:
        program: It.
        folder: The model's folder in the repository, called `triton_name`.
        opset: Of ONNX.

    Raises:
        InputError: See `write_onnx`.
    """
    (folder / "1").mkdir(parents=True)
    write_onnx(program, folder / "1" / "model.onnx", opset)
    (folder / "config.pbtxt").write_text(_config(program), encoding="utf-8")


def _config(program: Program) -> str:
    """The configuration in protobuf's text form; strings are quoted as in JSON."""
    outputs = ",\n".join(_tensor(name, shape) for name, shape in program.outputs.items())
    return f"""name: "{triton_name(program)}"
backend: "onnxruntime"
max_batch_size: {LARGEST_BATCH}
input [
{_tensor(INPUT, program.image)}
]
output [
{outputs}
]
dynamic_batching {{ max_queue_delay_microseconds: {DELAY} }}
parameters {{
  key: "fairdx"
  value: {{ string_value: {json.dumps(program.describe(), ensure_ascii=False)} }}
}}
"""


def _tensor(name: str, shape: tuple[int, ...]) -> str:
    """A tensor without its batch; one number an image has no axis of its own, which Triton writes so."""
    dims = ", ".join(map(str, shape or (1,)))
    reshape = "" if shape else "\n    reshape: { shape: [ ] }"
    return f'  {{\n    name: "{name}"\n    data_type: TYPE_FP32\n    dims: [ {dims} ]{reshape}\n  }}'
