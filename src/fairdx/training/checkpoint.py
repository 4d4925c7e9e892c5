"""A stage on disk: every file whole and with its hash; a damaged one is named, and never used."""

import io
import json
import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fairdx.core.errors import InputError
from fairdx.core.files import parse_json, read_sealed, set_aside, write_sealed
from fairdx.training.choice import Record
from fairdx.training.pauses import Position

if TYPE_CHECKING:
    from fairdx.training.fit import Fit

logger = logging.getLogger(__name__)

BEST: Final = "best.safetensors"
LAST: Final = "last.pt"
FINISHED: Final = "history.json"
"""What a stage's folder has when the stage is finished."""


_DAMAGE = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    EOFError,
    RuntimeError,
    SafetensorError,
    pickle.UnpicklingError,
)
"""What files that hold something else raise when they are read, beside the `InputError` of a wrong hash."""


_STATE: Final = {
    "modules",
    "average",
    "optimizers",
    "schedulers",
    "history",
    "best",
    "best_weights",
    "processes",
}

T = TypeVar("T")


class Checkpoint:
    """A stage on disk: the best weights as safetensors, and what it takes to go on after the last step."""

    def __init__(self, folder: Path, run: "Fit") -> None:
        self.run, self.folder = run, folder
        self.best, self.last, self.done = folder / BEST, folder / LAST, folder / FINISHED
        folder.mkdir(parents=True, exist_ok=True)

    def save_last(self, position: Position) -> None:
        """Writes what it takes to go on; every process has to call it.

        Args:
            position: Where this process is in the epoch under way.
        """
        run = self.run
        # What differs from process to process; every other tensor is the same in all.
        own = {**vars(position), "buffers": [buffer.cpu() for buffer in run.buffers()]}
        processes = _gathered(own, run.fabric)
        if not run.fabric.is_global_zero:
            return
        state = {
            "modules": {name: module.state_dict() for name, module in run.stage.modules.items()},
            "average": run.average.state_dict(),
            "optimizers": [learner.optimizer.state_dict() for learner in run.learners],
            "schedulers": [learner.scheduler.state_dict() for learner in run.learners],
            "history": run.history,
            "best": run.history.index(cast(Record, run.best)),
            "best_weights": run.best_weights,
            "processes": processes,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_sealed(self.last, buffer.getvalue())

    def load_last(self) -> bool:
        """Goes on from the last step saved; False where there is none, or it was damaged and is set aside.

        Raises:
            InputError: It is whole, and of another stage.
        """
        state = _unless_damaged(self.last, lambda: _read_last(self.last, self.run.fabric.device))
        if state is None:
            return False
        run = self.run
        with _fitting(self.last):
            run.load_weights(state["modules"])
            run.average.load_state_dict(state["average"])
            for learner, optimizer, scheduler in zip(
                run.learners, state["optimizers"], state["schedulers"], strict=True
            ):
                learner.optimizer.load_state_dict(optimizer)
                learner.scheduler.load_state_dict(scheduler)
            run.history, run.best_weights = state["history"], state["best_weights"]
            run.best = run.history[state["best"]]
            own = dict(state["processes"][run.fabric.global_rank])
            for buffer, saved in zip(run.buffers(), own.pop("buffers"), strict=True):
                buffer.copy_(saved)
            run.position = Position(**own)
        return True

    def save_finished(self) -> None:
        """Writes the best weights and the history, and removes what was only there to go on."""
        flat = {
            f"{module}/{key}": value.contiguous()
            for module, state in self.run.best_weights.items()
            for key, value in state.items()
        }
        write_sealed(self.best, save(flat))
        write_sealed(self.done, json.dumps(self.run.history, indent=1).encode())
        self.last.unlink(missing_ok=True)

    def load_finished(self) -> bool:
        """Loads a finished stage; False where there is none, or it was damaged and is set aside.

        Raises:
            InputError: It is whole, and of another stage.
        """
        found = _unless_damaged(self.done, lambda: read_finished(self.folder))
        if found is None:
            return False
        with _fitting(self.best):
            self.run.load_weights(found[1])
        self.run.history = found[0]
        return True


def _gathered(own: dict[str, Any], fabric: Fabric) -> list[dict[str, Any]]:
    """What every process has, in the first one."""
    if fabric.world_size == 1:
        return [own]
    own["sums"] = {name: value.cpu() for name, value in own["sums"].items()}
    found: list[Any] = [None] * fabric.world_size
    torch.distributed.gather_object(own, found if fabric.is_global_zero else None)
    return found


def _unless_damaged(path: Path, read: Callable[[], T]) -> T | None:
    """Reads what is there; a damaged file gets another name, for it must not be in the way for ever."""
    if not path.exists():
        return None
    try:
        return read()
    except InputError as error:
        aside = set_aside(path).name
        logger.warning("%s; %s is set aside as %s, and the stage is trained again", error, path.name, aside)
        return None


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Names the file whose content does not fit the stage."""
    try:
        yield
    except _DAMAGE as error:
        raise InputError(
            f"{path} does not fit this stage ({str(error).splitlines()[0]}): delete it"
        ) from error


def read_finished(folder: Path) -> tuple[list[Record], dict[str, dict[str, Tensor]]]:
    """Reads a finished stage.

    Args:
        folder: Its folder.

    Returns:
        What was recorded, and the best weights by module.

    Raises:
        InputError: A file is missing or damaged; the message names it.
    """
    done, best = folder / FINISHED, folder / BEST
    history = _read(done, parse_json)
    if not isinstance(history, list) or not history or not all(_is_record(one) for one in history):
        raise InputError(f"{done} is damaged: it holds no records of epochs")
    weights: dict[str, dict[str, Tensor]] = {}
    for key, value in _read(best, load).items():
        module, _, name = key.partition("/")
        weights.setdefault(module, {})[name] = value
    return history, weights


def _read_last(path: Path, device: torch.device) -> dict[str, Any]:
    state = _read(path, lambda data: torch.load(io.BytesIO(data), map_location=device, weights_only=True))
    missing = _STATE - set(state) if isinstance(state, dict) else _STATE
    if missing:
        raise InputError(f"{path} is damaged: it lacks {', '.join(sorted(missing))}")
    return cast(dict[str, Any], state)


def _read(path: Path, parse: Callable[[bytes], Any]) -> Any:
    data = read_sealed(path)
    try:
        return parse(data)
    except (*_DAMAGE,) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def _is_record(one: Any) -> bool:
    return isinstance(one, dict) and {"stage", "epoch", "kept"} <= set(one)
