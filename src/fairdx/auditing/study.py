"""What does not change between the audits of one call: who the images are of, and how they are compared."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdx.auditing.design import MISSING, Grouping, groupings
from fairdx.auditing.result import Attribute, Settings
from fairdx.auditing.threshold import Thresholds
from fairdx.inference.resampling import effective_patients
from fairdx.metrics.causal import references_by_attribute
from fairdx.metrics.inputs import Codes, Floats, Ints

LEAST_PATIENTS = 2
"""A group of a single patient is not compared, however many images there are: nothing says how it varies."""


@dataclass(frozen=True)
class Study:
    """Who the images are of, and how they are compared.

    Attributes:
        finest: Finest group of each image, (n,).
        groupings: Attributes and intersections.
        references: Reference group by attribute, where one was named.
        patient: Patient codes, (n,), or None.
        covariates: Columns to standardise over, or None.
        settings: Of the audit.
        attributes: What the groupings are made of.
        intersections: Whether they are crossed.
        weight: What each image counts, (n,), 1 on average; None for 1.
        thresholds: Operating points.
        left_out: Intersections that are not audited because they have too many groups, and how many.
    """

    finest: Ints
    groupings: list[Grouping]
    references: dict[str, str]
    patient: Ints | None
    covariates: dict[str, Codes] | None
    settings: Settings
    attributes: dict[str, Codes]
    intersections: bool
    weight: Floats | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    left_out: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        attributes: dict[str, Codes],
        reference: Any,
        patient: Ints | None,
        covariates: dict[str, Codes] | None,
        settings: Settings,
        *,
        intersections: bool = True,
        weight: Floats | None = None,
        thresholds: Thresholds | None = None,
    ) -> "Study":
        """Code the groups and check the references.

        Raises:
            InputError: If an attribute has a single group or looks like an identifier, or there is no such
                reference.
        """
        finest, found, left_out = groupings(attributes, intersections=intersections)
        references = references_by_attribute(reference, {g.name: g.groups for g in found})
        if weight is not None and patient is None:
            patient = np.arange(len(finest))
        return cls(
            finest,
            found,
            references,
            patient,
            covariates,
            settings,
            attributes,
            intersections,
            None if weight is None else _even(weight),
            thresholds or Thresholds(settings.threshold or 0.0),
            left_out,
        )

    def at(self, label: str) -> "Study":
        """The same at the threshold of one class or finding."""
        own = self.thresholds.for_label(label)
        return replace(self, thresholds=own, settings=replace(self.settings, threshold=own.default))

    def only(self, wanted: list[Grouping]) -> "Study":
        """The same with some of the groupings, and no finer groups than they need."""
        if len(wanted) == len(self.groupings):
            return self
        code = np.zeros(self.n, dtype=np.int64)
        for grouping in wanted:
            code = np.unique(
                code * len(grouping.groups) + grouping.of_finest[self.finest], return_inverse=True
            )[1]
        first = np.unique(code, return_index=True)[1]
        kept = [replace(g, of_finest=g.of_finest[self.finest[first]]) for g in wanted]
        return replace(self, finest=code, groupings=kept)

    def take(self, rows: NDArray[np.bool_]) -> "Study":
        """The same for some of the images, (n,); groups and patients that none of them has are gone."""
        if rows.all():
            return self
        attributes = {name: column.take(rows) for name, column in self.attributes.items()}
        covariates = self.covariates and {name: column.take(rows) for name, column in self.covariates.items()}
        patient = None if self.patient is None else np.unique(self.patient[rows], return_inverse=True)[1]
        finest, found, left_out = groupings(attributes, intersections=self.intersections)
        groups = {grouping.name: grouping.groups for grouping in found}
        references = {name: g for name, g in self.references.items() if g in groups.get(name, ())}
        return replace(
            self,
            finest=finest,
            groupings=found,
            references=references,
            patient=patient,
            covariates=covariates,
            attributes=attributes,
            weight=None if self.weight is None else _even(self.weight[rows]),
            left_out=left_out,
        )

    def comparable(self, rows: NDArray[np.bool_]) -> bool:
        """Whether every attribute has two groups among some of the images, (n,)."""
        return all(len(np.unique(column.codes[rows])) > 1 for column in self.attributes.values())

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.finest)

    @property
    def n_patients(self) -> int:
        """Number of patients; of images when none are given."""
        return self.n if self.patient is None else int(self.patient.max()) + 1

    @property
    def n_effective(self) -> float | None:
        """Effective number of images, or of patients where they are given; None without weights."""
        if self.weight is None:
            return None
        return float(effective_patients(np.zeros(self.n, dtype=np.int64), self.patient, 1, self.weight)[0])

    def describe(self, grouping: Grouping) -> Attribute:
        """Sizes of the groups, which of them are too small, and which is the reference.

        Args:
            grouping: The attribute.

        Returns:
            The description; the largest group with a name that is not too small is the reference unless
            another was named.
        """
        group = grouping.of_finest[self.finest]
        size = np.bincount(group, minlength=len(grouping.groups))
        patients, least = size, 0
        effective: dict[str, float] = {}
        if self.weight is not None:
            kish = effective_patients(group, self.patient, len(grouping.groups), self.weight)
            effective = dict(zip(grouping.groups, kish.tolist(), strict=True))
        if self.settings.clustered and self.patient is not None:
            pairs = np.unique(group * self.n_patients + self.patient)
            patients, least = np.bincount(pairs // self.n_patients, minlength=len(size)), LEAST_PATIENTS
        small = (size < self.settings.min_group_size) | (patients < least)
        return Attribute(
            grouping.name,
            dict(zip(grouping.groups, size.tolist(), strict=True)),
            dict(zip(grouping.groups, patients.tolist(), strict=True)),
            self._reference(grouping, size, small),
            [g for g, few in zip(grouping.groups, small, strict=True) if few],
            grouping.intersection,
            effective,
        )

    def _reference(self, grouping: Grouping, size: Ints, small: np.ndarray[Any, Any]) -> str:
        """The group that was named; of an intersection the largest that is made of those named."""
        if grouping.name in self.references:
            return self.references[grouping.name]
        named = {name: self.references[name] for name in grouping.parts[0] if name in self.references}
        fitting = [
            (MISSING not in part.values(), all(part[name] == group for name, group in named.items()))
            for part in grouping.parts
        ]
        best = max(range(len(size)), key=lambda s: (*fitting[s][::-1], not small[s], size[s]))
        return grouping.groups[best]


def _even(weight: Floats) -> Floats:
    """Weights with the mean 1, in steps so fine and so even that sums of them are exact in any order.

    Else what is left of a sum after all its parts were taken away would be a rounding error and not 0, and a
    rate of no images would be a number.
    """
    even = weight / weight.mean()
    step = 2.0 ** (np.ceil(np.log2(len(even))) - 48)  # 5 bits are left for replicates of heavy images
    return np.where(weight > 0, np.maximum(np.rint(even / step), 1.0) * step, 0.0)
