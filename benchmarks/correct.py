"""Methods behind a frozen model, on images that it never saw: five folds of patients, one command for all.

    fairdx run configs/skin_pretrained.toml --out runs/skin
    OMP_NUM_THREADS=1 python benchmarks/correct.py --run runs/skin --views none turns --out studies/correct
    OMP_NUM_THREADS=1 python benchmarks/correct.py --data prepared/fundus112 --label D --attribute age_group \
        --weights weights/lite0.safetensors --out studies/correct_fundus

The frozen model is that of a run, and the images are the run's test images; or it is a pretrained encoder
with a head fitted to the training split, as foundation models are used, and the images are all others. It
looks at every image once. Each method has the same number of settings, the same images to fit to and to
choose on, and the same budget: in each fold that setting is applied which does best in the other folds
(`fairdx.study.within.with_choices`). The corrector's setting is its own budget; the first is the default.
Writes `within.csv` and `within.md`, and prints them; then what the corrector's masks are like, and a learning
curve with its cost.
"""

import argparse
import io
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from fairdx.data.base import PreparedDataset
from fairdx.data.split import patient_folds
from fairdx.data.task import Task
from fairdx.methods import METHODS, Method, Spec
from fairdx.methods.base import Features
from fairdx.methods.last_layer import LastLayer, LastLayerConfig
from fairdx.methods.out_of_fold import part
from fairdx.metrics.pairs import within_group_auroc
from fairdx.metrics.scores import mean_approximate_diagnosis_fairness
from fairdx.metrics.threshold import youden_threshold
from fairdx.models.diagnosis import Diagnosis, DiagnosisModel
from fairdx.models.loading import TaskImages
from fairdx.models.networks import Diagnoser, Encoder
from fairdx.models.runtime import TrainerSettings, make_fabric
from fairdx.models.views import Views
from fairdx.runs.data import open_data
from fairdx.runs.files import STAGES
from fairdx.runs.reopen import read_settings
from fairdx.runs.seen import SeenImages
from fairdx.runs.trained import StageFolders, obtain_model
from fairdx.study.pool import shifted
from fairdx.study.within import Lines, Scored, with_choices, within_table, within_text

FOLDS = 5
SETTINGS: dict[str, tuple[str, list[Any]]] = {
    "corrector": ("budget", [0.01, 0.02, 0.04]),
    "score_shift": ("strength", [0.5, 1.0, 2.0]),
    "guessed_transport": ("strength", [0.3, 0.6, 1.0]),
    "linear_post": ("tolerance", [0.1, 0.04, 0.0]),
    "residual_head": ("weight", [4.0, 15.0, 60.0]),
    "last_layer": ("balance", [0.3, 0.6, 1.0]),
    "concept_erasure": ("within", ["label", "all"]),
    "optimal_transport": ("strength", [0.3, 0.6, 1.0]),
    "threshold_optimizer": ("constraints", ["equalized_odds"]),
}
"""By method, the setting that is varied. The last two are told the group."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Held:
    """A frozen model and the images that it never saw.

    Attributes:
        model: It.
        images: Everything that there is.
        indices: Those that it never saw, shape (n,).
        seen: What it makes of images.
        spec: What the data look like.
    """

    model: DiagnosisModel
    images: TaskImages
    indices: NDArray[np.int64]
    seen: SeenImages
    spec: Spec

    def features(self, views: Views, method: Method | None = None) -> Features:
        """What the model makes of the images, and what a method looks at beside."""
        layers = () if method is None else method.fair.layers
        found, task = self.seen.of(views, self.indices, layers), self.images.task
        shown = [part for part in (found.embedding, found.statistics) if part is not None]
        patient = np.unique(task.patient[self.indices], return_inverse=True)[1]
        return Features(
            np.concatenate(shown, axis=1).astype(np.float64),
            found.logit.astype(np.float64),
            task.label[self.indices],
            task.group[self.indices],
            patient,
        )


def of_run(run: Path, out: Path) -> Held:
    """The frozen model of a run, and its test images."""
    settings = read_settings(run)
    current = open_data(settings, run, None, make_fabric(settings.trainer))
    place = StageFolders(run / STAGES, resume=True, shared=False, finished=True)
    obtained = obtain_model(current, place)
    model = obtained.model
    seen = SeenImages(model, current.images, current.fabric, obtained.key, out / "seen")
    return Held(model, current.images, current.images.task.indices("test"), seen, current.spec)


def of_encoder(arguments: argparse.Namespace, out: Path) -> Held:
    """A pretrained encoder with a head fitted to training images, and all other images."""
    dataset = PreparedDataset.open(arguments.data)
    task = dataset.task(arguments.label, arguments.attribute)
    images, meta = TaskImages(dataset, task), dataset.meta
    encoder = Encoder(arguments.encoder, channels=meta.channels, size=meta.size, weights=arguments.weights)
    model = Diagnoser(encoder, len(task.class_names)).eval().requires_grad_(False)
    fabric = make_fabric(TrainerSettings(device="cpu", precision="fp32"))
    key = f"{meta.hash[:6]}{arguments.encoder[:6]}"
    spec = Spec(meta.channels, meta.size, len(task.class_names), len(task.group_names))
    seen = SeenImages(model, images, fabric, key, out / "seen")
    _fit_head(model, seen, task, spec)
    others = np.sort(np.concatenate([task.indices("validation"), task.indices("test")]))
    return Held(model, images, others, seen, spec)


def _fit_head(model: Diagnoser, seen: SeenImages, task: Task, spec: Spec) -> None:
    """Logistic regression on the embeddings of the training split; logits that are known follow it."""
    train = task.indices("train")
    known = seen.of("none", np.flatnonzero(task.usable))
    rows = np.searchsorted(np.flatnonzero(task.usable), train)
    assert known.embedding is not None
    features = Features(
        known.embedding[rows].astype(np.float64),
        known.logit[rows].astype(np.float64),
        task.label[train],
        task.group[train],
    )
    head = LastLayer.build(LastLayerConfig(balance=0.0, penalty=1e-3), spec, model, seed=0)
    head.solve(features, features)
    model.head.weight.data.copy_(head.head.weight)
    model.head.bias.data.copy_(head.head.bias)
    for stored in seen._known.values():  # the embeddings stay, the logits are those of the new head
        if "logit" not in stored:
            continue
        embedding = torch.from_numpy(stored["embedding"])
        stored["logit"] = (embedding @ model.head.weight.T + model.head.bias).numpy()


def built(name: str, held: Held, seed: int = 0, **settings: Any) -> Method:
    """A method around the frozen model."""
    method = METHODS[name]
    return method.build(method.config_class(**settings), held.spec, held.model, seed=seed)


def scores_of(method: Method, known: Features, new: Features) -> tuple[Array, float]:
    """P(Y = 1) of new images by a method that was fitted to others, and where it decides, by those."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for stage in method.stages():
            assert stage.solve is not None
            torch.manual_seed(0)
            stage.solve(known, known)
        found = [_probabilities(method, features) for features in (known, new)]
        rule = method.adjust(found[0], known.label, known.group, seed=0)
    if rule is not None:
        found = [rule(p, f.group) for p, f in zip(found, (known, new), strict=True)]
        if rule.threshold is not None:
            return found[1][:, 1], rule.threshold
    return found[1][:, 1], youden_threshold(known.label, found[0][:, 1])


def _probabilities(method: Method, features: Features) -> Array:
    embedding, logit = (torch.from_numpy(np.asarray(x)).float() for x in features[:2])
    correction = method.fair.correction
    with torch.no_grad():
        if correction is not None and correction.edits:  # the model's own head follows
            assert isinstance(method.model, Diagnoser)
            made = method.model.head(correction.edit(embedding))
        else:
            made = method.fair.corrected(Diagnosis(embedding, logit))
        return made.softmax(1).double().numpy()


def line(method: Method, held: Held, view: Views, fold: NDArray[np.int64], groups: int) -> Scored:
    """A method fitted to four folds and tested on the fifth, five times."""
    features = held.features(view, method)
    score, decision = np.empty(len(fold)), np.empty(len(fold), dtype=np.int64)
    for number in range(FOLDS):
        rows = fold == number
        new, threshold = scores_of(method, part(features, ~rows), part(features, rows))
        score[rows], decision[rows] = shifted(new, threshold), new >= threshold
    assert features.patient is not None
    return Scored.of(
        score,
        label=features.label,
        group=features.group,
        decision=decision,
        patient=features.patient,
        groups=groups,
        fold=fold,
    )


def every_line(
    held: Held, views: list[Views], only: list[str]
) -> Iterator[tuple[tuple[str, str, str], Scored]]:
    """All methods at all settings."""
    groups = held.spec.groups
    for view in views:
        data = held.images.dataset.root.name + ("" if view == "none" else f", {view}")
        fold = patient_folds(held.images.task.patient[held.indices], FOLDS, seed=0)
        own = partial(line, held=held, view=view, fold=fold, groups=groups)
        yield (data, "vanilla", ""), own(built("vanilla", held))
        for name in only:
            key, values = SETTINGS[name]
            for value in values:
                varied = f"{key}={value}" if len(values) > 1 else ""
                yield (data, name, varied), own(built(name, held, **{key: value}))


def masks(held: Held, count: int) -> str:
    """What masks of the corrector are like: fitted to all but `count` images, realised on these."""
    method = built("corrector", held, realise=True)
    features, rng = held.features("none", method), np.random.default_rng(0)
    rows = np.zeros(len(features.label), dtype=bool)
    rows[rng.permutation(len(rows))[:count]] = True
    rows = np.isin(features.patient, features.patient[rows]) if features.patient is not None else rows
    _, threshold = scores_of(method, part(features, ~rows), part(features, rows))
    image = held.images.batch(held.indices[rows], torch.device("cpu")).image
    fair, wanted = method.fair, _probabilities(method, part(features, rows))[:, 1]
    took, passed, masked = [], [], []
    for block in image.split(64):
        start = time.process_time()
        with torch.inference_mode():
            held.model(block)
        passed.append(time.process_time() - start)
        start = time.process_time()
        masked.append(fair.masked(block))
        took.append(time.process_time() - start)
    x = torch.cat(masked)
    with torch.inference_mode():
        got = torch.cat([fair.judge(block).softmax(1)[:, 1] for block in x.split(64)]).double().numpy()
        stored = torch.stack([_through_png(one) for one in x])
        again = torch.cat([fair.judge(block).softmax(1)[:, 1] for block in stored.split(64)]).double().numpy()
    change = (x - image).abs() * 255
    missed = np.abs(np.log(wanted / (1 - wanted)) - np.log(got / (1 - got)))
    return (
        f"masks of {rows.sum()} images: largest change {change.max():.1f} grey levels, mean "
        f"{change.mean():.4f}, values changed {100 * (change > 0.5).float().mean():.2f} %; log-odds missed "
        f"by {missed.mean():.4f} on average, {missed.max():.3f} at most; decisions equal to the corrector's "
        f"{100 * ((got >= threshold) == (wanted >= threshold)).mean():.2f} %, of 8-bit PNGs to the masked "
        f"images' {100 * ((again >= threshold) == (got >= threshold)).mean():.2f} %; "
        f"time {np.median(np.array(took) / np.array(passed)):.2f} forward passes"
    )


def _through_png(image: torch.Tensor) -> torch.Tensor:
    """An image after it was written as an 8-bit PNG and read again."""
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "PNG")
    again = np.asarray(Image.open(file)).reshape(pixels.shape)
    return torch.from_numpy(again.copy()).permute(2, 0, 1) / 255


def curve(held: Held, counts: list[int]) -> Iterator[str]:
    """The corrector by the number of images that it is fitted to; always the same fifth is tested."""
    features = held.features("none", built("corrector", held))
    fold = patient_folds(held.images.task.patient[held.indices], FOLDS, seed=0)
    new, rest = part(features, fold == 0), np.flatnonzero(fold != 0)
    order = np.random.default_rng(0).permutation(rest)
    for count in counts:
        if count > len(order):
            return
        rows = np.zeros(len(fold), dtype=bool)
        rows[order[:count]] = True
        found, start = [], time.process_time()
        for seed in range(3):
            score, _ = scores_of(built("corrector", held, seed=seed), part(features, rows), new)
            given: dict[str, Any] = {"sensitive_features": new.group}
            found.append(
                [
                    within_group_auroc(new.label, score, **given),
                    1e3 * mean_approximate_diagnosis_fairness(new.label, score, **given),
                ]
            )
        mean = np.mean(found, axis=0)
        seconds = (time.process_time() - start) / 3
        yield f"{count} images: AUC within groups {mean[0]:.4f}, ADF {mean[1]:.2f}e-3, {seconds:.0f} s"


def main() -> None:
    """Does everything that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="a run's folder")
    parser.add_argument("--data", type=Path, help="a prepared data set, for an encoder with a fitted head")
    parser.add_argument("--label")
    parser.add_argument("--attribute")
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    parser.add_argument("--weights")
    parser.add_argument("--views", nargs="*", default=["none"])
    parser.add_argument("--only", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--masks", type=int, default=200, help="images to realise masks on")
    parser.add_argument("--curve", type=int, nargs="*", default=[300, 600, 1200, 2400])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    held = of_encoder(arguments, out) if arguments.run is None else of_run(arguments.run, out)
    scored: dict[str, dict[tuple[str, str, str], list[Scored]]] = {}
    for key, one in every_line(held, arguments.views, arguments.only):
        scored.setdefault(key[0], {})[key] = [one]
        print(key, np.round(one.figures()[:4], 4), flush=True)
    features = held.features("none")
    assert features.patient is not None
    patients = int(features.patient.max()) + 1
    tables = [
        within_table(with_choices(Lines(of, held.images.task.group_names, patients)))
        for of in scored.values()
    ]
    frame: pd.DataFrame = pd.concat(tables, ignore_index=True)
    frame.to_csv(out / "within.csv", index=False)
    (out / "within.md").write_text(within_text(frame))
    print(within_text(frame))
    if arguments.masks:
        print(masks(held, arguments.masks), flush=True)
    for text in curve(held, arguments.curve):
        print(text, flush=True)


if __name__ == "__main__":
    main()
