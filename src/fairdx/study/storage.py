"""Who does which run: every run is a trial of an Optuna study in a database, taken by one worker at a time.

The default database is a SQLite file in the study's folder, which one process holds. Any other database may
be used by many workers at once: each records a heartbeat while it works, and the run of one that died is
given to another.
"""

import logging
import re
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote, unquote_plus

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from fairdx.core.errors import InputError
from fairdx.core.locks import locked

logger = logging.getLogger(__name__)

Direction = Literal["minimize", "maximize"]

DATABASE: Final = "study.db"
KEY: Final = "key"
"""Attribute of a trial: the key of its run."""
ROW: Final = "row"
"""Attribute of a finished trial: what came out."""
FAILURE: Final = "failure"
"""Attribute of a failed trial: why. A trial that failed without it was interrupted, and is done again."""
HEARTBEAT: Final = 30
"""Seconds between two signs of life of a worker on a shared database."""
GRACE = 120
"""Seconds of silence after which another worker takes over."""


class RunFailedError(RuntimeError):
    """A run cannot be finished; the study goes on without it."""


class Trials:
    """The trials of one study.

    Args:
        name: Name of the study in the database.
        folder: The study's folder.
        url: Database that several workers share; None for a file in `folder`.
        directions: Of each value that a trial returns.

    Raises:
        InputError: The database cannot be used, or it holds another study: the one in a folder has one alone.
    """

    def __init__(self, name: str, folder: Path, url: str | None, directions: Sequence[Direction]) -> None:
        self.shared = url is not None
        self._ours: set[int] = set()
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # the study says itself what failed
        # A sampler is only asked by a search, which sets its own.
        self.study, self._storage = _connected(
            url or f"sqlite:///{(folder / DATABASE).absolute()}", name, directions, shared=self.shared
        )

    def close(self) -> None:
        """Closes all connections to the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def hold(self, folder: Path) -> Any:
        """A context in which no other process may work on the folder, unless the database is shared."""
        return nullcontext() if self.shared else locked(folder)

    def all(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials in order, those in a state alone if any is given."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def give_back(self) -> None:
        """Marks as interrupted what dead workers were doing."""
        if self.shared:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                fail_stale_trials(self.study)
            return
        for trial in self.all(TrialState.RUNNING):
            if trial.number not in self._ours:  # we hold the folder, so nobody else is at it
                self.study.tell(trial.number, state=TrialState.FAIL)

    def enqueue(self, keys: Collection[str], *, again: bool = False) -> None:
        """Puts every run in the queue that is not in it, under way, finished or failed.

        Args:
            keys: Keys of the runs.
            again: Whether those that failed are to be run again.
        """
        settled = {trial.user_attrs.get(KEY) for trial in self.all() if _settled(trial, again=again)}
        for key in keys:
            if key not in settled:
                self.study.enqueue_trial({}, user_attrs={KEY: key})

    def work(self, objective: Callable[[Trial], float | Sequence[float]]) -> None:
        """Does one trial: the first in the queue, or a new one.

        Args:
            objective: Does it and returns its values; a `RunFailedError` is recorded with its message.
        """

        def watched(trial: Trial) -> float | Sequence[float]:
            self._ours.add(trial.number)
            try:
                return objective(trial)
            except RunFailedError as error:
                trial.set_user_attr(FAILURE, str(error))
                raise
            finally:
                self._ours.remove(trial.number)
                if self.all()[trial.number].state.is_finished():
                    taken.append(trial.number)

        taken: list[int] = []
        try:
            self.study.optimize(watched, n_trials=1, catch=(RunFailedError,))
        except ValueError:  # of Optuna, about any trial that somebody else has ended
            if not taken:
                raise
            logger.warning("this process was silent for too long (asleep?), and its run was given to another")

    def is_double(self, trial: Trial) -> bool:
        """Whether an earlier trial is of the same run: two workers who start at once both fill the queue."""
        key = trial.user_attrs.get(KEY)
        alive = self.all(TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
        return any(other.user_attrs.get(KEY) == key and other.number < trial.number for other in alive)


def _settled(trial: FrozenTrial, *, again: bool) -> bool:
    if trial.state == TrialState.FAIL:
        return FAILURE in trial.user_attrs and not again
    return trial.state != TrialState.PRUNED


def _connected(
    url: str, name: str, directions: Sequence[Direction], *, shared: bool
) -> tuple[optuna.Study, RDBStorage]:
    """Opens a study, or makes it: of workers who start at once all but the first fail to, and try again."""
    if url.startswith(("postgresql://", "postgres://")):
        url = f"postgresql+psycopg://{url.partition('://')[2]}"
    for attempt in range(5):
        try:
            storage = _storage(url, shared=shared)
            others = (
                [] if shared else [other for other in optuna.get_all_study_names(storage) if other != name]
            )
            if others:
                raise InputError(f"{url} is of the study `{others[0]}`, not of `{name}`: give another --out")
            study = optuna.create_study(
                study_name=name, storage=storage, directions=directions, load_if_exists=True
            )
            if [direction.name.lower() for direction in study.directions] != list(directions):
                raise InputError(
                    f"there is another kind of study under the name `{name}` (a search, or a grid): give "
                    "another --out, or with --storage another `study.name`"
                )
            return study, storage
        except (ArgumentError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            # What stands where in such an address is not known, the password's place least of all.
            raise InputError(
                "the address given by --storage is not one as postgresql://user@host:5432/database (it is "
                "not shown, for it may hold a password; in a password, write @ as %40, : as %3A and / as %2F)"
            ) from None
        except ImportError as error:
            driver = getattr(error.__cause__ or error, "name", None) or "its Python package"
            raise InputError(
                f"--storage: the driver of the database is not installed ({driver}); for PostgreSQL: "
                "pip install 'fairdx[postgresql]'"
            ) from None
        except SQLAlchemyError as error:
            if attempt == 4:
                raise InputError(_cannot_use(url, error, folder=None if shared else url)) from None
            time.sleep(0.2 * 2**attempt)
    raise AssertionError


def _cannot_use(url: str, error: SQLAlchemyError, *, folder: str | None) -> str:
    """What is wrong with a database, without anything of its address that may be secret."""
    reason = (str(getattr(error, "orig", error)).strip().splitlines() or [""])[0]
    if folder is not None:
        return f"cannot use the database {url.removeprefix('sqlite:///')}: {reason}"
    parts = make_url(url)
    shown = f"{parts.get_backend_name()} at {parts.host or 'this machine'}"
    user, at, _ = url.rpartition("@")
    doubtful = "@" in user or (at and "?" in user)  # an @ that is part of something else
    if doubtful or any(secret in shown or secret in reason for secret in _secrets(url)):
        shown, reason = "that --storage names", f"{type(error).__name__}, whose words would show the password"
    return f"--storage: cannot use the database {shown}: {reason}"


def _secrets(url: str) -> set[str]:
    """All parts of an address that may be a password or a piece of one, as they are and decoded.

    A / that is not escaped moves the end of a password into what is taken for the database, and an option can
    be a password too. So everything counts between the first colon of the user and the @, and every value
    behind the question mark.
    """
    address, _, query = url.partition("://")[2].partition("?")
    found = re.split(r"[@:/]", address.rpartition("@")[0].partition(":")[2])
    found += [value.partition("=")[2] for value in query.split("&")]
    return {form for part in found if part for form in (part, unquote(part), unquote_plus(part))}


def _storage(url: str, *, shared: bool) -> RDBStorage:
    if not shared:
        return RDBStorage(url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RDBStorage(url, heartbeat_interval=HEARTBEAT, grace_period=GRACE)
