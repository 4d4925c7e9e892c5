"""Several processes at one run: they begin on the same settings, folder and data, or not at all."""

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from lightning_fabric import Fabric
from torch import distributed

from fairdx.core.errors import InputError, room_in, writing_to
from fairdx.core.locks import locked

T = TypeVar("T")


@contextmanager
def held(folder: Path, fabric: Fabric, *, hold: bool = True) -> Iterator[None]:
    """Makes a folder, and holds it for the first process and those that belong to it.

    Args:
        folder: What they write to.
        fabric: The processes.
        hold: Whether to hold it; False where the caller does.

    Raises:
        InputError: It cannot be made, or another process writes to it.
        fairdx.core.errors.DiskError: The disk is full.
    """
    if fabric.is_global_zero:
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
    mine = hold and fabric.is_global_zero
    with room_in(folder), locked(folder, required=False) if mine else nullcontext():
        yield


def in_all(fabric: Fabric, work: Callable[[], T]) -> T:
    """Does the same in every process, in the first one first; where one of them cannot, all stop.

    Args:
        fabric: The processes.
        work: What to do; must exchange nothing.

    Returns:
        What it made in this process.

    Raises:
        InputError: It cannot be done in some process. The first one says so, the others end.
    """
    if fabric.world_size == 1:
        return work()
    made: list[T] = []
    said = ""
    with fabric.rank_zero_first():
        try:
            made.append(work())
        except InputError as error:
            said = str(error)
    found: list[Any] = [None] * fabric.world_size
    distributed.all_gather_object(found, (socket.gethostname(), said))
    failed = next(((host, told) for host, told in found if told), None)
    if failed is None:
        return made[0]
    if not fabric.is_global_zero:
        sys.exit(0)  # any other status would count as a crash
    host, told = failed
    raise InputError(told if host == found[0][0] else f"on {host}: {told}")


def check_together(fabric: Fabric, settings: Any, folder: Path) -> None:
    """Finds out whether all processes have the same settings and see the same folder.

    Args:
        fabric: The processes.
        settings: What decides on the run, as plain values.
        folder: Where the first process writes to, and made.

    Raises:
        InputError: They have not, or do not.
    """
    if fabric.world_size == 1:
        return
    theirs, name = fabric.broadcast((settings, f".shared-{uuid4().hex}"))
    sign = folder / name
    if fabric.is_global_zero:
        sign.touch()

    def check() -> None:
        if settings != theirs:
            raise InputError("this process was started with other settings than the first one")
        if not sign.exists():
            raise InputError(
                f"{folder} is not what the first process writes to: give an --out on a disk that all "
                "machines share, under the same path"
            )

    try:
        in_all(fabric, check)
    finally:
        if fabric.is_global_zero:
            sign.unlink(missing_ok=True)


def check_same_data(fabric: Fabric, content: str, root: Path) -> None:
    """Finds out whether all processes read the same data; they may be copies.

    Args:
        fabric: The processes.
        content: Hash of the data.
        root: Where they are.

    Raises:
        InputError: They do not.
    """
    theirs = fabric.broadcast(content)

    def check() -> None:
        if content != theirs:
            raise InputError(f"{root} holds other data than the first process reads")

    in_all(fabric, check)
