"""Models that somebody else trained, from every source: same scores as the network itself, nothing moves."""

import io
import pickle
import sys
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fairdx.core.config import validate
from fairdx.core.errors import InputError
from fairdx.models.contract import Contract
from fairdx.models.diagnosis import weights_hash
from fairdx.models.frozen import FrozenModel
from fairdx.models.onnx_program import load_onnx
from fairdx.models.sources import GivenModel, load_given, onnx_difference

SIZE = 32


class Network(nn.Module):
    """As anybody would write it: three channels, ImageNet normalisation outside, one logit."""

    def __init__(self, outputs=1):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU())
        self.classifier = nn.Linear(6, outputs)

    def forward(self, image):
        return self.classifier(self.body(image).mean((2, 3)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = Network()
    network(torch.rand(8, 3, SIZE, SIZE))  # statistics that are not 0 and 1
    return network.eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


CONTRACT = Contract(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def expected(network, images):
    """What the contract says, written out."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (CONTRACT.mean, CONTRACT.std))
    with torch.no_grad():
        return network((images.repeat(1, 3, 1, 1) - mean) / std)[:, 0]


def saved(network, kind, folder, monkeypatch):
    """The settings of `network` written to a file, or into a module, of the kind."""
    example = torch.rand(2, 3, SIZE, SIZE)
    if kind == "onnx":
        path = folder / "model.onnx"
        shapes = {"dynamic_axes": {"image": {0: "n"}}, "dynamo": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (example,), str(path), input_names=["image"], **shapes)
        return GivenModel(source=str(path), contract=CONTRACT)
    if kind == "torch-export":
        path = folder / "model.pt2"
        program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("n")},))
        torch.export.save(program, path)
        return GivenModel(source=str(path), contract=CONTRACT)
    if kind == "torchscript":
        path = folder / "model.ts"
        with pytest.warns(FutureWarning, match="torch.jit"):
            torch.jit.save(torch.jit.trace(network, example), str(path))
        return GivenModel(source=str(path), contract=CONTRACT, trust=True)
    module = type(sys)("a_hospital")
    module.load = lambda: network
    monkeypatch.setitem(sys.modules, "a_hospital", module)
    return GivenModel(source="a_hospital:load", contract=CONTRACT)


@pytest.mark.parametrize("kind", ["onnx", "torch-export", "torchscript", "module"])
def test_each_source_scores_as_the_network_itself_and_gradients_flow(
    kind, network, images, tmp_path, monkeypatch
):
    given = saved(network, kind, tmp_path, monkeypatch)
    assert given.kind == kind
    model = load_given(given, classes=2, size=SIZE)
    before = weights_hash(model)
    image = images.clone().requires_grad_()
    diagnosis = model(image)
    odds = diagnosis.logit[:, 1] - diagnosis.logit[:, 0]
    torch.testing.assert_close(odds, expected(network, images), rtol=1e-5, atol=1e-5)
    (slope,) = torch.autograd.grad(odds.sum(), image)
    assert (slope.flatten(1) != 0).any(1).all()
    assert weights_hash(model) == before
    assert model.trainable is (kind == "module")
    if kind == "torchscript":  # its layers cannot be looked into
        assert diagnosis.embedding is None
        assert model.features is None
    else:
        with torch.no_grad():
            entering = model.enter(images)
            torch.testing.assert_close(
                diagnosis.embedding.detach(), network.body(entering).mean((2, 3)), rtol=1e-5, atol=1e-5
            )
    if kind == "onnx":
        assert onnx_difference(given, model, images) < 1e-5


@pytest.mark.parametrize("kind", ["onnx", "torch-export", "module"])
def test_an_edited_embedding_reaches_the_score_and_the_hook_leaves(
    kind, network, images, tmp_path, monkeypatch
):
    model = load_given(saved(network, kind, tmp_path, monkeypatch), classes=2, size=SIZE)
    before = [len(module._forward_pre_hooks) for module in model.modules()]
    with torch.no_grad():
        edited = model(images, edit=lambda embedding: 2 * embedding + 1)
        plain = model(images)
        by_hand = network.classifier(2 * plain.embedding + 1)[:, 0]
    torch.testing.assert_close(edited.logit[:, 1], by_hand, rtol=1e-5, atol=1e-5)
    assert [len(module._forward_pre_hooks) for module in model.modules()] == before


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18", "torchvision:mobilenet_v3_small"])
def test_weights_of_an_architecture(name, tmp_path):
    library, _, network = name.partition(":")
    if library == "timm":
        import timm

        own = timm.create_model(network, num_classes=3, in_chans=1).eval()
        options, channels = {"in_chans": 1}, 1
    else:
        import torchvision

        own = torchvision.models.get_model(network, weights=None, num_classes=3).eval()
        options, channels = {}, 3
    path = tmp_path / "weights.safetensors"
    save_file(own.state_dict(), path)
    given = GivenModel(
        source=str(path), architecture=name, options=options, contract=Contract(channels=channels)
    )
    model = load_given(given, classes=3, size=64)
    image = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        logit = own(image.expand(-1, channels, -1, -1)).log_softmax(1)
        torch.testing.assert_close(model(image).logit, logit)
    assert model.features == {
        "timm:resnet18": 512,
        "torchvision:resnet18": 512,
        "torchvision:mobilenet_v3_small": 1024,
    }.get(name)
    wrong = given.model_copy(update={"architecture": f"{library}:resnet34"})
    with pytest.raises(InputError, match="does not hold the weights"):
        load_given(wrong, classes=3, size=64)


@pytest.mark.parametrize(
    ("output", "separate", "finding", "convert"),
    [
        ("logits", False, (2,), lambda z: z),
        ("probabilities", False, (2,), lambda z: z.softmax(1)),
        ("log_probabilities", False, (2,), lambda z: z.log_softmax(1)),
        ("probabilities", True, (2,), lambda z: z.sigmoid()),
        ("logits", False, ("c", "a"), lambda z: z),
    ],
)
def test_the_finding_among_many_outputs(output, separate, finding, convert):
    torch.manual_seed(3)
    network = Network(outputs=4).eval()
    own = nn.Sequential(network, _Apply(convert))
    contract = Contract(output=output, separate=separate, finding=finding, outputs=("a", "b", "c", "d"))
    model = _given(own, contract)
    image = torch.rand(6, 3, SIZE, SIZE)
    with torch.no_grad():
        z = network(image)
        p = z.sigmoid() if separate else z.softmax(1)
        places = ["abcd".index(f) if isinstance(f, str) else f for f in finding]
        truth = p[:, places].sum(1)
        torch.testing.assert_close(model(image).logit.softmax(1)[:, 1], truth, rtol=1e-4, atol=1e-6)


class _Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, z):
        return self.function(z)


def _given(network, contract, classes=2):
    given = GivenModel(source="memory:Network", contract=contract)
    return load_given(given, classes=classes, size=SIZE, network=network)


def test_ranges_layouts_colours_and_sizes_are_as_the_contract_says():
    seen = []

    class Spy(nn.Module):
        def forward(self, image):
            seen.append(image)
            return image.flatten(1).sum(1)

    image = torch.rand(2, 3, SIZE, SIZE)
    contract = Contract(low=-1024, high=1024, layout="NHWC", colours="BGR", embedding=None)
    _given(Spy(), contract)(image)
    torch.testing.assert_close(seen[-1], (2048 * image - 1024).flip(1).permute(0, 2, 3, 1))
    _given(Spy(), Contract(channels=1, size=16, embedding=None))(image)
    assert seen[-1].shape == (2, 1, 16, 16)
    grey = 0.299 * image[:, 0] + 0.587 * image[:, 1] + 0.114 * image[:, 2]
    halved = nn.functional.interpolate(grey[:, None], (16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(seen[-1], halved)


@pytest.mark.parametrize(
    ("contract", "classes", "message"),
    [
        (Contract(embedding="nowhere"), 2, "no layer `nowhere`.*classifier"),
        (Contract(channels=1), 2, "does not run on one, two and three images of 1 x 32 x 32"),
        (Contract(), 3, "the label has 3 classes"),
        (Contract(outputs=("a", "b")), 2, "names 2 columns, and the model has 1"),
        (Contract(finding=(4,)), 2, "no output column 4"),
    ],
)
def test_what_does_not_fit_is_said(contract, classes, message, network):
    with pytest.raises(InputError, match=message):
        _given(network, contract, classes)


def test_many_separate_findings_need_a_name():
    with pytest.raises(InputError, match="4 separate outputs; say in `finding`"):
        _given(Network(outputs=4).eval(), Contract(separate=True))


def test_code_in_files_runs_only_on_trust(network, tmp_path, monkeypatch):
    script = saved(network, "torchscript", tmp_path, monkeypatch)
    with pytest.raises(InputError, match=r"TorchScript.*model\.trust=true"):
        load_given(script.model_copy(update={"trust": False}), classes=2, size=SIZE)
    saved(network, "torch-export", tmp_path, monkeypatch)
    ran = []

    class Bomb:
        def __reduce__(self):
            return (ran.append, (1,))

    source, target = tmp_path / "model.pt2", tmp_path / "bomb.pt2"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("sample_inputs/model.pt"):
                buffer = io.BytesIO()
                torch.save(Bomb(), buffer, pickle_module=pickle)
                data = buffer.getvalue()
            new.writestr(name, data)
    with pytest.raises(InputError, match="pickled sample inputs"):
        load_given(GivenModel(source=str(target), contract=CONTRACT), classes=2, size=SIZE)
    assert not ran


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.onnx", "no model file nowhere.onnx"),
        ("weights.safetensors", "name the network as `architecture`"),
        ("something", "is no model"),
        ("no_such_module:load", "cannot be imported"),
    ],
)
def test_a_source_that_is_none(source, message):
    with pytest.raises(InputError, match=message):
        load_given(GivenModel(source=source), classes=2, size=SIZE)


def test_an_operator_that_has_no_gradient_is_named(tmp_path):
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    image = helper.make_tensor_value_info("image", 1, ["n", 3, SIZE, SIZE])
    score = helper.make_tensor_value_info("score", 1, ["n", 3, SIZE, SIZE])
    node = helper.make_node("Det", ["image"], ["score"])
    graph = helper.make_graph([node], "g", [image], [score])
    path = tmp_path / "det.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), str(path))
    with pytest.raises(InputError, match=r"does not support Det"):
        load_given(GivenModel(source=str(path)), classes=2, size=SIZE)


def test_scores_near_certain_stay_finite():
    class Sure(nn.Module):
        def forward(self, image):
            return torch.stack([torch.zeros(len(image)), torch.ones(len(image))], 1)[:, 1]

    model = _given(Sure(), Contract(output="probabilities", embedding=None))
    assert np.isfinite(model(torch.rand(2, 3, SIZE, SIZE)).logit.numpy()).all()


def test_a_logarithm_of_nothing_is_a_number():
    """log(softmax) of a model that is sure: minus infinity, of which no correction can be fitted."""

    class Sure(nn.Module):
        def forward(self, image):
            return torch.tensor([[0.0, -torch.inf], [-40.0, 0.0]])[: len(image)].repeat(2, 1)[: len(image)]

    model = _given(Sure(), Contract(output="log_probabilities", embedding=None))
    logit = model(torch.rand(2, 3, SIZE, SIZE)).logit
    assert logit.isfinite().all()
    assert logit.argmax(1).tolist() == [0, 1]
    assert logit[1, 0] == -40  # what is known is kept


def _library(name):
    if name == "timm":
        import timm

        return timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=2), 192
    if name == "torchvision":
        import torchvision

        return torchvision.models.densenet121(weights=None, num_classes=2), 1024
    library = pytest.importorskip(name)
    if name == "monai":
        return library.networks.nets.DenseNet121(spatial_dims=2, in_channels=3, out_channels=2), 1024
    return library.models.DenseNet(weights=None, in_channels=3, num_classes=2), 1024


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["timm", "torchvision", "monai", "torchxrayvision"])
def test_the_embedding_of_four_libraries_is_what_their_own_head_makes_scores_of(name):
    network, features = _library(name)
    model = load_given(
        GivenModel(source="memory:x"), classes=2, size=64, network=network.eval().requires_grad_(False)
    )
    assert model.features == features
    image = torch.rand(2, 3, 64, 64)
    head = network.get_submodule(model.layer_name)
    diagnosis = model(image)
    torch.testing.assert_close(head(diagnosis.embedding).log_softmax(1), diagnosis.logit)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("made = 3", "is of type int"),
        ("def made(): raise ValueError('no weights')", "ValueError: no weights"),
        ("import sys\ndef made(): sys.exit(0)", "SystemExit: 0"),
        ("def made(:", "SyntaxError"),
        ("def made(size): return size", "TypeError"),
    ],
)
def test_what_somebody_s_code_raises_is_bad_input_with_its_words(tmp_path, monkeypatch, code, words):
    name = f"their_{zlib.crc32(code.encode())}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=rf"`{name}:made`.*{words}"):
        load_given(GivenModel(source=f"{name}:made"), classes=2, size=32)


class Whims(nn.Module):
    """A model that takes so many images and makes what it is told."""

    def __init__(self, count=None, makes=None):
        super().__init__()
        self.count, self.makes = count, makes

    def forward(self, image):
        if self.count not in (None, len(image)):
            raise RuntimeError(f"this takes {self.count} images")
        rows = image.mean((1, 2, 3))[:, None]
        return torch.cat([rows, 1 - rows], 1) if self.makes is None else rows * 0 + self.makes


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_fixed_number_of_images_is_found_out_before_anything_is_trained(count):
    with pytest.raises(InputError, match=f"this takes {count} images.*free batch size"):
        FrozenModel(Whims(count), Contract(), classes=2, size=32)


@pytest.mark.parametrize(
    ("output", "makes", "refused"),
    [
        ("probabilities", 1.2, True),
        ("probabilities", -0.1, True),
        ("probabilities", 1.0002, False),
        ("log_probabilities", 0.1, True),
        ("log_probabilities", -3.0, False),
        ("logits", 12.0, False),
        ("logits", float("nan"), False),
    ],
)
def test_what_cannot_be_what_the_contract_calls_it_is_refused(output, makes, refused):
    make = lambda: FrozenModel(Whims(makes=makes), Contract(output=output), classes=2, size=32)  # noqa: E731
    if not refused:
        make()
        return
    with pytest.raises(InputError, match="give another `output`"):
        make()


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_a_file_without_a_program_is_no_onnx_file(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.onnx is not an ONNX file"):
        load_onnx(tmp_path / "a.onnx")


@pytest.mark.parametrize("entry", [{"high": float("nan")}, {"high": float("inf")}, {"std": [float("nan")]}])
def test_a_contract_holds_numbers(entry):
    with pytest.raises(InputError, match="finite number"):
        validate(Contract, entry, where="test")
