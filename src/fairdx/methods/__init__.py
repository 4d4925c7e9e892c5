"""Mitigation methods, one file each; importing the package enters them all in `METHODS`."""

from fairdx.methods import (
    adversarial_debiasing,
    concept_erasure,
    faap,
    fair_diagnosis,
    group_dro,
    guessed_transport,
    laftr,
    optimal_transport,
    reweighting,
    score_shift,
    threshold_optimizer,
    vanilla,
)
from fairdx.methods.base import METHODS, Method, MethodConfig, Player, Spec, Stage

__all__ = [
    "METHODS",
    "Method",
    "MethodConfig",
    "Player",
    "Spec",
    "Stage",
    "adversarial_debiasing",
    "concept_erasure",
    "faap",
    "fair_diagnosis",
    "group_dro",
    "guessed_transport",
    "laftr",
    "optimal_transport",
    "reweighting",
    "score_shift",
    "threshold_optimizer",
    "vanilla",
]
