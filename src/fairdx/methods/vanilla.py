"""No mitigation: the pretrained model as it is. What all other methods are measured against."""

from typing import final

from fairdx.methods.base import METHODS, MethodConfig
from fairdx.methods.pretraining import Pretrained


@final
@METHODS.register("vanilla")
class Vanilla(Pretrained):
    """Encoder and head after stage 1.

    Args:
        config: Settings; only those of stage 1.
        spec: What the data look like.
    """

    config_class = MethodConfig
