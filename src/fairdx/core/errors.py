"""The one exception for bad input, so that the command line can tell it from a failure of our own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """What the user gave cannot be used; the message is one sentence that names the file, row or key.

    The command line prints the message to stderr and exits with status 2.
    """


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turns a failure to write into the `InputError` that names the folder.

    Args:
        folder: What is written to inside the `with` block.

    Raises:
        InputError: It cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from error
