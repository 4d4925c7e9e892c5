"""Mitigation methods, one file each; importing the package enters them all in `METHODS`."""

from fairdx.methods import (
    adversarial_debiasing,
    faap,
    fair_diagnosis,
    group_dro,
    laftr,
    reweighting,
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
    "faap",
    "fair_diagnosis",
    "group_dro",
    "laftr",
    "reweighting",
    "threshold_optimizer",
    "vanilla",
]
