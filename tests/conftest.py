"""Small data that several tests share."""

import resource
from contextlib import contextmanager
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


@contextmanager
def _full_disk(folder, largest=16):
    """No file grows beyond so many bytes: a write fails as on a full disk, and one sentence has to say so."""
    from fairdx.core.errors import DiskError

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
    try:
        with pytest.raises(DiskError) as failed:
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    told = str(failed.value)
    assert told.startswith(f"cannot write to {folder}: "), told
    assert "; what was there is kept: free some space" in told
    assert len(told.splitlines()) == 1


@pytest.fixture
def full_disk():
    """A context in which writing to a folder fails, and is expected to say so."""
    return _full_disk
