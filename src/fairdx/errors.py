"""The one exception for bad input, so that the command line can tell it from a failure of our own."""


class InputError(ValueError):
    """What the user gave cannot be used; the message is one sentence that names the file, row or key.

    The command line prints the message to stderr and exits with status 2.
    """
