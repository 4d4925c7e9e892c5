"""Which epoch is kept: validation scores, fairness as far as the images can tell, and the budget."""

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairdx.methods.base import Stage
from fairdx.metrics.rates import accuracy, approximate_diagnosis_fairness, balanced_accuracy
from fairdx.metrics.scores import auroc, mean_approximate_diagnosis_fairness
from fairdx.metrics.threshold import youden_threshold

Record = dict[str, Any]
"""One epoch of one stage: mean loss terms as `player/term`, validation scores as `validation/name`, `JUDGED`
where epochs are chosen by fairness, and whether its weights were `kept`."""

JUDGED: Final = "judged/unfairness"
"""The key of an epoch's `unfairness` on the images that fairness is judged on."""
JUDGED_IMAGES: Final = "judged/images"
"""The key of how many they are."""


def validation_scores(
    label: NDArray[np.int64], scores: NDArray[np.float64], group: NDArray[np.int64]
) -> dict[str, float]:
    """Returns AUROC, accuracies and ADF, decided at the scores' own Youden threshold.

    Of more than two classes the one with the largest score is decided for.
    """
    if scores.shape[1] == 2:
        ranking = scores[:, 1]
        decision = (ranking >= youden_threshold(label, ranking)).astype(np.int64)
    else:
        ranking, decision = scores, scores.argmax(1)
    return {
        "auroc": float(auroc(label, ranking)),
        "accuracy": float(accuracy(label, decision)),
        "balanced_accuracy": balanced_accuracy(label, decision),
        "approximate_diagnosis_fairness": float(
            approximate_diagnosis_fairness(label, decision, sensitive_features=group)
        ),
    }


def unfairness(label: ArrayLike, ranking: ArrayLike, group: ArrayLike) -> float:
    """What epochs and settings are chosen by: ADF averaged over operating points, in nats.

    At one threshold it is mostly noise on as many images as a validation split has.

    Args:
        label: Y, shape (n,).
        ranking: Scores of the positive class, shape (n,), or of all classes, shape (n, classes).
        group: S, shape (n,).

    Returns:
        The mean over operating points; of more than two classes, ADF of the one with the largest score.
    """
    if np.ndim(ranking) > 1:
        decision = np.argmax(ranking, axis=1)
        return float(approximate_diagnosis_fairness(label, decision, sensitive_features=group))
    return mean_approximate_diagnosis_fairness(label, ranking, sensitive_features=group)


def better(stage: Stage, record: Record, best: Record, start: Record, chance: float) -> bool:
    """Says whether an epoch is to be kept instead of the best so far; see `Stage.choose`.

    Args:
        stage: What is trained.
        record: The epoch.
        best: The best so far.
        start: The state before training.
        chance: The ADF that chance alone may show; see `fairdx.inference.visibility`.
    """
    if stage.choose == "last":
        return True
    if stage.choose == "auroc":
        # An untrained model may score well by chance, and is not what anybody asked for.
        return bool(best["epoch"] == 0 or record["validation/auroc"] > best["validation/auroc"])

    def cost(epoch: Record) -> float:
        """How far AUROC or balanced accuracy are below the budget; 0 within it."""
        lost: float = max(
            start[f"validation/{name}"] - epoch[f"validation/{name}"]
            for name in ("auroc", "balanced_accuracy")
        )
        return max(0.0, lost - stage.budget)

    def rank(epoch: Record) -> tuple[float, ...]:
        return cost(epoch), max(chance, epoch[JUDGED]), -epoch["validation/auroc"]

    return rank(record) < rank(best)
