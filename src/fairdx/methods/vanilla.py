"""No mitigation: the pretrained model as it is. What all other methods are measured against."""

from typing import final

from torch import Tensor

from fairdx.methods.base import METHODS, Method, MethodConfig, Spec, Stage, build_diagnoser
from fairdx.methods.pretraining import pretraining_stage


@final
@METHODS.register("vanilla")
class Vanilla(Method):
    """Encoder and head after stage 1.

    Args:
        config: Settings; only those of stage 1.
        spec: What the data look like.
    """

    config_class = MethodConfig

    def __init__(self, config: MethodConfig, spec: Spec) -> None:
        self.diagnoser = build_diagnoser(config.pretraining, spec)
        self._pretraining = pretraining_stage(self.diagnoser, config.pretraining, spec)

    def stages(self) -> tuple[Stage, ...]:
        """Returns stage 1."""
        return (self._pretraining,)

    def logits(self, image: Tensor) -> Tensor:
        """Returns the deployed model's class logits (N, classes) for images (N, C, H, W) in [0, 1]."""
        return self._pretraining.logits(image)
