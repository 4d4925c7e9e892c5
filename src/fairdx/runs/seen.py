"""What the frozen model makes of images, computed once for all methods that only change what follows."""

import hashlib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from fairdx.core.files import replace_whole
from fairdx.models.diagnosis import DiagnosisModel
from fairdx.models.loading import TaskImages
from fairdx.models.scoring import Seen, diagnose
from fairdx.models.views import Views, averaged

FOLDER: Final = "seen"
"""Beside the stages that runs share."""


@dataclass
class SeenImages:
    """Embeddings and logits by views and images, in memory and, where runs share stages, on disk.

    Attributes:
        model: The frozen model.
        images: The images.
        fabric: Device and precision.
        key: Hash of all that the model's output depends on.
        folder: Where to keep them for other runs; None for this one alone.
    """

    model: DiagnosisModel
    images: TaskImages
    fabric: Fabric
    key: str
    folder: Path | None
    _known: dict[str, Seen] = field(default_factory=dict)

    def of(self, views: Views, indices: NDArray[np.int64]) -> Seen:
        """Returns what the model makes of some images, averaged over their views."""
        which = hashlib.sha256(indices.tobytes()).hexdigest()[:12]
        name = f"{self.key[:12]}-{views}-{which}.npz"
        if name not in self._known:
            self._known[name] = self._load(name) or self._make(name, views, indices)
        return self._known[name]

    def _load(self, name: str) -> Seen | None:
        if self.folder is None or not (self.folder / name).exists():
            return None
        with np.load(self.folder / name) as stored:
            return Seen(stored.get("embedding"), stored["logit"])

    def _make(self, name: str, views: Views, indices: NDArray[np.int64]) -> Seen:
        model = self.model.to(self.fabric.device)
        seen = diagnose(partial(averaged, model, views=views), self.images, indices, self.fabric)
        if self.folder is not None and self.fabric.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            arrays = {key: value for key, value in seen._asdict().items() if value is not None}

            def write(path: Path) -> None:
                with path.open("wb") as file:
                    np.savez(file, **arrays)

            replace_whole(self.folder / name, write)
        return seen
