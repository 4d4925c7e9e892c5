"""The phantom's findings: what each disease adds to a chest, and which random draws it uses.

A finding is a function from the chest and the draws to attenuation of unit conspicuity; the phantom scales it
and adds it for the patients who have it. They differ in place and in texture, so that a classifier must learn
each one anew.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fairdx.data.phantom.anatomy import Array, Chest, Uniforms, between, bump, mottle, soft_step


@dataclass(frozen=True)
class Finding:
    """One disease of the phantom.

    Attributes:
        name: The label column.
        draw: Attenuation to add, given the chest and the draws, shape (images, rows, columns).
        draws: Names of the uniform draws that `draw` uses.
    """

    name: str
    draw: Callable[[Chest, Uniforms], Array]
    draws: tuple[str, ...] = ()


def _side(u: Uniforms, name: str) -> Array:
    return np.where(u(name) < np.float32(0.5), np.float32(-1), np.float32(1))


def _pneumonia(chest: Chest, u: Uniforms) -> Array:
    """Patchy consolidation in one lung, more often low than high."""
    centre_x = _side(u, "pneumonia_side") * between(u("pneumonia_x"), 0.28, 0.52)
    centre_y = between(np.sqrt(u("pneumonia_y")), -0.25, 0.38)
    radius = between(u("pneumonia_size"), 0.17, 0.27)
    patch = bump(chest.x, chest.y, (centre_x, centre_y), (radius, radius * np.float32(0.85)))
    clouds = 1 + np.float32(0.7) * mottle(chest.x, chest.y, u, "patch", 30.0)
    opacity: Array = patch * np.maximum(0, clouds) * chest.lung
    return opacity


def _effusion(chest: Chest, u: Uniforms) -> Array:
    """Fluid in one costophrenic angle, with a meniscus that climbs the chest wall."""
    lateral = chest.x * _side(u, "effusion_side")
    level = between(u("effusion_size"), 0.22, 0.38) - np.float32(0.45) * np.maximum(
        0, lateral - np.float32(0.35)
    )
    fluid: Array = np.float32(1.5) * chest.lung * soft_step(chest.y - level, 0.12) * (lateral > 0)
    return fluid


def _nothing(chest: Chest, u: Uniforms) -> Array:
    """Cardiomegaly changes the chest's own geometry and adds nothing on top."""
    del u
    return np.zeros_like(chest.x)


def _atelectasis(chest: Chest, u: Uniforms) -> Array:
    """A thin, slightly oblique plate above the diaphragm."""
    side = _side(u, "atelectasis_side")
    line = (
        chest.y
        - between(u("atelectasis_y"), 0.12, 0.36)
        - np.float32(0.15) * (chest.x - side * np.float32(0.4))
    )
    band = np.maximum(0, 1 - (line / np.float32(0.045)) ** 2) * (chest.x * side > 0)
    plate: Array = np.float32(1.2) * band * chest.lung
    return plate


def _pneumothorax(chest: Chest, u: Uniforms) -> Array:
    """Air above a collapsed apex: darker, without markings, below it a thin pleural line."""
    side = _side(u, "pneumothorax_side")
    edge = (
        chest.y
        + between(u("pneumothorax_size"), 0.20, 0.42)
        + np.float32(0.5) * (chest.x * side - np.float32(0.35))
    )
    apex = soft_step(-edge, 0.06) * chest.lung * (chest.x * side > 0)
    line = np.maximum(0, 1 - (edge / np.float32(0.03)) ** 2) * chest.lung * (chest.x * side > 0)
    air: Array = np.float32(-0.9) * apex + np.float32(0.7) * line
    return air


def _nodule(chest: Chest, u: Uniforms) -> Array:
    """A small round opacity in mid or upper lung."""
    centre = (
        _side(u, "nodule_side") * between(u("nodule_x"), 0.28, 0.52),
        between(u("nodule_y"), -0.45, 0.1),
    )
    radius = between(u("nodule_size"), 0.07, 0.10)
    spot: Array = np.float32(1.8) * bump(chest.x, chest.y, centre, (radius, radius)) * chest.lung
    return spot


def _mass(chest: Chest, u: Uniforms) -> Array:
    """A large, dense, well-defined lump."""
    centre = (_side(u, "mass_side") * between(u("mass_x"), 0.30, 0.48), between(u("mass_y"), -0.4, 0.1))
    radius = between(u("mass_size"), 0.14, 0.20)
    reach = 1 - ((chest.x - centre[0]) / radius) ** 2 - ((chest.y - centre[1]) / radius) ** 2
    lump: Array = np.float32(1.5) * soft_step(reach, 0.4) * chest.lung
    return lump


def _edema(chest: Chest, u: Uniforms) -> Array:
    """Symmetric haze around both hila, the bat's wings."""
    spread = between(u("edema_size"), 0.34, 0.44)
    wings = bump(
        chest.side, chest.y, (np.float32(0.24), np.float32(-0.02)), (spread, spread * np.float32(1.1))
    )
    haze: Array = np.float32(1.1) * wings * chest.lung
    return haze


def _fibrosis(chest: Chest, u: Uniforms) -> Array:
    """A fine net over both bases."""
    base = soft_step(chest.y - between(u("fibrosis_y"), 0.0, 0.2), 0.4)
    net: Array = np.float32(1.3) * np.abs(mottle(chest.x, chest.y, u, "mesh", 55.0)) * base * chest.lung
    return net


def _emphysema(chest: Chest, u: Uniforms) -> Array:
    """Dark, over-inflated lungs; the diaphragm is flattened by the chest's own geometry."""
    air: Array = -between(u("emphysema_size"), 0.5, 0.8) * chest.lung
    return air


FINDINGS = (
    Finding("pneumonia", _pneumonia, ("pneumonia_side", "pneumonia_x", "pneumonia_y", "pneumonia_size")),
    Finding("effusion", _effusion, ("effusion_side", "effusion_size")),
    Finding("cardiomegaly", _nothing),
    Finding("atelectasis", _atelectasis, ("atelectasis_side", "atelectasis_y")),
    Finding("pneumothorax", _pneumothorax, ("pneumothorax_side", "pneumothorax_size")),
    Finding("nodule", _nodule, ("nodule_side", "nodule_x", "nodule_y", "nodule_size")),
    Finding("mass", _mass, ("mass_side", "mass_x", "mass_y", "mass_size")),
    Finding("edema", _edema, ("edema_size",)),
    Finding("fibrosis", _fibrosis, ("fibrosis_y",)),
    Finding("emphysema", _emphysema, ("emphysema_size",)),
)
"""In label order; the first is the main task."""
