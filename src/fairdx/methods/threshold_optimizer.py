"""Post-processing: for each group its own, partly random, thresholds on the scores of the unchanged model.

Hardt, Price and Srebro, "Equality of opportunity in supervised learning", NeurIPS 2016, as implemented by
Fairlearn's `ThresholdOptimizer`.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Literal, Self, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fairdx.core.errors import InputError
from fairdx.methods.base import METHODS, Method, MethodConfig, Scores, Spec, Stage
from fairdx.models.card import RuleCard
from fairdx.models.diagnosis import DiagnosisModel
from fairdx.models.fair import FairModel
from fairdx.models.runtime import derive_seed

Constraint = Literal[
    "equalized_odds",
    "demographic_parity",
    "true_positive_rate_parity",
    "false_positive_rate_parity",
    "true_negative_rate_parity",
    "false_negative_rate_parity",
]


class ThresholdOptimizerConfig(MethodConfig):
    """Settings of Fairlearn's `ThresholdOptimizer`."""

    constraints: Constraint = "equalized_odds"
    """What has to be equal in all groups."""
    objective: Literal["balanced_accuracy_score", "accuracy_score"] = "balanced_accuracy_score"
    """What is maximised under it. Balanced accuracy is also what the other methods' threshold maximises
    (Youden); Fairlearn's default, accuracy, answers a rare disease with "never"."""
    grid_size: int = Field(1000, ge=2)
    """Steps of the constrained rate at which the best is looked for (Fairlearn's default)."""
    flip: bool = False
    """Whether a group's decisions may be reversed (Fairlearn's default: no)."""


@final
@METHODS.register("threshold_optimizer")
class ThresholdOptimizer(Method):
    """Fitted on the model's validation scores, applied to any scores, with the group of each patient.

    **It has to know S at test time**, and answers two patients with equal images differently. It is an oracle
    to compare with, not a rival, and the true effects of interventions cannot be measured for it.

    The rule draws lots. The score that it returns is (d + p) / 2 with the decision d, 0 or 1, and the model's
    own probability p: its threshold is 0.5 exactly, and among equal decisions it orders as the model does.
    Its AUROC is that of a score in which d comes first and p second: it rates the randomised decision and
    what the model can still tell within it, not the model. It is no probability: calibration says nothing.

    Args:
        config: Settings.
        spec: What the data look like.
        model: The diagnosis model, which stays as it is.

    Raises:
        InputError: The label has more than two classes, or Fairlearn is not installed.
    """

    config_class = ThresholdOptimizerConfig
    config: ThresholdOptimizerConfig
    needs_group: ClassVar = True

    def __init__(self, config: ThresholdOptimizerConfig, spec: Spec, model: DiagnosisModel) -> None:
        if spec.classes != 2:
            raise InputError(
                "method `threshold_optimizer` decides between two classes, and the label has "
                f"{spec.classes}; choose another label or method"
            )
        _fairlearn()
        self.config, self.model, self.fair = config, model, FairModel(model)

    def stages(self) -> tuple[Stage, ...]:
        """Returns no stage."""
        return ()

    def adjust(
        self, scores: Scores, label: NDArray[np.int64], group: NDArray[np.int64], *, seed: int
    ) -> "_Lots":
        """Fits the thresholds.

        Args:
            scores: Of the validation images, shape (n, 2).
            label: Their labels Y, shape (n,).
            group: Their groups S, shape (n,).
            seed: Seed of the lots; each call of the rule draws the same ones.

        Raises:
            InputError: A group has images of one class only.
        """
        known = np.unique(group)
        for code in known:
            if len(np.unique(label[group == code])) < 2:
                raise InputError(
                    f"method `threshold_optimizer` is fitted on validation images, and those of group {code} "
                    "(counted from 0, in the order of the data set) are all of one class; use more images"
                )
        fitted = _fairlearn().ThresholdOptimizer(
            estimator=_identity(),
            constraints=self.config.constraints,
            objective=self.config.objective,
            grid_size=self.config.grid_size,
            flip=self.config.flip,
            prefit=True,
            predict_method="decision_function",
        )
        fitted.fit(scores[:, 1:], label, sensitive_features=group)
        draw = derive_seed(seed, "threshold_optimizer") % 2**32

        return _Lots(fitted, known, draw)


@dataclass(frozen=True)
class _Lots:
    """The fitted thresholds; each call draws the same lots."""

    fitted: Any
    known: NDArray[np.int64]
    draw: int
    threshold: float = 0.5
    card: RuleCard | None = None

    def __call__(self, scores: Scores, group: NDArray[np.int64]) -> Scores:
        unknown = np.setdiff1d(group, self.known)
        if len(unknown):
            raise InputError(
                f"method `threshold_optimizer` has no thresholds for group {unknown[0]} (counted from 0, "
                "in the order of the data set): there are no validation images of it"
            )
        decision = self.fitted.predict(scores[:, 1:], sensitive_features=group, random_state=self.draw)
        return _decided(np.asarray(decision), scores[:, 1])


def _decided(decision: NDArray[Any], score: NDArray[np.float64]) -> Scores:
    """(d + p) / 2 as class probabilities; a 0 stays below 0.5 even where p is 1."""
    positive = (decision + score) / 2
    positive = np.where(decision == 1, positive, np.minimum(positive, np.nextafter(0.5, 0)))
    return np.stack([1 - positive, positive], axis=1)


def _fairlearn() -> ModuleType:
    try:
        import fairlearn.postprocessing as module
    except ImportError as error:
        raise InputError(
            "method `threshold_optimizer` needs Fairlearn, which is not installed: "
            "run `pip install 'fairdx[study]'`"
        ) from error
    loaded: ModuleType = module
    return loaded


def _identity() -> Any:
    """A fitted estimator whose decision function is its only feature: the model has been trained already."""
    from sklearn.base import BaseEstimator

    class Identity(BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
        def fit(self, features: Any, label: Any) -> Self:
            del features, label
            return self

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def decision_function(self, features: Any) -> Any:
            return np.asarray(features)[:, 0]

    return Identity()
