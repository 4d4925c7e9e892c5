"""Named things that configuration files may ask for."""

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import TypeVar

from fairdx.core.errors import InputError

T = TypeVar("T")
E = TypeVar("E")


class Registry(Mapping[str, T]):
    """A mapping from names to things, filled where the things are defined.

    Args:
        kind: What the things are, in the singular, for error messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[E], E]:
        """Returns a decorator that enters what it decorates.

        Args:
            name: The name for configuration files.

        Raises:
            ValueError: The name is taken.
        """

        def enter(entry: E) -> E:
            if name in self._entries:
                raise ValueError(f"there are two {self.kind}s called `{name}`")
            self._entries[name] = entry  # type: ignore[assignment]
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        """Looks a name up.

        Raises:
            InputError: There is nothing of that name; the message lists what there is.
        """
        if name not in self._entries:
            near = get_close_matches(name, self._entries, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise InputError(f"there is no {self.kind} `{name}` (there are: {', '.join(sorted(self))}){hint}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
