"""Tiny models of every source, with random weights, in model folders."""

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper, save
from safetensors.torch import save_file
from torch import nn

from fairdx.models.card import ImageCard, MaskCard, ModelCard, Range
from fairdx.models.contract import Contract
from fairdx.models.corrections import Erasure, Head, LinearRule, Residual, Shift, Transport
from fairdx.models.fair import FairModel, Mask
from fairdx.models.networks import Diagnoser, Encoder, MaskGenerator
from fairdx.models.sources import GivenModel, frozen_card, load_given
from fairdx.models.statistics import find_maps
from fairdx.models.store import our_frozen_card, save_model

SIZE = 32
ENCODER = "test_resnet"


class Small(nn.Module):
    """A network that somebody else wrote."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 2)
        nn.init.normal_(self.last.weight, std=3)

    def forward(self, image):
        return self.last(self.norm(self.convolution(image)).relu().mean((2, 3)))


class FixedBatch(Small):
    """Python reads the batch size: an exporter sees a number."""

    def forward(self, image):
        return super().forward(image).view(int(image.shape[0]), 2)


def small():
    torch.manual_seed(5)
    return Small().eval()


def fixed_batch():
    torch.manual_seed(5)
    return FixedBatch().eval()


def random_mask(channels, *, steps=1):
    generator = MaskGenerator(channels, width=8, depth=2)
    nn.init.normal_(generator.leave.weight, std=0.3)
    return Mask(generator, eta=0.2, steps=steps)


def random_correction(kind, model, channels, classes=2):
    features = model.features
    if kind == "erasure":
        correction = Erasure(features)
        correction.projection.copy_(torch.randn(features, features) / features**0.5)
        correction.center.normal_()
    elif kind == "shift":
        correction = Shift(features, 2, classes)
        correction.weight.normal_()
        correction.shift.normal_()
    elif kind == "head":
        correction = Head(features, classes)
        correction.weight.normal_()
    elif kind == "linear_rule":
        correction = LinearRule(features, 2)
        correction.weight.normal_()
        correction.price.normal_()
    elif kind == "residual":
        layers, statistics = find_maps(model, channels=channels, size=SIZE)
        assert layers
        correction = Residual(features + statistics, 5, 8, layers)
        for layer in (correction.project, correction.out):
            nn.init.normal_(layer.weight)
    else:
        correction = Transport(features, 2, 11)
        correction.weight.normal_()
        correction.at.copy_(torch.linspace(-2, 2, 11))
        correction.target.copy_(2 * correction.at + torch.tensor([[0.7], [-0.4]]))
    return correction


def keras_like(path):
    """Channels last, one column after a sigmoid: what Keras exports."""
    generator = torch.Generator().manual_seed(3)

    def weight(name, *shape, scale=1.0):
        return numpy_helper.from_array((scale * torch.randn(shape, generator=generator)).numpy(), name)

    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", SIZE, SIZE, 3])
    output = helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 1])
    nodes = [
        helper.make_node("Transpose", ["x"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "w1", "b1"], ["c"], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["l"]),
        helper.make_node("Sigmoid", ["l"], ["p"]),
    ]
    weights = [weight("w1", 8, 3, 3, 3), weight("b1", 8), weight("w2", 8, 1, scale=0.3), weight("b2", 1)]
    graph = helper.make_graph(nodes, "keras", [image], [output], weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def given(source, folder):
    """A foreign model of each source, as a table `[model]`."""
    if source == "architecture":
        import timm

        torch.manual_seed(7)
        network = timm.create_model("test_vit", img_size=SIZE, num_classes=2)
        save_file(network.state_dict(), folder / "vit.safetensors")
        contract = Contract(mean=(0.5,), std=(0.2,))
        options = {"img_size": SIZE, "num_classes": 2}
        file = str(folder / "vit.safetensors")
        return GivenModel(source=file, architecture="timm:test_vit", options=options, contract=contract)
    if source in ("module", "fixed"):
        name = "small" if source == "module" else "fixed_batch"
        contract = Contract(low=-1024, high=1024, std=(700.0,), colours="BGR", size=24)
        return GivenModel(source=f"export_models:{name}", contract=contract)
    if source == "onnx":
        keras_like(folder / "keras.onnx")
        contract = Contract(layout="NHWC", output="probabilities")
        return GivenModel(source=str(folder / "keras.onnx"), contract=contract)
    if source == "torch-export":
        dynamic = ({0: torch.export.Dim("n")},)
        program = torch.export.export(small(), (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=dynamic)
        torch.export.save(program, folder / "small.pt2")
        return GivenModel(source=str(folder / "small.pt2"))
    torch.jit.script(small()).save(str(folder / "small.ts"))
    return GivenModel(source=str(folder / "small.ts"), trust=True)


def our_model(channels=1, classes=2):
    torch.manual_seed(11)
    model = Diagnoser(Encoder(ENCODER, channels=channels, size=SIZE), classes)
    nn.init.normal_(model.head.weight, std=0.3)
    return model.eval(), our_frozen_card(ENCODER, model)


def foreign_model(source, folder):
    config = given(source, folder)
    model = load_given(config, classes=2, size=SIZE)
    return model, frozen_card(config, model)


def store(folder, pair, *, channels=1, mask=True, correction=None, steps=1, **entries):
    """Writes a model folder with a random mask and a random correction."""
    model, frozen = pair
    torch.manual_seed(13)
    made = random_mask(channels, steps=steps) if mask else None
    changed = random_correction(correction, model, channels) if correction else None
    fair = FairModel(model, mask=made, correction=changed, temperature=entries.get("temperature", 1.0))
    shape = MaskCard(eta=0.2, steps=steps, channels=channels, width=8, depth=2)
    content = {
        "fairdx": "0.1.0",
        "created": "2026-01-01T00:00:00+00:00",
        "method": "fair_diagnosis",
        "image": ImageCard(size=SIZE, channels=channels),
        "label": "finding",
        "classes": ("absent", "present"),
        "attribute": "sex",
        "groups": ("male", "female"),
        "threshold": 0.4,
        "threshold_chosen_on": "validation",
        "frozen": frozen,
        "mask": shape if mask else None,
        "correction": changed.shape() if changed else None,
        "familiar": {"mean": Range(low=0.3, high=0.6), "spread": Range(low=0.1, high=0.3)},
    }
    save_model(folder, fair, ModelCard(**{**content, **entries}))
    return folder


def images(count, channels=1, seed=1):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, channels, SIZE, SIZE), dtype=np.uint8)


def unit(pixels):
    return (pixels / np.float32(255)).astype(np.float32)


def run_onnx(path, pixels):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": unit(pixels)})
