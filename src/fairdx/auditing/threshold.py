"""From which score on an image is decided positive: one threshold, or those of findings, groups, models."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fairdx.core.errors import InputError
from fairdx.metrics.inputs import Codes, Floats

EVERYTHING = "*"
"""Names all that have no threshold of their own."""

SECOND = "compare"
"""Names the second score that an audit compares with."""


@dataclass(frozen=True)
class Thresholds:
    """Operating points.

    Attributes:
        default: Of all that have none of their own.
        named: By finding or class, by `ATTRIBUTE:GROUP`, by model, or by `SECOND`.
    """

    default: float = 0.5
    named: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, given: "float | Mapping[str, float] | Thresholds") -> "Thresholds":
        """Check one threshold, or several by name.

        Raises:
            InputError: One of them is no number in [0, 1].
        """
        if isinstance(given, Thresholds):
            return given
        named = dict(given) if isinstance(given, Mapping) else {EVERYTHING: given}
        for name, value in named.items():
            told = "threshold" if name == EVERYTHING else f"the threshold of {name}"
            try:
                known = 0 <= float(value) <= 1
            except (TypeError, ValueError):
                known = False
            if not known:
                raise InputError(f"{told} is {value}; give a number in [0, 1].")
        numbers = {str(name): float(value) for name, value in named.items()}
        return cls(numbers.pop(EVERYTHING, 0.5), numbers)

    @classmethod
    def parse(cls, texts: Sequence[str]) -> "Thresholds":
        """Read `0.4`, `edema=0.3`, `sex:F=0.4`, `second_model=0.6`.

        Raises:
            InputError: One is no number, or is given twice.
        """
        found: dict[str, float] = {}
        for text in texts:
            name, separator, number = text.rpartition("=")
            name = name if separator else EVERYTHING
            try:
                value = float(number)
            except ValueError:
                raise InputError(
                    f"`--threshold {text}` is not of the form NUMBER or NAME=NUMBER, as in 0.4 or edema=0.3"
                ) from None
            if name in found:
                raise InputError(f"`--threshold` is given twice for {name}; give it once.")
            found[name] = value
        return cls.of(found)

    def for_label(self, name: str) -> "Thresholds":
        """Those of the audit of one finding, class or model."""
        return replace(self, default=self.named.get(name, self.default))

    def without(self, names: Iterable[str]) -> "Thresholds":
        """The same without those of some names."""
        dropped = set(names)
        return replace(self, named={n: t for n, t in self.named.items() if n not in dropped})

    def by_image(self, attributes: Mapping[str, Codes]) -> Floats | None:
        """The threshold of each image, (n,), where groups have their own; else None.

        Raises:
            InputError: Groups of several attributes have thresholds, so that an image may have two.
        """
        owners = {name: self._of_groups(name, column) for name, column in attributes.items()}
        owners = {name: own for name, own in owners.items() if own}
        if len(owners) > 1:
            raise InputError(
                f"thresholds are given for groups of {' and '.join(owners)}; give them for one attribute, or "
                "an image has two."
            )
        for name, own in owners.items():
            column = attributes[name]
            return np.array([own.get(g, self.default) for g in column.names])[column.codes]
        return None

    def _of_groups(self, attribute: str, column: Codes) -> dict[str, float]:
        keys = {group: f"{attribute}:{group}" for group in column.names}
        return {group: self.named[key] for group, key in keys.items() if key in self.named}

    def check(self, labels: Sequence[str], attributes: Mapping[str, Codes], *, second: bool) -> None:
        """Check that everything that has a threshold is there.

        Args:
            labels: Findings or classes.
            attributes: Sensitive attributes.
            second: Whether there is a second score.

        Raises:
            InputError: Something has a threshold that is no finding, class, group or second score.
        """
        groups = [f"{name}:{group}" for name, column in attributes.items() for group in column.names]
        known = [*labels, *groups, *([SECOND] if second else [])]
        for name in self.named:
            if name not in known:
                raise InputError(
                    f"there is nothing called {name!r} to have a threshold of its own; there is "
                    f"{', '.join(known[:8]) or 'no finding, group or model'}."
                )

    @property
    def values(self) -> list[float]:
        """All of them, each once."""
        return sorted({self.default, *self.named.values()})
