"""Who hears what training finds: the loop tells, and nothing that they do comes back to it."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pandas as pd

from fairdx.core.cells import as_text
from fairdx.core.files import write_whole
from fairdx.training.choice import Record


class Observer(Protocol):
    """Hears of every epoch, in the first process alone."""

    def begun(self, history: Sequence[Record]) -> None:
        """Hears that a stage begins, or goes on.

        Args:
            history: What is known already: the state before training, and every epoch of an earlier process.
        """

    def recorded(self, record: Record) -> None:
        """Hears that an epoch is over.

        Args:
            record: What it found.
        """

    def ended(self, history: Sequence[Record]) -> None:
        """Hears that a stage is finished, or was before.

        Args:
            history: All its records, which now say whose weights were `kept`.
        """


class CsvFile:
    """Every record of all stages as a table that can be read while the training goes on.

    Args:
        path: The file; written whole after every epoch.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stages: dict[str, list[Record]] = {}

    def begun(self, history: Sequence[Record]) -> None:
        """Writes what is known already."""
        self._stages[history[0]["stage"]] = list(history)
        self._write()

    def recorded(self, record: Record) -> None:
        """Writes an epoch."""
        self._stages[record["stage"]].append(record)
        self._write()

    def ended(self, history: Sequence[Record]) -> None:
        """Writes a stage once more, with what was kept."""
        self.begun(history)

    def _write(self) -> None:
        rows = [
            {name: as_text(value) if isinstance(value, str) else value for name, value in record.items()}
            for history in self._stages.values()
            for record in history
        ]
        text = io.StringIO()
        pd.DataFrame(rows).to_csv(text, index=False, lineterminator="\n")
        write_whole(self.path, text.getvalue().encode())
