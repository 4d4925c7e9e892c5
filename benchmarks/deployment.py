"""What becomes of a mask where patients, detectors or groups differ from those it was trained on.

    python benchmarks/deployment.py --out studies/deployment

For each seed a phantom of its own is drawn, and a model is trained and masked (the settings of `fairdx demo
--quick`, or of `fairdx demo` with --full). Model and masked model, each with its threshold as deployed, then
meet new patients: other shares of the groups, other prevalences, more noise, another vendor's contrast, and a
group that was not there in training. Prints the mean over seeds with its 95 % interval (t).
"""

import argparse
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fairdx.commands.demo import demo_settings
from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.metrics.rates import approximate_diagnosis_fairness
from fairdx.metrics.scores import auroc
from fairdx.models.fair import FairModel
from fairdx.models.store import StoredModel, load_model
from fairdx.runs.files import RESULTS
from fairdx.runs.run import run

Images = NDArray[np.uint8]
IMAGES, PATIENTS = 4000, 1000


class World(NamedTuple):
    """What differs.

    Attributes:
        name: For the table.
        settings: Changes of the phantom's settings.
        detector: What another detector makes of an image.
    """

    name: str
    settings: Mapping[str, object] = MappingProxyType({})
    detector: Callable[[Images], Images] = lambda image: image


def contrast(factor: float) -> Callable[[Images], Images]:
    """Stretches or flattens grey levels about the middle."""

    def change(image: Images) -> Images:
        return np.clip(128 + factor * (image.astype(np.float32) - 128), 0, 255).round().astype(np.uint8)

    return change


WORLDS = (
    World("as in training"),
    World("9 of 10 are men", {"group_share": (0.9, 0.1)}),
    World("rarer disease", {"prevalence": (0.08, 0.12)}),
    World("prevalences exchanged", {"prevalence": (0.47, 0.32)}),
    World("noise doubled", {"noise": 0.06}),
    World("contrast 0.8 times", detector=contrast(0.8)),
    World("contrast 1.2 times", detector=contrast(1.2)),
    World("trait half as strong", {"shadow": (0.0, 0.07)}),
    World("an unseen group: trait twice as strong", {"shadow": (0.0, 0.28)}),
)
COLUMNS = ("AUC, %", "ADF, 10^-3", "true DE, 10^-2")


def deployed(out: Path, seed: int, *, full: bool) -> tuple[StoredModel, PhantomSettings]:
    """Trains the model of a seed, unless that is done."""
    settings = demo_settings(quick=not full, seed=seed)
    phantom = settings.data.phantom.model_copy(update={"seed": seed})
    data = settings.data.model_copy(update={"phantom": phantom})
    folder = out / f"{'full' if full else 'quick'}-{seed}"
    if not (folder / RESULTS).exists():
        run(settings.model_copy(update={"data": data}), folder, resume=True)
    return load_model(folder), phantom


def figures(
    stored: StoredModel, threshold: float, world: World, phantom: PhantomSettings
) -> NDArray[np.float64]:
    """AUC, ADF and true direct effect of a model in a world."""
    place = Phantom(phantom.model_copy(update=world.settings))
    index = np.arange(phantom.total, phantom.total + IMAGES)  # patients that nobody has seen
    truth, group = place.labels(index)[:, 0], place.groups(index)

    def score(image: Images) -> NDArray[np.float64]:
        return stored.scores(world.detector(image))[:, 1]

    scores = score(place.render(index))
    decision = (scores >= threshold).astype(np.int64)
    effects = place.true_effects(lambda image: score(image) >= threshold, index[:PATIENTS])
    adf = approximate_diagnosis_fairness(truth, decision, sensitive_features=group)
    return np.array([100 * auroc(truth, scores), 1e3 * float(adf), 100 * effects.direct_effect])


def pair(stored: StoredModel, world: World, phantom: PhantomSettings) -> NDArray[np.float64]:
    """The figures of the model alone and of the masked one, shape (2, 3)."""
    alone = StoredModel(stored.card, FairModel(stored.fair.model), stored.place)
    before = stored.card.metrics["vanilla"]["threshold"]
    after = stored.card.threshold
    assert after is not None
    return np.stack([figures(alone, before, world, phantom), figures(stored, after, world, phantom)])


def _cell(values: NDArray[np.float64]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.2f} ({values.mean() - half:.2f} to {values.mean() + half:.2f})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("studies/deployment"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--full", action="store_true", help="models of fairdx demo, not of demo --quick")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    models = [deployed(options.out, seed, full=options.full) for seed in options.seeds]
    heads = [f"{column}, {state}" for column in COLUMNS for state in ("model", "masked")]
    print("| Where it is used | " + " | ".join(heads) + " |")
    print("|---" * (1 + len(heads)) + "|", flush=True)
    for world in WORLDS:
        found = np.stack([pair(stored, world, phantom) for stored, phantom in models])  # (seeds, 2, 3)
        cells = [_cell(found[:, state, column]) for column in range(3) for state in range(2)]
        print(f"| {world.name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
