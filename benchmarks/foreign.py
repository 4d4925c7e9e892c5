"""Models of four libraries, trained and saved as their users do, made fairer without touching them.

    python benchmarks/foreign.py --out studies/foreign

Each network is trained on the phantom by a plain loop outside fairdx and saved in the form of its library.
Then it is handed to `fairdx run` with nothing but its input contract. torchvision's DenseNet121 comes as a
table of weights, timm's ViT as an exported program, a TorchXRayVision DenseNet (many findings, -1024 to 1024)
as Python code, and a MONAI DenseNet as ONNX alone. Prints a line each: AUC, ADF and true direct effect before
and after, how many times ADF fell, and the frozen model's hash. A run whose frozen weights moved would have
failed.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, cross_entropy

from fairdx.data.base import PreparedDataset
from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import prepare
from fairdx.models.store import load_model
from fairdx.runs.run import run
from fairdx.runs.settings import build_settings

PHANTOM = PhantomSettings(size=32, train=2560, validation=2048, test=3000, conspicuity=0.4)
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
FINDING = "Pneumonia"
HOSPITAL = '''"""A hospital's own code."""
import torchxrayvision
from safetensors.torch import load_file

def load():
    network = torchxrayvision.models.DenseNet(weights=None, in_channels=1, num_classes=18, apply_sigmoid=True)
    network.load_state_dict(load_file("{weights}"))
    return network.eval()
'''


class Foreign(NamedTuple):
    """A network of some library.

    Attributes:
        build: Makes it with random weights.
        enter: What its user feeds it, of grey images in [0, 1].
        loss: What its user trains it on.
        save: Saves it and returns the table [model].
    """

    build: Callable[[], nn.Module]
    enter: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    save: Callable[[nn.Module, Path], dict[str, Any]]


def _imagenet(image: Tensor) -> Tensor:
    mean, std = (torch.tensor(IMAGENET[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (image.expand(-1, 3, -1, -1) - mean) / std


def _densenet() -> nn.Module:
    import torchvision

    return torchvision.models.densenet121(weights=None, num_classes=2)


def _save_weights(network: nn.Module, folder: Path) -> dict[str, Any]:
    save_file(network.state_dict(), folder / "densenet.safetensors")
    return {
        "source": str(folder / "densenet.safetensors"),
        "architecture": "torchvision:densenet121",
        "contract": IMAGENET,
    }


def _vit() -> nn.Module:
    import timm

    small: dict[str, Any] = {
        "img_size": PHANTOM.size,
        "patch_size": 4,
        "depth": 4,
        "embed_dim": 128,
        "num_heads": 4,
    }
    return timm.create_model("vit_tiny_patch16_224", num_classes=2, in_chans=1, **small)


def _save_program(network: nn.Module, folder: Path) -> dict[str, Any]:
    example = torch.rand(2, 1, PHANTOM.size, PHANTOM.size)
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, folder / "vit.pt2")
    return {"source": str(folder / "vit.pt2"), "contract": {"channels": 1, "low": -1.0}}


def _xray() -> nn.Module:
    import torchxrayvision

    return torchxrayvision.models.DenseNet(weights=None, in_channels=1, num_classes=18, apply_sigmoid=True)


def _save_code(network: nn.Module, folder: Path) -> dict[str, Any]:
    import torchxrayvision

    names = torchxrayvision.datasets.default_pathologies
    save_file(network.state_dict(), folder / "xray.safetensors")
    (folder / "hospital.py").write_text(HOSPITAL.format(weights=folder.resolve() / "xray.safetensors"))
    sys.path.insert(0, str(folder))
    contract = {"channels": 1, "low": -1024.0, "high": 1024.0, "output": "probabilities"}
    contract |= {"separate": True, "outputs": names, "finding": (FINDING,)}
    return {"source": "hospital:load", "contract": contract}


def _xray_loss(output: Tensor, label: Tensor) -> Tensor:
    import torchxrayvision

    place = torchxrayvision.datasets.default_pathologies.index(FINDING)
    return binary_cross_entropy(output[:, place], label.float())


def _monai() -> nn.Module:
    from monai.networks.nets.densenet import DenseNet121

    return DenseNet121(spatial_dims=2, in_channels=1, out_channels=2)


def _save_onnx(network: nn.Module, folder: Path) -> dict[str, Any]:
    example = (torch.rand(2, 1, PHANTOM.size, PHANTOM.size),)
    shapes = ({0: torch.export.Dim("n")},)
    file = str(folder / "monai.onnx")
    torch.onnx.export(
        network, example, file, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False
    )
    return {"source": file, "contract": {"channels": 1}}


MODELS = {
    "torchvision DenseNet121, safetensors": Foreign(_densenet, _imagenet, cross_entropy, _save_weights),
    "timm ViT, torch.export": Foreign(_vit, lambda image: 2 * image - 1, cross_entropy, _save_program),
    "TorchXRayVision DenseNet, code": Foreign(
        _xray, lambda image: 2048 * image - 1024, _xray_loss, _save_code
    ),
    "MONAI DenseNet121, ONNX": Foreign(_monai, lambda image: image, cross_entropy, _save_onnx),
}
EPOCHS = {"timm ViT, torch.export": 10}


def train(model: Foreign, dataset: PreparedDataset, *, epochs: int, seed: int) -> nn.Module:
    """Trains a network as its user might: Adam, one pass after the other."""
    torch.manual_seed(seed)
    network, task = model.build().train(), dataset.task()
    rows = task.indices("train")
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3 if epochs < 10 else 5e-4)
    steps = epochs * (len(rows) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, optimizer.param_groups[0]["lr"], steps)
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        for batch in rng.permutation(rows)[: len(rows) // 64 * 64].reshape(-1, 64):
            image = torch.from_numpy(dataset.read(np.sort(batch))).float() / 255
            label = torch.from_numpy(task.label[np.sort(batch)])
            optimizer.zero_grad()
            model.loss(network(model.enter(image)), label).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def line(name: str, dataset: PreparedDataset, folder: Path, seed: int) -> str:
    """Trains, saves and mitigates one model; returns its line of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    network = train(MODELS[name], dataset, epochs=EPOCHS.get(name, 3), seed=seed)
    table = MODELS[name].save(network, folder)
    del network
    values = {
        "data": {"root": str(dataset.root)},
        "model": table,
        "method": {"name": "fair_diagnosis", "epochs": 10, "batch_size": 64},
        "evaluation": {"true_effect_patients": 500},
        "trainer": {"precision": "fp32"},
        "seed": seed,
    }
    results = run(build_settings(values, where=name), folder / "run", resume=True)
    assert results is not None
    before, after = results["methods"]["vanilla"], results["methods"]["fair_diagnosis"]
    held = load_model(folder / "run").card.frozen.weights_sha256[:8]
    # Bias-corrected: a fair model has a plug-in ADF of 1/n, 0.3e-3 here, which would hide how far it fell.
    adf = [figures["approximate_diagnosis_fairness_corrected"]["value"] for figures in (before, after)]
    cells = [f"{figures['auroc']['value']:.4f}" for figures in (before, after)]
    cells += [f"{1e3 * value:.2f}" for value in adf]
    cells += [f"{100 * figures['true_direct_effect']['value']:.1f}" for figures in (before, after)]
    return f"| {name} | {' | '.join(cells)} | {adf[0] / max(adf[1], 1e-9):.1f} | {held} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("studies/foreign"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=MODELS, default=list(MODELS), metavar="MODEL")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    dataset = prepare(Phantom(PHANTOM).source(), options.out / "phantom", wait=True)
    print("| Model | AUC | then | corrected ADF, 1e-3 | then | true DE, 1e-2 | then | times | frozen hash |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for place, name in enumerate(MODELS):
        if name in options.only:
            print(line(name, dataset, options.out / f"{place}-{options.seed}", options.seed), flush=True)


if __name__ == "__main__":
    main()
