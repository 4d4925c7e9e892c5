"""A table of predictions and `fairdx audit` on it."""

from pathlib import Path

import pytest
from audit_table import QUICK, make


@pytest.fixture
def frame():
    return make()


@pytest.fixture
def path(frame, tmp_path) -> Path:
    frame.to_csv(tmp_path / "p.csv", index=False)
    return tmp_path / "p.csv"


@pytest.fixture
def run(here):
    def command(*arguments, label="y", score="p", group="sex"):
        columns = ["--label", label, "--score", score, "--group", group]
        done = here("audit", *columns, *QUICK, *arguments)
        return done.returncode, done.stdout, done.stderr

    return command
