"""Whether masks bring a frozen model to the scores that its correction asks for."""

import logging
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fairdx.models.fair import FairModel
from fairdx.models.scoring import predict_seen
from fairdx.runs.data import RunData
from fairdx.runs.measure import Measured
from fairdx.runs.trained import Obtained

logger = logging.getLogger(__name__)

SOME: Final = 0.05
"""Share of test images that may fall short before that is said."""
SMALL: Final = 0.1
"""What is less than this part of the scores' standard deviation is no falling short."""
SMALLEST: Final = 1e-6
"""Scores are kept so far from 0 and 1 before their log-odds are taken: 32 bits tell no more."""


def note_of_masks(current: RunData, obtained: Obtained, fair: FairModel, measured: Measured) -> str | None:
    """Says, and returns, how many test images did not come near their corrected score.

    Args:
        current: The run.
        obtained: The frozen model, and what it made of the images.
        fair: The finished model.
        measured: Its scores.

    Returns:
        The sentence; None where the model has no such mask, or nearly all images come near.
    """
    if fair.realisation is None:
        return None
    test, table = current.images.task.indices("test"), measured.table
    seen = obtained.seen_by(fair, test)
    own = (seen.logit[:, 1] - seen.logit[:, 0]).astype(np.float64)
    wanted = _log_odds(predict_seen(fair.corrected, seen, obtained.seen.fabric)[:, 1])
    came = _log_odds(table.loc[table["split"] == "test", "score"].to_numpy(np.float64))
    short = short_of(own, wanted, came)
    if short.mean() <= SOME:
        return None
    plan = fair.realisation
    note = (
        f"the mask brings {short.sum()} of {len(test)} test images not even half of the way to their "
        f"corrected score (method.realise_steps={plan.steps}, method.realise_levels={plan.levels}): give "
        "more, or correct the score itself with method.realise=false"
    )
    logger.warning("method `%s`: %s", current.settings.method_name, note)
    return note


def short_of(
    own: NDArray[np.float64], wanted: NDArray[np.float64], came: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Returns which images end further from what was wanted than half of the way that they had to go.

    Small misses do not count, beside how far the scores of different images lie apart.

    Args:
        own: Log-odds of the images as they are, shape (n,).
        wanted: What they should come to.
        came: What they came to.
    """
    bound = np.maximum(np.abs(wanted - own) / 2, SMALL * own.std())
    return np.asarray(np.abs(came - wanted) > bound)


def _log_odds(score: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = np.clip(score, SMALLEST, 1 - SMALLEST)
    return np.asarray(np.log(kept / (1 - kept)))
