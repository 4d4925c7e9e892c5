"""What a finished run can answer in a reporting checklist, as sentences."""

from pathlib import Path
from typing import Any

from fairdx.core.errors import InputError
from fairdx.core.files import parse_json
from fairdx.runs.files import CONFIG, RESULTS
from fairdx.runs.results import Figure, MethodFigures, read_results

_UNTOLD = {"root", "weights"}  # paths of somebody's machine


def facts_of_run(folder: Path) -> dict[str, str]:
    """Sentences by key, as `fairdx.auditing.checklists` asks for them.

    Args:
        folder: A run's folder.

    Raises:
        InputError: It holds no finished run.
    """
    results, config = read_results(folder / RESULTS), _settings(folder / CONFIG)
    data, model, method = results.data, config.get("model", {}), config.get("method", {})
    images = ", ".join(f"{split} {n:,}" for split, n in data.images.items())
    name = config.get("method_name", "")
    epochs = ", ".join(f"{stage} {n}" for stage, n in results.kept_epochs.items())
    found = {
        "data_source": f"Data set {data.source}, hash {data.hash[:12]}.",
        "preparation": f"Images of {data.size} × {data.size} pixels, {data.channels} channel(s), in [0, 1].",
        "label": f"Label {data.label} with the classes {', '.join(data.classes)}.",
        "left_out": f"{data.left_out:,} images without a known label or group are left out.",
        "partitions": f"Images: {images}.",
        "disjoint": "No patient is in two partitions.",
        "model": f"Diagnosis model: {model.get('encoder') or model.get('source') or 'given'}.",
        "initial": "Initial weights were given." if model.get("weights") else "",
        "training": f"Model: {_said(model)}. Method {name}: {_said(method)}. Seed {config.get('seed')}.",
        "selection": f"Epochs kept: {epochs}." if epochs else "",
        "threshold": _thresholds(results.methods),
        "mitigation": f"The model stays as it is; {name} is put in front of it or behind it.",
        "mitigated": " ".join(_measured(n, one) for n, one in results.methods.items()),
        "software": f"fairdx {results.fairdx_version}.",
        "repeat": "`fairdx run` with the run's settings repeats it; model and card are in its folder.",
    }
    return {key: text for key, text in found.items() if text}


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}


def _said(settings: dict[str, Any]) -> str:
    plain = {k: v for k, v in settings.items() if v is not None and k not in _UNTOLD}
    return ", ".join(f"{k} {v}" for k, v in plain.items())


def _thresholds(methods: dict[str, MethodFigures]) -> str:
    told = [
        f"{name} {one.threshold:.4g}, chosen on {one.threshold_chosen_on} images"
        for name, one in methods.items()
        if one.threshold is not None
    ]
    return f"Thresholds: {'; '.join(told)}." if told else "The class with the largest score is the decision."


def _measured(name: str, one: MethodFigures) -> str:
    figures = {
        "AUC": one.auroc,
        "equal opportunity difference": one.equal_opportunity_difference,
        "direct effect": one.direct_effect,
    }
    return f"{name}: {'; '.join(f'{title} {_number(figure)}' for title, figure in figures.items())}."


def _number(figure: Figure) -> str:
    value, low, high = (
        "not defined" if v is None else f"{v:.4f}" for v in (figure.value, figure.low, figure.high)
    )
    return f"{value} ({low} to {high})"
