"""What the methods have in common that are fitted to what a frozen model makes of images."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from fairdx.core.errors import InputError
from fairdx.methods.base import Features, Method, MethodConfig, Spec, Stage
from fairdx.models.diagnosis import DiagnosisModel
from fairdx.models.fair import Correction, FairModel


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
            solve=self.solve,
            features=self.fair.plain,
            corrected=None if self._correction.edits else self.fair.corrected,
        )
        return (stage,)

    @abstractmethod
    def solve(self, train: Features, validation: Features) -> Mapping[str, Any] | None:
        """Fits the correction.

        Args:
            train: What the model makes of the training images, which it may have learnt by heart.
            validation: What it makes of the validation images.

        Returns:
            What is to be recorded of it, if anything.
        """


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
