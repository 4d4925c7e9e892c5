"""Names of the files in a run folder: `experiment` writes them, `report` reads them."""

from typing import Final

RESULTS: Final = "results.json"
"""Every figure with its interval."""
PREDICTIONS: Final = "predictions.parquet"
"""One row for each image and method."""
HISTORY: Final = "history.parquet"
"""Losses and validation scores of every epoch."""
SAMPLES: Final = "samples.npz"
"""A few test images and what the model is shown instead."""
CONFIG: Final = "config.json"
"""Every setting of the run."""
ALL: Final = (RESULTS, CONFIG, PREDICTIONS, HISTORY, SAMPLES)
