"""Small data that several tests share."""

from pathlib import Path

import pytest

from fairdx.data.base import PreparedDataset
from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import prepare

SMALL = PhantomSettings(size=32, train=64, validation=48, test=64, seed=3)
"""A phantom that is prepared in a moment; large enough for both labels in both groups of every split."""


@pytest.fixture(scope="session")
def small_phantom(tmp_path_factory) -> PreparedDataset:
    folder: Path = tmp_path_factory.mktemp("phantom")
    return prepare(Phantom(SMALL).source(), folder / "set")
