"""Names of the groups that numbers are divided into."""

from collections.abc import Sequence
from itertools import pairwise


def bin_names(edges: Sequence[float], *, whole: bool) -> tuple[str, ...]:
    """Name the groups between ascending edges, each of which begins a new group.

    Args:
        edges: At least one.
        whole: Whether the numbers are whole, so that a group has a last one.

    Returns:
        One name more than there are edges, in their order.

    Example:
        >>> bin_names((40, 60), whole=True)
        ('under 40', '40 to 59', '60 and over')
        >>> bin_names((0.5, 1), whole=False)[1]
        '0.5 to under 1'
    """
    middle = (
        f"{low:g} to {high - 1:g}" if whole else f"{low:g} to under {high:g}" for low, high in pairwise(edges)
    )
    return f"under {edges[0]:g}", *middle, f"{edges[-1]:g} and over"
