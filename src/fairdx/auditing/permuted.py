"""The images of the groups that are compared, to permute: by patient where patients are given."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdx.auditing.result import Settings, Test
from fairdx.inference.patient_permutation import Patients
from fairdx.inference.permutation import (
    Rates,
    conditional_tables,
    group_is_constant,
    information_test,
    rates_test,
)
from fairdx.inference.score_intervals import Shares, gap_p_value
from fairdx.metrics.compared import Compared
from fairdx.metrics.counts import by_label
from fairdx.metrics.inputs import Floats, Ints

SCALED = "permutation of groups of images, scaled by the design effect"

_MOST_NUMBERS = 5_000_000  # in all tables that are drawn under independence


@dataclass(frozen=True)
class Permuted:
    """Tests by permutation of the groups of one attribute.

    Attributes:
        attribute: Its name.
        counts: Of the groups, by label and decision, (S, 2, 2).
        of_full: The label of each class, (Z,).
        patients: Patients to permute; None if images are, or if nothing can be.
        straddle: Whether patients are in several groups or images have weights, so that nothing can be
            permuted.
        settings: Of the audit.
    """

    attribute: str
    counts: Floats
    of_full: Ints
    patients: Patients | None
    straddle: bool
    settings: Settings

    @classmethod
    def of(
        cls,
        attribute: str,
        counts: Floats,
        of_full: Ints,
        cells: tuple[Ints, Ints, Ints | None],
        settings: Settings,
    ) -> "Permuted":
        """Gather what can be permuted.

        Args:
            attribute: Its name.
            counts: By class and decision, (S, Z, D).
            of_full: The label of each class, (Z,).
            cells: Group, cell of (class, decision), and patient (or None) of each image.
            settings: Of the audit.

        Returns:
            The images.
        """
        group, cell, patient = cells
        gathered, straddle = None, False
        if settings.weighted:  # images that count differently cannot be exchanged
            straddle = True
        elif patient is not None:
            straddle = not group_is_constant(group, patient)
            if not straddle:
                shape = (counts.shape[0], counts.shape[1], counts.shape[2])
                gathered = Patients.of(group, cell, shape, np.unique(patient, return_inverse=True)[1])
        return cls(attribute, by_label(counts, of_full), of_full, gathered, straddle, settings)

    def test(self, metric: str, method: str, p_value: float) -> Test:
        """A test that is not yet corrected for others."""
        return Test(self.attribute, metric, None, method, p_value, p_value, p_value, p_value)

    def rates_test(self, metric: str, compared: Compared, shares: Shares) -> Test:
        """Test that the rates of a gap are equal.

        Args:
            metric: The gap.
            compared: Its rates.
            shares: Their estimates, nan in groups that are left out.

        Returns:
            The test.
        """
        settings = self.settings
        known: NDArray[np.bool_] = np.isfinite(shares.value)
        n, seed = settings.n_permutations, settings.seed
        if self.straddle:
            return self.test(metric, "score intervals", gap_p_value(shares))
        if self.patients is None:
            strata = list(compared.strata(self.counts))
            kept = [np.asarray(known[:, rates].all(1), dtype=float)[:, None] for _, rates in strata]
            tables = [table * own for (table, _), own in zip(strata, kept, strict=True)]
            outcomes = [range(len(rates)) for _, rates in strata]
            p_value, _ = rates_test(Rates(tables, outcomes), n, seed)
            return self.test(metric, "permutation of groups of images", p_value)
        of_classes = compared.of_classes(self.of_full)
        rows = known.any(1)
        own = self.patients if rows.all() else Patients(self.patients.amounts[rows], self.patients.kinds)
        p_value, _ = own.rates_test(of_classes.parts, of_classes.wholes, n, seed)
        return self.test(metric, "permutation of groups of patients, studentised", p_value)

    def information_test(self, counts: Floats, asymptotic: float) -> tuple[float, str]:
        """Test of no information about the group in decisions, given the class.

        Args:
            counts: Shape (S, Z, D).
            asymptotic: The p-value where nothing can be permuted.

        Returns:
            The p-value and how it was found.
        """
        n, seed = self.settings.n_permutations, self.settings.seed
        if self.straddle:
            return asymptotic, SCALED
        if self.patients is not None:
            p_value, _ = self.patients.information_test(n, seed)
            return p_value, "permutation of groups of patients, studentised"
        return information_test(counts, n, seed)[0], "permutation of groups of images with the same label"

    def null(self, counts: Floats, effect: float) -> tuple[Floats, float]:
        """Tables without information about the group, and the scale of their noise.

        Args:
            counts: By class and decision, (S, Z, D).
            effect: Design effect of the table.

        Returns:
            Tables (N, S, Z, D); with patients these are permuted, else images are.
        """
        if self.patients is None:
            return self.rows(counts), float(np.sqrt(effect))
        return self.patients.tables(self._draws(counts), self.settings.seed), 1.0

    def rows(self, counts: Floats) -> Floats:
        """Tables (N, S, Z, D) in which the groups of images with the same class are permuted."""
        rng = np.random.default_rng(self.settings.seed)
        return conditional_tables(np.rint(counts), self._draws(counts), rng)

    def _draws(self, counts: Floats) -> int:
        return max(199, min(self.settings.n_permutations, _MOST_NUMBERS // counts.size))
