"""What is printed for people: text as it is written, whatever brackets or signs a table of theirs holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unicodedata import category

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from rich.style import Style


class PlainConsole(Console):
    """A console on which text is text.

    Names of groups, files and columns come from somebody's table. One such as `late [/old]` must not end a
    style, `[unknown]` must not vanish, and signs that steer a terminal are spelled out.

    Args:
        stderr: Whether to print to standard error.
        wrap: Whether to break long lines at the width of the terminal.
    """

    def __init__(self, *, stderr: bool = False, wrap: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=not wrap)

    def render_str(self, text: str, *, style: str | Style = "", **more: Any) -> Text:
        """Renders a string, in a line or in a cell of a table."""
        return super().render_str(printable(text), style=style, **more)


def printable(text: str) -> str:
    r"""Spells signs that steer a terminal out.

    Args:
        text: Any text.

    Returns:
        The same where all of it can be printed; lines stay lines, and spaces that hold words together stay.

    Example:
        >>> printable("late\x1b[2J")
        'late\\x1b[2J'
    """
    return "".join(c if c.isprintable() or c == "\n" or category(c) == "Zs" else repr(c)[1:-1] for c in text)


def plain(text: str, style: str = "") -> Text:
    """Text for a cell or a line, as it is written.

    Args:
        text: Any text.
        style: How it looks, as "bold".

    Returns:
        The text, without markup.
    """
    return Text(printable(text), style=style)
