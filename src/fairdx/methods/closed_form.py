"""What the methods have in common that are fitted to what a frozen model makes of images."""

import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np

from fairdx.core.errors import InputError
from fairdx.methods.base import Features, Method, MethodConfig, Spec, Stage
from fairdx.methods.out_of_fold import unseen
from fairdx.models.diagnosis import DiagnosisModel
from fairdx.models.fair import Correction, FairModel

logger = logging.getLogger(__name__)

FEW: Final = 10
"""Images of a group and class below which a fit says nothing of them: a rate of 10 is known to about 0.3
either way, which is more than any gap that is corrected."""
NAMED: Final = 5
"""Of them that are named."""


class ClosedForm(Method):
    """A method with a correction behind a model that stays as it is.

    Args:
        config: Settings.
        spec: What the data look like.
        model: The frozen model.
        correction: What `solve` fits.

    Attributes:
        name: The method's, which is also that of its stage.
    """

    name: ClassVar[str]

    def __init__(
        self, config: MethodConfig, spec: Spec, model: DiagnosisModel, correction: Correction
    ) -> None:
        self.config, self.spec, self.model = config, spec, model
        self.fair = FairModel(model, correction=correction)
        self._correction = correction

    def stages(self) -> tuple[Stage, ...]:
        """Returns the stage in which the correction is fitted."""
        stage = Stage(
            name=self.name,
            modules={"correction": self._correction},
            players=(),
            epochs=1,
            batch_size=1,
            logits=self.logits,
            choose="last",
            config=self.config.model_dump(mode="json"),
            solve=self._solve_and_say,
            features=self.fair.plain,
            corrected=None if self._correction.edits else self.fair.corrected,
        )
        return (stage,)

    def _solve_and_say(self, train: Features, validation: Features) -> Mapping[str, Any]:
        """Fits the correction, and says of which patients there were too few to fit it to."""
        record = dict(self.solve(train, validation) or {})
        few = _few(unseen(train, validation).images, self.spec)
        if few and "note" not in record:
            record["note"] = (
                f"it is fitted to fewer than {FEW} images of some groups ({few}): what it does to the scores "
                "of such patients is a guess"
            )
            logger.warning("method `%s`: %s", self.name, record["note"])
        return record

    @abstractmethod
    def solve(self, train: Features, validation: Features) -> Mapping[str, Any] | None:
        """Fits the correction.

        Args:
            train: What the model makes of the training images, which it may have learnt by heart.
            validation: What it makes of the validation images.

        Returns:
            What is to be recorded of it, if anything.
        """


def _few(images: Features, spec: Spec) -> str:
    """Names the groups and classes with fewer images than `FEW`, and how many they are; empty without any."""
    counts = np.zeros((spec.groups, spec.classes), dtype=np.int64)
    np.add.at(counts, (images.group, images.label), 1)
    names = spec.group_names or tuple(str(code) for code in range(spec.groups))
    few = [f"{names[s]} with label {y}: {counts[s, y]}" for s, y in np.argwhere(counts < FEW)]
    more = [f"and {len(few) - NAMED} more"] if len(few) > NAMED else []
    return ", ".join([*few[:NAMED], *more])


def require_embedding(method: str, model: DiagnosisModel) -> int:
    """Returns the length of the embedding.

    Args:
        method: Name of the method, for the message.
        model: The frozen model.

    Raises:
        InputError: The model shows none.
    """
    if model.features is None:
        raise InputError(
            f"method `{method}` looks at the embedding, and this model shows none; name its layer in "
            "`model.contract.embedding`"
        )
    return model.features


def require_one_score(method: str, spec: Spec) -> None:
    """Refuses a label of more than two classes.

    Args:
        method: Name of the method, for the message.
        spec: What the data look like.

    Raises:
        InputError: There are more.
    """
    if spec.classes != 2:
        raise InputError(f"method `{method}` moves one score, and the label has {spec.classes} classes")
