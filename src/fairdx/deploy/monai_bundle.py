"""A bundle of MONAI: TorchScript, metadata as in the model zoo, a configuration that scores PNG files."""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from fairdx.deploy.program import Program
from fairdx.deploy.torch_export import DESCRIPTION, write_script

SCRIPT: Final = "models/model.ts"
WRITTEN_FOR: Final = "1.6.1"
"""The release of MONAI whose format this is."""
_SCHEMA: Final = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)


def write_bundle(program: Program, folder: Path) -> None:
    """Writes a bundle: `configs/metadata.json`, `configs/inference.json`, `models/model.ts`.

    Args:
        program: It.
        folder: The bundle's folder.

    Raises:
        InputError: The program cannot be written as TorchScript.
    """
    for part in ("configs", "models"):
        (folder / part).mkdir(parents=True)
    metadata, inference = json.dumps(_metadata(program), indent=2), json.dumps(_inference(program), indent=2)
    (folder / "configs" / "metadata.json").write_text(metadata, encoding="utf-8")
    (folder / "configs" / "inference.json").write_text(inference, encoding="utf-8")
    extra = {"metadata.json": metadata, "inference.json": inference, DESCRIPTION: program.describe()}
    write_script(program, folder / SCRIPT, extra)


def _metadata(program: Program) -> dict[str, Any]:
    card, masks = program.card, program.content == "mask"
    whole = "the mask that goes in front of a diagnosis model" if masks else "mask and diagnosis model"
    return {
        "schema": _SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": f"Exported by fairdx {card.fairdx}."},
        "monai_version": WRITTEN_FOR,
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"pytorch-ignite": _version("pytorch-ignite", "0.5.5")},
        "supported_apps": {},
        "name": f"fairdx {card.method}: {card.label}",
        "task": f"Classification of {card.label}",
        "description": f"{card.label} with method {card.method} of fairdx: {whole}.",
        "authors": "The authors of the run",
        "copyright": "The authors of the run",
        "intended_use": "See the model's card; not for use without clinical validation.",
        "network_data_format": {
            "inputs": {"image": _image_format(program)},
            "outputs": {"pred": _image_format(program) if masks else _score_format(program)},
        },
        "fairdx": json.loads(program.describe()),
    }


def _version(package: str, default: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return default


def _image_format(program: Program) -> dict[str, Any]:
    channels, *size = program.image
    names = ["grey"] if channels == 1 else ["red", "green", "blue"]
    return {
        "type": "image",
        "format": "magnitude",
        "num_channels": channels,
        "spatial_shape": size,
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": dict(enumerate(names)),
    }


def _score_format(program: Program) -> dict[str, Any]:
    classes = program.card.classes
    return {
        "type": "probabilities",
        "format": "classes",
        "num_channels": len(classes),
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": dict(enumerate(classes)),
    }


def _inference(program: Program) -> dict[str, Any]:
    """Scores the PNG files of a folder, which `fairdx prepare` or the like brought to the model's size."""
    grey = program.image[0] == 1
    transforms = [
        {
            "_target_": "LoadImaged",
            "keys": "image",
            "reader": "PILReader",
            "converter": f"$lambda image: image.convert('{'L' if grey else 'RGB'}')",
            "reverse_indexing": False,
        },
        {
            "_target_": "EnsureChannelFirstd",
            "keys": "image",
            "channel_dim": "no_channel" if grey else -1,
        },
        {
            "_target_": "Lambdad",
            "keys": "image",
            # An image of another size ends here: a resize by other code would change the scores.
            "func": f"$lambda image: image.reshape({', '.join(map(str, program.image))})",
        },
        {
            "_target_": "ScaleIntensityRanged",
            "keys": "image",
            "a_min": 0,
            "a_max": 255,
            "b_min": 0,
            "b_max": 1,
        },
    ]
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {
            "_target_": "torch.jit.load",
            "f": f"$@bundle_root + '/{SCRIPT}'",
            "map_location": "@device",
        },
        "preprocessing": {"_target_": "Compose", "transforms": transforms},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': file} for file in sorted(glob.glob(@dataset_dir + '/*.png'))]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 16, "num_workers": 0},
        "inferer": {"_target_": "SimpleInferer"},
        "handlers": [] if program.content == "mask" else [_table()],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network_def",
            "inferer": "@inferer",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


def _table() -> dict[str, Any]:
    """Writes `predictions.csv`: file, and the probability of each class."""
    return {
        "_target_": "ClassificationSaver",
        "output_dir": "@output_dir",
        "batch_transform": "$lambda batch: [item['image'].meta for item in batch]",
        "output_transform": "$lambda outputs: [item['pred'] for item in outputs]",
    }
