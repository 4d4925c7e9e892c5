"""How an explanation is asked for."""

from pydantic import Field

from fairdx.core.config import Config, override, validate
from fairdx.models.layers import SMALLEST_SIDE


class ExplainSettings(Config):
    """What is looked at, and how closely; the table `[explain]` of a file."""

    images: int = Field(2000, ge=20)
    """Test images, drawn at random where there are more."""
    layer: str | None = None
    """Layer of Grad-CAM, by its name in the model; by default the last spatial one that is fine enough."""
    smallest_side: int = Field(SMALLEST_SIDE, ge=2)
    """Cells along a side that this layer needs. At 64 pixels the last convolution of a ResNet has 2 x 2, of
    which each is a quarter of the image; 2 takes it all the same, as in the paper."""
    second_opinion: int = Field(64, ge=20)
    """Images of which occlusion maps are made as well, and on which deletion is tried: the first of those
    above."""
    occlusion_cells: int = Field(8, ge=2)
    """Squares along a side that occlusion covers."""
    deals: int = Field(39, ge=0)
    """How often the groups are dealt again by lot, to see what overlap there is without any group; 0 leaves
    it out."""
    dealt_images: int = Field(64, ge=20)
    """Images of which Grad-CAM of dealt groups is made, the first of those above. Occlusion takes all that it
    covers: there it costs next to nothing."""
    counterfactuals: int = Field(500, ge=0)
    """Patients of the phantom that are drawn as either group; 0 leaves them out."""
    shown: int = Field(2, ge=1)
    """Images of each group and label in the figure, drawn at random."""
    level: float = Field(0.95, gt=0, lt=1)
    """Nominal coverage of the intervals."""
    seed: int = Field(0, ge=0)
    """Of the images, the folds of the probe, and the shuffled pairs."""


def load_explain_settings(assignments: tuple[str, ...] = ()) -> ExplainSettings:
    """Returns the settings with changes of the form `key=value`, as `second_opinion=200`.

    Raises:
        InputError: A key or a value cannot be used.
    """
    return validate(ExplainSettings, override({}, assignments), where="settings of explain")
