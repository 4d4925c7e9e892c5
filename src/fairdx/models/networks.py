"""The networks: a diagnosis model, a mask generator that changes its input, a discriminator that looks for S.

All of them take images in [0, 1]: normalisation lives inside the encoder, so that masks and their bound eta
are in pixel units (1 = full range).
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import timm
import torch
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, pixel_unshuffle, silu

from fairdx.core.errors import InputError
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel, Edit, full_precision

View = Literal["image", "embedding", "logit"]
"""What the discriminator may look at."""


class Encoder(nn.Module):
    """f_theta: an image becomes an embedding (Eq. 4), by any backbone of timm.

    Args:
        name: Name of a timm model, as `resnet18`, `resnet50` or `vit_tiny_patch16_224`.
        channels: 1 for grey images, 3 for RGB; pretrained weights are adapted to it.
        size: Height and width of the images; only models of a fixed input size (ViT) need it.
        weights: `None` for random weights, `"pretrained"` for those of timm (downloaded on first use), or the
            path of a local `.safetensors` or weights-only `.pth` file.

    Raises:
        InputError: timm has no model of that name, or the weights cannot be read.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str = "resnet18", *, channels: int = 1, size: int = 64, weights: str | None = None
    ) -> None:
        super().__init__()
        if not timm.is_model(name):
            near = (
                ", ".join(timm.list_models(f"*{name.partition('_')[0]}*")[:5])
                or "resnet18, resnet50, vit_tiny_patch16_224"
            )
            raise InputError(f"timm has no model `{name}`; some that it has: {near}")
        fixed_size = timm.get_pretrained_cfg(name)
        options: dict[str, Any] = {"num_classes": 0, "in_chans": channels}
        if fixed_size is not None and fixed_size.fixed_input_size:
            options["img_size"] = size
        if weights not in (None, "pretrained"):
            options["pretrained_cfg_overlay"] = {"state_dict": read_weights(Path(str(weights)))}
        try:
            self.backbone = timm.create_model(name, pretrained=weights is not None, **options)
        except RuntimeError as error:
            if weights in (None, "pretrained"):
                raise
            problem = str(error).splitlines()[-1].strip()
            raise InputError(f"{weights} does not hold the weights of {name}: {problem}") from error
        except (OSError, ValueError) as error:
            if weights != "pretrained":
                raise
            raise InputError(
                f"the pretrained weights of {name} cannot be had ({str(error).strip().splitlines()[0]}): "
                "give a file of them as `model.weights`"
            ) from error
        if "pretrained_cfg_overlay" in options:
            _require_fit(options["pretrained_cfg_overlay"]["state_dict"], self.backbone, str(weights))
        # Some networks, as MobileNetV3 and VGG, have further layers between their last map and the embedding.
        wide = getattr(self.backbone, "head_hidden_size", None) or self.backbone.num_features
        self.features = int(cast(int, wide))
        mean, std = _normalisation(self.backbone, channels)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, image: Tensor) -> Tensor:
        """Returns embeddings (N, D) of images (N, C, H, W) in [0, 1]."""
        return cast(Tensor, self.backbone((image - self.mean) / self.std))


def _require_fit(weights: Mapping[str, Tensor], backbone: nn.Module, path: str) -> None:
    """Timm leaves out what does not fit; a model that was meant to be pretrained would start at random."""
    absent = [key for key in backbone.state_dict() if key not in weights and "num_batches" not in key]
    if absent:
        raise InputError(f"{path} does not hold the weights of this backbone: it has no `{absent[0]}`")


def _normalisation(backbone: nn.Module, channels: int) -> tuple[Tensor, Tensor]:
    """The mean and deviation that the backbone was pretrained with, averaged over colours for grey images."""
    config = cast(Mapping[str, tuple[float, ...]], backbone.pretrained_cfg)
    mean, std = torch.tensor(config["mean"]), torch.tensor(config["std"])
    if channels == 1:
        mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
    return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads a state dict without ever unpickling code.

    Args:
        path: A `.safetensors` file, or one that `torch.load(weights_only=True)` accepts.

    Raises:
        InputError: The file is missing or not a plain table of tensors.
    """
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        for wrapping in ("state_dict", "model"):  # as training scripts save it, among other things
            loaded = loaded.get(wrapping, loaded) if isinstance(loaded, Mapping) else loaded
    except FileNotFoundError:
        raise InputError(f"there is no file of weights at {path}") from None
    except Exception as error:
        raise InputError(
            f"{path} does not hold plain weights (safetensors, or torch weights-only): {error}"
        ) from error
    if not isinstance(loaded, Mapping):
        raise InputError(
            f"{path} holds no tensors by name ({type(loaded).__name__}): save the network's state_dict"
        )
    for name, value in loaded.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"{path} does not hold weights alone: `{name}` is no tensor ({type(value).__name__}); "
                "save the network's state_dict by itself"
            )
    return dict(loaded)


class Diagnoser(DiagnosisModel):
    """Encoder and head together: the model that stage 1 trains.

    Args:
        encoder: f_theta.
        classes: Number of classes of the label.
        dropout: Share of the embedding that is left out at random while it learns.
    """

    def __init__(self, encoder: Encoder, classes: int = 2, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.features, classes)
        self.dropout = nn.Dropout(dropout)
        self.features = encoder.features

    def forward(self, image: Tensor, edit: Edit | None = None) -> Diagnosis:
        """Returns embedding and logits of images (N, C, H, W) in [0, 1]; see `DiagnosisModel`."""
        embedding = self.encoder(image)
        # The head runs in full precision: bf16 would leave a score only 256 levels between two powers of two.
        with full_precision(image):
            if edit is not None:
                embedding = edit(embedding.float())
            return Diagnosis(embedding, self.head(self.dropout(embedding.float())))

    def rates(
        self, learning_rate: float, weight_decay: float, *, head: float | None, decay: float
    ) -> list[dict[str, Any]]:
        """Returns all parameters in groups for an optimizer, each with its own step size.

        Args:
            learning_rate: Of the encoder's last layers.
            weight_decay: Of weights; biases and norms have none.
            head: Step size of the head; as that of the encoder's last layers by default.
            decay: Each earlier layer of the encoder has the step size of the next one times this (Clark et
                al., "ELECTRA", ICLR 2020).
        """
        groups = param_groups_layer_decay(self.encoder.backbone, weight_decay, layer_decay=decay)
        made = [
            {
                "params": group["params"],
                "lr": learning_rate * group["lr_scale"],
                "weight_decay": group["weight_decay"],
            }
            for group in groups
        ]
        return [*made, {"params": list(self.head.parameters()), "lr": head or learning_rate}]


class MaskGenerator(nn.Module):
    """g: a small U-Net whose output, bounded by `apply_mask`, is added to the image (Eq. 4).

    It works at half the resolution, which costs a quarter of the time. Each way up is a convolution, then a
    bilinear enlarging, the last one too: a constant stays constant, so no pixel of a 2 x 2 cell is preferred.
    Pixel shuffling or a transposed convolution has weights of its own for each of the four and leaves a
    checkerboard (Odena et al., 2016). GroupNorm, because batch statistics would move the operating point
    between training and use; the last layer starts at zero, so that an untrained mask changes nothing.

    Args:
        channels: Channels of the image.
        width: Feature channels at half resolution; doubled at each of `depth` further halvings.
        depth: Number of further halvings; images of any size of at least 2 ** (depth + 1) pixels will do.
    """

    def __init__(self, channels: int = 1, *, width: int = 24, depth: int = 2) -> None:
        super().__init__()
        self.channels, self.width, self.depth = channels, width, depth
        widths = [width * 2**level for level in range(depth + 1)]
        self.enter = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.down = nn.ModuleList(_block(a, b, stride=2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_Rise(b, a) for a, b in reversed(list(pairwise(widths))))
        self.leave = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(cast(Tensor, self.leave.bias))

    def forward(self, image: Tensor) -> Tensor:
        """Returns the unbounded mask g(X), shape of `image`."""
        height, width = image.shape[-2:]
        even = pad(image - 0.5, (0, width % 2, 0, height % 2))
        skips = [silu(self.enter(pixel_unshuffle(even, 2)))]
        for down in self.down:
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in self.up:
            x = up(x, skips.pop())
        return _enlarge(self.leave(x), even)[..., :height, :width]


class _Rise(nn.Module):
    """One way up: what a 3 x 3 convolution makes of the coarse map and of the fine one, summed.

    The coarse map is convolved before it is enlarged: a quarter of the work, and no pattern of the enlarging
    reaches a nonlinearity.
    """

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(coarse, fine, 3, padding=1, bias=False)
        self.fine = nn.Conv2d(fine, fine, 3, padding=1, bias=False)
        self.finish = _finish(fine)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        here: Tensor = self.fine(fine)
        return cast(Tensor, self.finish(here + _enlarge(self.coarse(coarse), here)))


def _enlarge(coarse: Tensor, like: Tensor) -> Tensor:
    return interpolate(coarse, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _block(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, stride, padding=1, bias=False), *_finish(width))


def _finish(width: int) -> nn.Sequential:
    return nn.Sequential(nn.GroupNorm(math.gcd(8, width), width), nn.SiLU(inplace=True))


def apply_mask(image: Tensor, generator: nn.Module, *, eta: float, steps: int = 1) -> Tensor:
    """X~ = X (+) g(X): adds the mask in `steps` parts, "with both upper and lower constraints".

    Args:
        image: X in [0, 1], shape (N, C, H, W).
        generator: g; its output is bounded by tanh.
        eta: Noise strength, the largest change of a pixel, in units of the full range.
        steps: K; the generator sees its own last result and adds at most eta / K of it.

    Returns:
        X~ in [0, 1], never further than eta from `image`.
    """
    low, high = (image - eta).clamp_min(0), (image + eta).clamp_max(1)
    masked = image
    for _ in range(steps):
        masked = masked + (eta / steps) * torch.tanh(generator(masked).float())
        masked = torch.minimum(torch.maximum(masked, low), high)
    return masked


class Discriminator(nn.Module):
    """d_Y: guesses the group from a masked image, given the true label (Eq. 7).

    The label chooses one of several output heads, so that the guess is conditioned on Y without having to
    learn an interaction. Besides the image, as in Eq. 7, it can look at the embedding or the logit that the
    frozen model makes of it: both are functions of X~, so I(S; E | Y) = 0 is a necessary condition of Eq. 8.

    Args:
        groups: Number of groups, K.
        classes: Number of classes of the label.
        sees: One or several of `image`, `embedding`, `logit`.
        channels: Channels of the image.
        features: Length of the embedding, D.
        width: Hidden units.
    """

    def __init__(
        self,
        groups: int,
        classes: int = 2,
        *,
        sees: tuple[View, ...] = ("image",),
        channels: int = 1,
        features: int = 512,
        width: int = 128,
    ) -> None:
        super().__init__()
        self.groups, self.classes = groups, classes
        views: dict[str, nn.Module] = {}
        for view in sees:
            if view == "image":
                views[view] = _image_view(channels, width)
            elif view == "embedding":
                views[view] = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width), nn.SiLU())
            else:
                views[view] = nn.Sequential(nn.Linear(classes, width), nn.SiLU())
        self.views = nn.ModuleDict(views)
        hidden = width * len(views)
        self.guess = nn.Sequential(nn.Linear(hidden, width), nn.SiLU(), nn.Linear(width, classes * groups))

    def forward(self, image: Tensor, diagnosis: Diagnosis, label: Tensor) -> Tensor:
        """Returns logits of S^, shape (N, groups).

        Args:
            image: X~, shape (N, C, H, W).
            diagnosis: What the frozen model makes of X~.
            label: Y, int64 of shape (N,).
        """
        inputs = {"image": image, "embedding": diagnosis.embedding, "logit": _centred(diagnosis.logit)}
        seen = torch.cat([view(cast(Tensor, inputs[name])) for name, view in self.views.items()], dim=1)
        guesses = self.guess(seen).view(-1, self.classes, self.groups)
        chosen: Tensor = guesses[torch.arange(len(label), device=label.device), label]
        return chosen


def _centred(logit: Tensor) -> Tensor:
    """Logits without their common offset, which no decision depends on."""
    return logit.float() - logit.float().mean(1, keepdim=True)


def _image_view(channels: int, width: int) -> nn.Sequential:
    widths = (channels, width // 4, width // 2, width)
    blocks = [_block(a, b, stride=2) for a, b in pairwise(widths)]
    return nn.Sequential(
        *blocks, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, width), nn.SiLU()
    )
