"""A stage on disk."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fairdx.core.files import replace_whole
from fairdx.training.choice import Record

if TYPE_CHECKING:
    from fairdx.training.fit import Fit


class Checkpoint:
    """A stage on disk: the best weights as safetensors, and what it takes to go on after the last epoch."""

    def __init__(self, folder: Path, run: "Fit") -> None:
        self.run, self.folder = run, folder
        self.best, self.last, self.done = (
            folder / "best.safetensors",
            folder / "last.pt",
            folder / "history.json",
        )
        folder.mkdir(parents=True, exist_ok=True)

    def save_last(self) -> None:
        """Writes what it takes to go on after the last epoch."""
        run = self.run
        state = {
            "modules": {name: module.state_dict() for name, module in run.stage.modules.items()},
            "average": run.average.state_dict(),
            "optimizers": [learner.optimizer.state_dict() for learner in run.learners],
            "schedulers": [learner.scheduler.state_dict() for learner in run.learners],
            "history": run.history,
            "best": run.history.index(cast(Record, run.best)),
            "best_weights": run.best_weights,
        }
        replace_whole(self.last, lambda path: torch.save(state, path))

    def load_last(self) -> bool:
        """Goes on from the last epoch; False where there is none."""
        if not self.last.exists():
            return False
        run = self.run
        state = torch.load(self.last, map_location=run.fabric.device, weights_only=True)
        run.load_weights(state["modules"])
        run.average.load_state_dict(state["average"])
        for learner, optimizer, scheduler in zip(
            run.learners, state["optimizers"], state["schedulers"], strict=True
        ):
            learner.optimizer.load_state_dict(optimizer)
            learner.scheduler.load_state_dict(scheduler)
        run.history, run.best_weights = state["history"], state["best_weights"]
        run.best = run.history[state["best"]]
        return True

    def save_finished(self) -> None:
        """Writes the best weights and the history, and removes what was only there to go on."""
        flat = {
            f"{module}/{key}": value.contiguous()
            for module, state in self.run.best_weights.items()
            for key, value in state.items()
        }
        replace_whole(self.best, lambda path: save_file(flat, path))
        replace_whole(self.done, lambda path: path.write_text(json.dumps(self.run.history, indent=1)))
        self.last.unlink(missing_ok=True)

    def load_finished(self) -> bool:
        """Loads a finished stage; False where there is none."""
        if not self.done.exists():
            return False
        run = self.run
        run.history = json.loads(self.done.read_text())
        weights: dict[str, dict[str, Tensor]] = {}
        for key, value in load_file(self.best).items():
            module, _, name = key.partition("/")
            weights.setdefault(module, {})[name] = value
        run.load_weights(weights)
        return True
