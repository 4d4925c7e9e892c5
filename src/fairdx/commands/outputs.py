"""Where a command writes: checked before anything is computed, and never over an input or another output."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fairdx.core.errors import InputError, room_in
from fairdx.core.files import write_whole

STANDARD_OUTPUT = "-"


def check_outputs(outputs: Mapping[str, Path | None], inputs: Sequence[str | Path]) -> None:
    """Check that outputs can be written and overwrite nothing that is read or written.

    Args:
        outputs: By option; None where nothing is written, "-" for standard output.
        inputs: What is read.

    Raises:
        InputError: One cannot be written, or is the same file as an input or another output.
    """
    taken: dict[str, Path] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        for other, before in taken.items():
            if _same(path, before):
                raise InputError(f"{option} and {other} would both write to {path}; name two files")
        taken[option] = path
        if str(path) == STANDARD_OUTPUT:
            continue
        for given in inputs:
            if _same(path, Path(given)):
                raise InputError(f"{option} {path} would overwrite what is read; name another file")
        _check_writable(path)


def _same(one: Path, two: Path) -> bool:
    try:
        return one == two or one.samefile(two)
    except OSError:  # one of them is not there yet
        return one.resolve() == two.resolve()


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    if place != path and not place.is_dir():
        raise InputError(f"cannot write {path}: {place} is no folder")
    if not os.access(place, os.W_OK):
        raise InputError(f"cannot write {path}: {place} may not be written to")


def write_output(path: Path, text: str) -> None:
    """Write an output whole, or to standard output.

    Args:
        path: Where; folders are made if needed.
        text: What.

    Raises:
        InputError: It cannot be written.
    """
    if str(path) == STANDARD_OUTPUT:
        sys.stdout.flush()
        # As in a file, whatever the terminal is set to.
        sys.stdout.buffer.write((text if text.endswith("\n") else text + "\n").encode())
        sys.stdout.buffer.flush()
        return
    path = path.resolve()  # so that a link is followed and not replaced
    try:
        with room_in(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not path.is_file():  # a device or a pipe
                path.write_text(text, encoding="utf-8")
            else:
                write_whole(path, text.encode())
    except OSError as error:
        raise InputError(f"cannot write {error.filename or path}: {error.strerror or error}") from error
