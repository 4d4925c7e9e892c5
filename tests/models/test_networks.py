import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.stats import binom
from torch import nn

from fairdx.core.errors import InputError
from fairdx.models.networks import Diagnoser, Diagnosis, Discriminator, Encoder, MaskGenerator, apply_mask


class Constant(nn.Module):
    """A generator that always asks for the same change."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, image):
        return torch.full_like(image, self.value)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 1), st.integers(1, 5), st.floats(-20, 20), st.integers(0, 2**31))
def test_a_mask_never_leaves_its_bounds(eta, steps, strength, seed):
    image = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    masked = apply_mask(image, Constant(strength), eta=eta, steps=steps)
    assert (masked - image).abs().max() <= eta + 1e-6
    assert masked.min() >= 0
    assert masked.max() <= 1


def test_a_mask_is_added_in_steps_of_equal_size_and_clipped():
    image = torch.tensor([0.0, 0.5, 0.95]).view(1, 1, 1, 3)
    masked = apply_mask(image, Constant(100.0), eta=0.2, steps=2)
    torch.testing.assert_close(masked.flatten(), torch.tensor([0.2, 0.7, 1.0]))
    half = apply_mask(image, Constant(0.5), eta=0.2, steps=4)
    torch.testing.assert_close(half.flatten()[0], 0.2 * torch.tanh(torch.tensor(0.5)))


def test_each_step_sees_the_result_of_the_last():
    class Rest(nn.Module):
        def forward(self, image):
            return torch.atanh(torch.clamp((1 - image) * 0.9, max=0.99))

    image = torch.zeros(1, 1, 1, 1)
    x = 0.0
    for _ in range(3):
        x += 0.3 / 3 * 0.9 * (1 - x)
    assert float(apply_mask(image, Rest(), eta=0.3, steps=3)) == pytest.approx(x, rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 32, 32), (1, 33, 47), (3, 225, 224), (1, 8, 9)])
def test_the_mask_generator_starts_as_the_identity_on_any_size(shape):
    image = torch.rand(2, *shape)
    assert torch.equal(apply_mask(image, MaskGenerator(shape[0]), eta=0.2), image)


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("resnet18", 1, 64),
        ("resnet18", 3, 32),
        ("resnet50", 1, 32),
        ("vit_tiny_patch16_224", 1, 64),
        ("mobilenetv3_small_050", 1, 64),  # layers between the last map and the embedding
    ],
)
def test_encoders_by_timm_name(name, channels, size):
    model = Diagnoser(Encoder(name, channels=channels, size=size), classes=3).eval()
    diagnosis = model(torch.rand(2, channels, size, size))
    assert diagnosis.embedding.shape == (2, model.encoder.features)
    assert diagnosis.logit.shape == (2, 3)


def test_the_encoder_normalises_inside():
    encoder = Encoder("resnet18", channels=3, size=32).eval()
    image = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = encoder.backbone((image - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    torch.testing.assert_close(encoder(image), expected)


def test_local_weights_are_loaded_and_adapted_to_grey(tmp_path):
    colour = Encoder("resnet18", channels=3)
    save_file(colour.backbone.state_dict(), tmp_path / "colour.safetensors")
    torch.save(colour.backbone.state_dict(), tmp_path / "colour.pth")
    for file in ("colour.safetensors", "colour.pth"):
        grey = Encoder("resnet18", channels=1, weights=str(tmp_path / file))
        torch.testing.assert_close(
            grey.backbone.layer1[0].conv1.weight, colour.backbone.layer1[0].conv1.weight
        )
        torch.testing.assert_close(
            grey.backbone.conv1.weight, colour.backbone.conv1.weight.sum(1, keepdim=True)
        )


def test_weights_of_another_backbone_are_refused_and_wrapped_ones_are_found(tmp_path):
    backbone = Encoder("resnet18").backbone.state_dict()
    torch.save({"epoch": 3, "state_dict": backbone}, tmp_path / "wrapped.pth")
    found = Encoder("resnet18", weights=str(tmp_path / "wrapped.pth")).backbone.layer1[0].conv1.weight
    torch.testing.assert_close(found, backbone["layer1.0.conv1.weight"])
    torch.save({f"module.{key}": value for key, value in backbone.items()}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth does not hold the weights of this backbone"):
        Encoder("resnet18", weights=str(tmp_path / "other.pth"))


def test_any_width_will_do():
    for width in (1, 12, 20):
        MaskGenerator(1, width=width)(torch.rand(1, 1, 16, 16))


def awake(channels=1, *, seed):
    """A generator of random weights, whose last layer is not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = MaskGenerator(channels)
        nn.init.normal_(generator.leave.weight)
        nn.init.normal_(generator.leave.bias)
    return generator.eval()


@torch.inference_mode()
@pytest.mark.parametrize("grey", [0.0, 0.3, 1.0])
def test_the_mask_of_a_flat_image_is_flat_away_from_the_border(grey):
    mask = awake(3, seed=0)(torch.full((1, 3, 128, 128), grey))
    inside = mask[..., 48:80, 48:80]
    assert inside.abs().min() > 1e-3
    torch.testing.assert_close(inside, inside[..., :1, :1].expand_as(inside), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_no_pixel_of_a_cell_is_preferred_beyond_chance():
    """A preference for one of the 2 x 2 phases is a line of the mean mask's spectrum at a Nyquist frequency.

    Without one, that bin is the strongest of itself and its 8 nearest as often as any other of the nine.
    """
    seeds, size = 40, 64
    strongest = torch.zeros(3)
    for seed in range(seeds):
        noise = torch.Generator().manual_seed(seed)
        mask = awake(seed=seed)(torch.rand(8, 1, 32 + size, 32 + size, generator=noise)).mean((0, 1))
        window = torch.hann_window(size, periodic=True)
        inside = (mask - mask.mean())[16:-16, 16:-16] * window * window[:, None]
        energy = torch.fft.fft2(inside).abs().square()
        for number, (row, column) in enumerate([(size // 2, 0), (0, size // 2), (size // 2, size // 2)]):
            # Every second bin: the window spreads each over the next.
            near = [
                energy[(row + 2 * i) % size, (column + 2 * j) % size] for i in (-1, 0, 1) for j in (-1, 0, 1)
            ]
            strongest[number] += float(near[4] == max(near))
    assert (strongest <= binom.ppf(0.999, seeds, 1 / 9)).all(), strongest


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (1, 33, 47)])
def test_the_mask_generator_takes_a_batch_of_any_length_in_onnx(shape, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    generator, path = awake(shape[0], seed=1), tmp_path / "mask.onnx"
    batch = {"image": {0: torch.export.Dim("batch")}}
    torch.onnx.export(
        generator, (torch.rand(2, *shape),), path, dynamo=True, dynamic_shapes=batch, verbose=False
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for length in (1, 5):
        image = torch.rand(length, *shape)
        (mask,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        torch.testing.assert_close(torch.from_numpy(mask), generator(image).detach(), atol=1e-4, rtol=1e-4)


def test_weights_that_are_code_are_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (print, ("unpickled",))

    torch.save({"x": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match=r"evil\.pth"):
        Encoder("resnet18", weights=str(tmp_path / "evil.pth"))
    with pytest.raises(InputError, match=r"missing\.safetensors"):
        Encoder("resnet18", weights=str(tmp_path / "missing.safetensors"))


def test_an_unknown_backbone_names_some_that_exist():
    with pytest.raises(InputError, match="resnet18"):
        Encoder("resnet19")


@pytest.mark.parametrize("sees", [("image",), ("embedding",), ("logit",), ("image", "embedding", "logit")])
def test_the_discriminator_sees_what_it_is_told_and_nothing_else(sees):
    torch.manual_seed(0)
    discriminator = Discriminator(3, 2, sees=sees, features=8)
    image, embedding, logit = torch.rand(4, 1, 32, 32), torch.randn(4, 8), torch.randn(4, 2)
    label = torch.tensor([0, 1, 0, 1])
    base = discriminator(image, Diagnosis(embedding, logit), label)
    assert base.shape == (4, 3)
    changed = {
        "image": discriminator(image.flip(0), Diagnosis(embedding, logit), label),
        "embedding": discriminator(image, Diagnosis(embedding.flip(0), logit), label),
        "logit": discriminator(image, Diagnosis(embedding, logit.flip(0)), label),
    }
    for view, guess in changed.items():
        assert torch.equal(guess, base) == (view not in sees)


def test_the_discriminator_is_conditioned_on_the_label():
    torch.manual_seed(0)
    discriminator = Discriminator(2, 2, sees=("logit",))
    diagnosis = Diagnosis(torch.zeros(2, 512), torch.ones(2, 2))
    guess = discriminator(torch.zeros(2, 1, 32, 32), diagnosis, torch.tensor([0, 1]))
    assert not torch.allclose(guess[0], guess[1])
