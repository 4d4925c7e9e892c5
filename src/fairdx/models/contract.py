"""What a model that was trained elsewhere takes, and what it gives: its input contract. Needs no torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from fairdx.core.config import Config


class Contract(Config):
    """How images in [0, 1] become what a model takes, and how its output becomes a diagnosis.

    A value v in [0, 1] becomes (low + v (high - low) - mean) / std, channel by channel.
    """

    channels: Literal[1, 3] = 3
    """Channels that the model takes; grey images are repeated, colours become ITU-R 601 luma."""
    size: int | None = Field(None, ge=8, le=4096)
    """Height and width that the model takes, in pixels; images of another size are scaled with antialiasing.
    None: any."""
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    """Order of the axes: channels first, or last as in Keras."""
    colours: Literal["RGB", "BGR"] = "RGB"
    """Order of the channels."""
    low: float = 0.0
    """What the model takes for black."""
    high: float = 1.0
    """What the model takes for white: 1, 255, or 1024 beside a `low` of -1024."""
    mean: tuple[float, ...] = (0.0,)
    """Subtracted, in units of `low` and `high`: one number, or one for each channel."""
    std: tuple[float, ...] = (1.0,)
    """Divided by: one number, or one for each channel."""
    output: Literal["logits", "probabilities", "log_probabilities"] = "logits"
    """What the output columns are."""
    separate: bool = False
    """Whether each column is a finding of its own (sigmoid), instead of one of several classes (softmax). A
    single column always is."""
    outputs: tuple[str, ...] = ()
    """Names of the output columns, in order; none where they have none."""
    finding: tuple[int | str, ...] = ()
    """The columns, by number from 0 or by name, that together are the finding: of a model with many diseases
    the one, or of seven kinds of lesion the malignant three. None given: a single column is the finding, and
    several are the classes of the label in the order of the data set."""
    embedding: str | None = "auto"
    """The layer whose input is the embedding, by its name in the model: `auto` takes the input of the last
    linear layer where there is one, null says that there is none to look at."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.low == self.high:
            raise ValueError("`low` and `high` are equal: black and white would be the same")
        for key in ("mean", "std"):
            if len(getattr(self, key)) not in (1, self.channels):
                raise ValueError(f"`{key}` has {len(getattr(self, key))} numbers; give 1 or {self.channels}")
        if any(value <= 0 for value in self.std):
            raise ValueError("`std` holds a number that is not above 0")
        if len(set(self.outputs)) < len(self.outputs):
            raise ValueError("`outputs` names a column twice")
        for column in self.finding:
            if isinstance(column, str) and column not in self.outputs:
                known = ", ".join(self.outputs) or "none: give them as `outputs`"
                raise ValueError(f"`finding`: there is no output `{column}`, only {known}")
        return self

    def columns(self) -> tuple[int, ...]:
        """Returns the numbers of the columns that together are the finding."""
        return tuple(self.outputs.index(c) if isinstance(c, str) else c for c in self.finding)
