"""Tiny exported models: the score of an image is its mean brightness, so that every test can work it out."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

onnx = pytest.importorskip("onnx", reason="the extra `test` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `predict` is not installed")
from onnx import TensorProto, helper  # noqa: E402

from fairdx.models.card import (  # noqa: E402
    ExportCard,
    FrozenCard,
    ImageCard,
    MaskCard,
    ModelCard,
    read_card,
    write_card,
)

SIZE = 16


def _graph(classes, channels, size):
    """The mean m of an image; probability (1 - m, m), or softmax of (m, 2 m, ...); change m / 10."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, size, size])
    outputs = [
        helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n", classes]),
        helper.make_tensor_value_info("change", TensorProto.FLOAT, ["n"]),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "tenth"], ["change"]),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
    ]
    constants = [
        helper.make_tensor("tenth", TensorProto.FLOAT, [], [0.1]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("steps", TensorProto.FLOAT, [1, classes], range(1, classes + 1)),
    ]
    if classes == 2:
        nodes += [
            helper.make_node("Sub", ["one", "column"], ["other"]),
            helper.make_node("Concat", ["other", "column"], ["probability"], axis=1),
        ]
    else:
        nodes += [
            helper.make_node("Mul", ["column", "steps"], ["logit"]),
            helper.make_node("Softmax", ["logit"], ["probability"], axis=1),
        ]
    made = helper.make_model(
        helper.make_graph(nodes, "mean", [image], outputs, constants),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    onnx.checker.check_model(made)
    return made


def _write_model(folder, *, classes=("healthy", "ill"), channels=1, size=SIZE, made=None, **entries):
    folder.mkdir(parents=True)
    onnx.save(made or _graph(len(classes), channels, size), folder / "model.onnx")
    content = {
        "fairdx": "0.1.0",
        "created": "2026-01-01T00:00:00+00:00",
        "method": "fair_diagnosis",
        "image": ImageCard(size=size, channels=channels, geometry="stretch"),
        "label": "finding",
        "classes": classes,
        "attribute": "sex",
        "groups": ("male", "female"),
        "threshold": 0.5 if len(classes) == 2 else None,
        "threshold_chosen_on": "validation",
        "frozen": FrozenCard(source="resnet18", kind="architecture", weights_sha256="0" * 64),
        "mask": MaskCard(eta=0.1, steps=1, channels=channels, width=8, depth=2),
        "exports": {
            "onnx": ExportCard(
                file="model.onnx", content="model", images=256, largest_difference=0.0, equal_decisions=1.0
            )
        },
        "files": {"model.onnx": ""},
    }
    write_card(folder, ModelCard(**{**content, **entries}))
    return folder, read_card(folder)


@pytest.fixture
def model(tmp_path):
    return _write_model(tmp_path / "model")[0]


def _write_grey(path, value, size=SIZE):
    """A PNG of one brightness."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size), value, np.uint8)).save(path)
    return path


def _write_dicom(path, value, **attributes):
    """A DICOM image of one brightness: 8 bits with a window from 0 to 255."""
    pydicom = pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = attributes.get("SOPInstanceUID", "1.2.3.4")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    content = {
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.1",
        "SOPInstanceUID": "1.2.3.4",
        "PatientName": "Müller^Jörg",
        "PatientID": "patient-17",
        "PatientBirthDate": "19600301",
        "PatientSex": "F",
        "AccessionNumber": "A1",
        "StudyID": "S1",
        "StudyDate": "20200228",
        "StudyTime": "120000",
        "Modality": "DX",
        "Rows": SIZE,
        "Columns": SIZE,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "WindowCenter": 128,
        "WindowWidth": 256,
        "PixelData": np.full((SIZE, SIZE), value, np.uint8).tobytes(),
    }
    for name, entry in {**content, **attributes}.items():
        if entry is not None:
            setattr(image, name, entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, image, enforce_file_format=True)
    return path


def _fairdx(*arguments, **options):
    command = [sys.executable, "-m", "fairdx.cli", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture
def graph():
    return _graph


@pytest.fixture
def write_model():
    return _write_model


@pytest.fixture
def write_grey():
    return _write_grey


@pytest.fixture
def write_dicom():
    return _write_dicom


@pytest.fixture
def fairdx():
    return _fairdx


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A model of our own with a mask."""
    import export_models as models

    return models.store(tmp_path_factory.mktemp("ours") / "model", models.our_model())


@pytest.fixture(scope="module")
def in_onnx(ours):
    """The same, and what its export said."""
    from fairdx.deploy.export import Request, export

    return read_card(ours), export(Request(ours, "onnx"))
