"""What a person sees while something takes its time."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SHOWN = {
    "validation/auroc": "AUC",
    "validation/accuracy": "ACC",
    "validation/approximate_diagnosis_fairness": "ADF",
}


class Reporter:
    """A progress bar on stderr with the latest validation scores behind it.

    Args:
        title: What is being done.
        total: Number of steps.
        enabled: Whether to show anything; with several processes only one should.
    """

    def __init__(self, title: str, total: int, *, enabled: bool = True) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[scores]}"),
            console=Console(stderr=True),
            disable=not enabled,
        )
        self._task = self._progress.add_task(title, total=total, scores="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, steps: int = 1) -> None:
        """Moves the bar on."""
        self._progress.advance(self._task, steps)

    def describe(self, record: dict[str, Any]) -> None:
        """Shows the validation scores of an epoch's record."""
        scores = (f"{short} {record[name]:.4f}" for name, short in SHOWN.items() if name in record)
        self._progress.update(self._task, scores=" ".join(scores))
