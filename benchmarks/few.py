"""How many images a correction takes: ADF by the number of images, for the mask and for the corrector.

    fairdx demo --out demo
    OMP_NUM_THREADS=1 python benchmarks/few.py --run demo

The run's frozen model gets images that it never saw: half of the run's test images are drawn from, always the
other half is tested. Four fifths of what is drawn trains, one fifth chooses epoch and threshold. All settings
are the defaults. The mean over seeds, each with a draw of its own.
"""

import argparse
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fairdx.data.task import Task
from fairdx.methods import METHODS, Spec
from fairdx.metrics.pairs import within_group_auroc
from fairdx.metrics.rates import approximate_diagnosis_fairness
from fairdx.metrics.scores import mean_approximate_diagnosis_fairness
from fairdx.metrics.threshold import youden_threshold
from fairdx.models.diagnosis import DiagnosisModel
from fairdx.models.loading import TaskImages
from fairdx.models.runtime import TrainerSettings, make_fabric
from fairdx.models.scoring import predict
from fairdx.models.store import load_model
from fairdx.runs.data import open_data
from fairdx.runs.reopen import read_settings
from fairdx.training.fit import fit

SETTINGS = TrainerSettings(device="cpu", precision="fp32")


def drawn(task: Task, count: int, seed: int) -> Task:
    """The task with `count` of the first half of the test images to learn from; the second half is tested."""
    test = np.random.default_rng(0).permutation(task.indices("test"))
    half = len(test) // 2
    if count > half:
        raise SystemExit(f"the run has {half} test images to learn from, fewer than {count}")
    chosen = np.random.default_rng(seed + 1).permutation(test[:half])[:count]
    split = np.full(len(task.split), "none", dtype=object)
    split[test[half:]] = "test"
    split[chosen] = "train"
    split[chosen[: count // 5]] = "validation"
    return replace(task, split=split)


def figures(logits: Any, images: TaskImages, fabric: Any) -> list[float]:
    """AUC within groups, ADF at the threshold of the validation images, and ADF over thresholds."""
    task = images.task
    known, test = task.indices("validation"), task.indices("test")
    scores = [predict(logits, images, rows, fabric)[:, 1] for rows in (known, test)]
    decided = scores[1] >= youden_threshold(task.label[known], scores[0])
    given: dict[str, Any] = {"sensitive_features": task.group[test]}
    return [
        within_group_auroc(task.label[test], scores[1], **given),
        1e3 * approximate_diagnosis_fairness(task.label[test], decided.astype(int), **given),
        1e3 * mean_approximate_diagnosis_fairness(task.label[test], scores[1], **given),
    ]


def lines(run: Path, counts: list[int], seeds: int) -> Iterator[str]:
    """A line for each method and number of images."""
    settings, fabric = read_settings(run), make_fabric(SETTINGS)
    images = open_data(settings, run, None, fabric).images
    meta, task = images.dataset.meta, images.task
    model: DiagnosisModel = load_model(run).fair.model
    for count in counts:
        for name in ("vanilla", "fair_diagnosis", "corrector"):
            found, notes = [], set()
            for seed in range(seeds):
                few = replace(images, task=drawn(task, count, seed))
                spec = Spec(meta.channels, meta.size, len(task.class_names), len(task.group_names))
                method = METHODS[name].build(METHODS[name].config_class(), spec, model, seed=seed)
                for stage in method.stages():
                    history = fit(stage, few, fabric=fabric, settings=SETTINGS, seed=seed)
                    notes |= {"said that too little can be seen" for record in history if record.get("note")}
                logits = partial(lambda fair, image: fair(image), method.fair)
                found.append(figures(logits, few, fabric))
            mean = np.mean(found, axis=0)
            said = f" ({', '.join(sorted(notes))})" if notes else ""
            yield (
                f"{count} images, {name}: AUC within groups {mean[0]:.4f}, ADF {mean[1]:.2f}e-3, over "
                f"thresholds {mean[2]:.2f}e-3{said}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="*", default=[300, 600, 1200, 2400, 4000])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for line in lines(options.run, options.counts, options.seeds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
