"""Real images, but fewer: the tests show that the way is open, and it is as long for every image."""

from dataclasses import replace

import pytest


def _fewer(source, part):
    """A source with one patient in so many, of its own patients."""
    code = source.table["patient"].astype("category").cat.codes
    return replace(source, table=source.table[code % part == 0].reset_index(drop=True))


@pytest.fixture(scope="session")
def fewer():
    """A source with one patient in so many."""
    return _fewer
