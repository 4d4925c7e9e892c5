"""No mitigation: the model as it is. What all other methods are measured against."""

from typing import final

from fairdx.methods.base import METHODS, Method, MethodConfig, Spec, Stage
from fairdx.models.diagnosis import DiagnosisModel
from fairdx.models.fair import FairModel


@final
@METHODS.register("vanilla")
class Vanilla(Method):
    """The diagnosis model, and nothing else.

    Args:
        config: There is nothing to set.
        spec: What the data look like.
        model: The diagnosis model.
    """

    config_class = MethodConfig

    def __init__(self, config: MethodConfig, spec: Spec, model: DiagnosisModel) -> None:
        del config, spec
        self.model, self.fair = model, FairModel(model)

    def stages(self) -> tuple[Stage, ...]:
        """Returns no stage."""
        return ()
