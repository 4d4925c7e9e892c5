"""Where training can stop and go on as if it had not: after every step of an epoch, and after every epoch."""

import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fairdx.core.signals import KeptBack
from fairdx.methods.base import Losses
from fairdx.models.runtime import generator_states

if TYPE_CHECKING:
    from fairdx.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Position:
    """How far an epoch has come in one process; all of it that neither weights nor optimizers know.

    Attributes:
        step: Steps that are done.
        sums: Of the loss terms over these steps.
        generators: States of the random generators after them; empty at the start of an epoch.
    """

    step: int = 0
    sums: Losses = field(default_factory=dict)
    generators: dict[str, Tensor] = field(default_factory=dict)

    def after(self, terms: Losses) -> "Position":
        """The position one step later, in which the loss terms were these."""
        sums = {
            name: self.sums[name] + value if name in self.sums else value for name, value in terms.items()
        }
        return Position(self.step + 1, {**self.sums, **sums})


class Pauses:
    """Saves a stage while it is trained, every few minutes, and stops where the process is asked to end.

    All processes of a run stop at the same step, whichever of them is asked.

    Args:
        checkpoint: Where to save.
        signals: What asks the process to end.
        minutes: How often to save within an epoch; 0 for never.
    """

    def __init__(self, checkpoint: "Checkpoint", signals: KeptBack, minutes: float) -> None:
        self.checkpoint, self.signals, self.minutes = checkpoint, signals, minutes
        self.fabric = checkpoint.run.fabric
        self._saved = time.monotonic()

    def after_step(self, position: Position, *, waited: bool) -> None:
        """Saves and stops, if it is time to.

        Args:
            position: Where the epoch is.
            waited: Whether the device was waited for after this step anyway; several processes agree only
                then, for to agree is to wait.

        Raises:
            KeyboardInterrupt: The process is asked to end; unless the signal ends it at once.
        """
        if self.fabric.world_size > 1 and not waited:
            return
        due = self.minutes > 0 and time.monotonic() - self._saved > 60 * self.minutes
        asked, due = self._agreed(due)
        if asked or due:
            self._save(replace(position, generators=generator_states(self.fabric.device)))
        if asked:
            self._stop(asked)

    def after_epoch(self) -> None:
        """Saves, and stops if the process is asked to end.

        Raises:
            KeyboardInterrupt: It is; unless the signal ends it at once.
        """
        self._save(Position())
        asked, _ = self._agreed(False)
        if asked:
            self._stop(asked)

    def _save(self, position: Position) -> None:
        self.checkpoint.save_last(position)
        self._saved = time.monotonic()

    def _agreed(self, due: bool) -> tuple[int, bool]:
        """What any process is asked: to end, by which signal, and to save."""
        if self.fabric.world_size == 1:
            return self.signals.asked, due
        both = torch.tensor([self.signals.asked, int(due)], device=self.fabric.device)
        torch.distributed.all_reduce(both, torch.distributed.ReduceOp.MAX)
        return int(both[0]), bool(both[1])

    def _stop(self, asked: int) -> None:
        self.fabric.barrier()  # nobody leaves before all is saved
        if not self.fabric.is_global_zero:
            sys.exit(0)  # the first process says so, and any other status would count as a crash
        self.signals.deliver(asked)
