"""Mitigation methods, one file each; importing the package enters them all in `METHODS`."""

from fairdx.methods import fair_diagnosis, vanilla
from fairdx.methods.base import METHODS, Method, MethodConfig, Player, Spec, Stage

__all__ = [
    "METHODS",
    "Method",
    "MethodConfig",
    "Player",
    "Spec",
    "Stage",
    "fair_diagnosis",
    "vanilla",
]
