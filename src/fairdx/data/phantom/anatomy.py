"""Draws schematic frontal chest radiographs from named random draws, for the phantom.

The picture is built as on a real detector: every tissue adds or removes attenuation, and dense tissue is
bright. Everything is elementwise over (image, row, column), so an image does not depend on its batch.

Coordinates: x runs from -1 (image left, the patient's right) to 1, y from -1 (neck) to 1 (abdomen).
"""

from copy import copy
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Scalar = Array | np.float32


class Uniforms(Protocol):
    """Uniform draws in [0, 1) by name."""

    def __call__(self, name: str) -> Array:
        """Returns the named draw of every image, shape (images, 1, 1)."""

    def of(self, rows: NDArray[np.int64]) -> Self:
        """Returns the draws of some of the images."""


def soft_step(distance: Array, width: float) -> Array:
    """Rises smoothly from 0 to 1 while `distance` goes from -width / 2 to width / 2."""
    t = np.clip(distance / np.float32(width) + np.float32(0.5), 0, 1)
    smooth: Array = t * t * (3 - 2 * t)
    return smooth


def bump(x: Array, y: Array, centre: tuple[Scalar, Scalar], radius: tuple[Scalar, Scalar]) -> Array:
    """A smooth hill of height 1 on an ellipse, exactly 0 outside of it."""
    inside = np.maximum(0, 1 - ((x - centre[0]) / radius[0]) ** 2 - ((y - centre[1]) / radius[1]) ** 2)
    hill: Array = inside * inside
    return hill


def between(uniform: Array, low: float, high: float) -> Array:
    """A uniform draw moved from [0, 1) to [low, high)."""
    return np.float32(low) + np.float32(high - low) * uniform


def mottle(x: Array, y: Array, u: Uniforms, name: str, frequency: float) -> Array:
    """Cloudy texture around 0 of about unit range: a few plane waves of random direction and phase."""
    total: Array = np.zeros_like(x)
    for k in range(4):
        angle = between(u(f"{name}_angle{k}"), 0, np.pi)
        phase = between(u(f"{name}_phase{k}"), 0, 2 * np.pi)
        f = np.float32(frequency * (0.7 + 0.25 * k))
        total += np.cos(f * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    return total * np.float32(0.4)


MOTTLES = ("vessels", "patch", "mesh")
"""Textures by name; each takes eight draws."""
POSITION_DRAWS = (
    "shift_x",
    "shift_y",
    "scale",
    "tilt",
    "exposure",
    "contrast",
    "marker",
    "lead",
    "lead_place",
)
"""What differs between two images of one patient."""
ANATOMY_DRAWS = (
    *("body_width", "lung_width", "lung_base", "heart_width", "heart_height", "heart_place", "rib_space"),
    *("rib_phase", "breast_size", "breast_place", "breast_density", "stomach"),
    *(f"{m}_{part}{k}" for m in MOTTLES for part in ("angle", "phase") for k in range(4)),
)


class Chest:
    """The shared geometry of a batch of chests, onto which tissues and findings are laid.

    Args:
        size: Height and width of the images in pixels.
        u: The named uniform draws.
        enlarged_heart: Whether the heart is enlarged, 0 or 1, shape (images, 1, 1).
        flattened: Whether the diaphragm is flattened (emphysema), 0 or 1, shape (images, 1, 1).
    """

    def __init__(self, size: int, u: Uniforms, enlarged_heart: Array, flattened: Array) -> None:
        self.u = u
        axis = ((np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)) * 2 - 1
        tilt, scale = between(u("tilt"), -0.06, 0.06), between(u("scale"), 0.93, 1.07)
        rows, columns = axis[None, :, None] / scale, axis[None, None, :] / scale
        self.x: Array = columns + tilt * rows - between(u("shift_x"), -0.06, 0.06)
        self.y: Array = rows - tilt * columns - between(u("shift_y"), -0.06, 0.06)
        self.side: Array = np.abs(self.x)
        self.pixel = 2.0 / size
        self.heart = self._heart(enlarged_heart)
        self.dome = self._diaphragm(flattened)
        self.lung = self._lungs()

    def of(self, rows: NDArray[np.int64]) -> "Chest":
        """Returns the chests of some of the images, without computing their geometry again."""
        part = copy(self)
        part.u = self.u.of(rows)
        for name in ("x", "y", "side", "heart", "dome", "lung"):
            setattr(part, name, getattr(self, name)[rows])
        return part

    def _heart(self, enlarged: Array) -> Array:
        u = self.u
        width: Array = between(u("heart_width"), 0.25, 0.30) * (1 + np.float32(0.45) * enlarged)
        height: Array = between(u("heart_height"), 0.36, 0.42) * (1 + np.float32(0.18) * enlarged)
        centre_x: Array = between(u("heart_place"), 0.06, 0.11) + np.float32(0.05) * enlarged
        # The heart leans towards the patient's left (image right), wider below than above.
        lean: Array = self.x - centre_x - np.float32(0.22) * (self.y - np.float32(0.2))
        across, along = lean / width, (self.y - np.float32(0.20)) / height
        return soft_step(1 - across * across - along * along, 0.45)

    def _diaphragm(self, flattened: Array) -> Array:
        base = between(self.u("lung_base"), 0.46, 0.56) + np.where(
            self.x < 0, np.float32(-0.05), np.float32(0)
        )
        arch = np.float32(1.5) * (1 - np.float32(0.75) * flattened)
        dome: Array = base - np.float32(0.05) + arch * (self.side - np.float32(0.36)) ** 2
        return dome

    def _lungs(self) -> Array:
        rise = np.clip((self.y + np.float32(0.80)) / np.float32(1.15), 0, 1)
        # The outer wall bows out quickly below the rounded apex; the inner edge follows spine and vessels.
        round_apex = np.sqrt(1 - (1 - rise) ** 2)
        wall = np.float32(0.14) + (between(self.u("lung_width"), 0.66, 0.74) - np.float32(0.14)) * round_apex
        inner = np.float32(0.11) + np.float32(0.06) * rise
        edge = 2.5 * self.pixel + 0.03
        field = soft_step(wall - self.side, edge) * soft_step(self.side - inner, edge)
        lung: Array = field * soft_step(self.dome - self.y, edge)
        return lung

    def tissues(self, breast: Array) -> Array:
        """Returns the attenuation of a healthy chest, (images, rows, columns); `breast` is the shadow."""
        x, y, side, lung = self.x, self.y, self.side, self.lung
        torso = self._torso()
        image: Array = np.float32(0.02) + np.float32(0.58) * torso
        image += (
            np.float32(0.10)
            * torso
            * soft_step(y - self.dome, 0.06)
            * soft_step(np.float32(0.75) - side, 0.3)
        )
        # Heart and mediastinum lie in one another's shadow: the denser wins, they do not add up.
        middle = np.float32(0.12) * soft_step(np.float32(0.14) - side, 0.12)
        image += torso * np.maximum(
            middle, np.float32(0.24) * self.heart * soft_step(self.dome + np.float32(0.06) - y, 0.1)
        )
        image += (
            np.float32(0.03) * np.cos(y * np.float32(26)) * soft_step(np.float32(0.09) - side, 0.05) * torso
        )
        image -= np.float32(0.36) * lung
        image += np.float32(0.16) * bump(x, y, (np.float32(0.15), np.float32(-0.24)), (np.float32(0.15),) * 2)
        image -= (
            np.float32(0.13)
            * soft_step(np.float32(0.05) - side, 0.05)
            * soft_step(np.float32(-0.30) - y, 0.2)
        )
        image += self._vessels() + self._ribs(torso) + self._breasts(breast) * torso
        bubble = bump(x, y, (np.float32(0.38), np.float32(0.70)), (np.float32(0.20), np.float32(0.13)))
        image -= np.float32(0.25) * bubble * (self.u("stomach") < np.float32(0.5))
        return image

    def _torso(self) -> Array:
        flank = between(self.u("body_width"), 0.88, 0.98)
        # Neck above, shoulders that run out of the picture, flanks below the armpits.
        shoulder = (
            self.y
            + np.float32(0.86)
            - np.float32(0.42) * np.maximum(0, self.side - np.float32(0.18)) ** np.float32(0.8)
        )
        neck = soft_step(np.float32(0.27) - self.side, 0.06)
        width = flank + np.float32(0.5) * soft_step(np.float32(-0.30) - self.y, 0.5)
        torso: Array = np.maximum(neck, soft_step(shoulder, 0.07)) * soft_step(width - self.side, 0.06)
        return torso

    def _vessels(self) -> Array:
        """Bronchovascular markings: dense at the hilum, fading to the pleura."""
        hilum = np.maximum(0, 1 - ((self.side - np.float32(0.2)) ** 2 + self.y**2) * np.float32(3.2))
        clouds = mottle(self.x, self.y, self.u, "vessels", 26.0)
        vessels: Array = self.lung * (
            np.float32(0.10) * hilum + np.float32(0.035) * clouds * (hilum + np.float32(0.35))
        )
        return vessels

    def _ribs(self, torso: Array) -> Array:
        u, y, side = self.u, self.y, self.side
        frequency = between(u("rib_space"), 27.0, 31.0)
        phase = between(u("rib_phase"), 0, 2 * np.pi)
        back = np.cos(frequency * (y - np.float32(0.35) * side + np.float32(0.9) * side * side) + phase)
        front = np.cos(np.float32(0.8) * frequency * (y - np.float32(0.75) * side) + phase)
        cage = soft_step(np.float32(0.78) - side, 0.1) * soft_step(self.dome + np.float32(0.1) - y, 0.1)
        cage = cage * soft_step(y + np.float32(0.76), 0.1) * torso
        ribs = np.maximum(0, back - np.float32(0.25)) * np.float32(0.085)
        ribs += (
            np.maximum(0, front - np.float32(0.45))
            * np.float32(0.06)
            * soft_step(side - np.float32(0.2), 0.2)
        )
        line = y + np.float32(0.54) + np.float32(0.22) * (side - np.float32(0.1))
        clavicle = np.maximum(0, 1 - (line / np.float32(0.05)) ** 2) * soft_step(np.float32(0.72) - side, 0.1)
        both: Array = ribs * cage + np.float32(0.10) * clavicle * torso * soft_step(
            side - np.float32(0.08), 0.08
        )
        return both

    def _breasts(self, strength: Array) -> Array:
        """Soft-tissue shadow over the lower lungs, fading upwards, with a crisper lower fold."""
        u = self.u
        width = between(u("breast_size"), 0.30, 0.42)
        low = between(u("breast_place"), 0.16, 0.32)
        reach = (
            1
            - ((self.side - np.float32(0.43)) / width) ** 2
            - ((self.y - low) / (width * np.float32(0.95))) ** 2
        )
        fade = soft_step(self.y - low + np.float32(0.10), 0.5)
        shadow: Array = strength * between(u("breast_density"), 0.6, 1.4) * soft_step(reach, 0.55) * fade
        return shadow

    def distractors(self) -> Array:
        """Things that say nothing of group or disease: a side marker, a monitoring lead."""
        u, x, y = self.u, self.x, self.y
        marker = (np.abs(x + np.float32(0.80)) < 0.05) & (np.abs(y + np.float32(0.84)) < 0.07)
        image: Array = np.float32(0.5) * marker * (u("marker") < np.float32(0.5))
        place = between(u("lead_place"), -0.5, 0.5)
        wire = np.maximum(0, 1 - ((x - place - np.float32(0.25) * np.sin(3 * y)) / np.float32(0.018)) ** 2)
        spot = bump(x, y, (place + np.float32(0.1), np.float32(0.15)), (np.float32(0.06),) * 2)
        image += np.float32(0.14) * (wire + 3 * spot) * (u("lead") < np.float32(0.25))
        return image
