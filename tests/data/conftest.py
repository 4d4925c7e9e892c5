"""Small pictures in a folder."""

import pytest
from pictures import pictures


@pytest.fixture
def root(tmp_path):
    pictures(tmp_path / "source", 60)
    return tmp_path / "source"
