"""What the frozen model makes of images, computed once for all methods that only change what follows."""

import io
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from fairdx.core.files import write_whole
from fairdx.models.diagnosis import DiagnosisModel
from fairdx.models.loading import TaskImages
from fairdx.models.processes import in_any
from fairdx.models.scoring import Seen, diagnose
from fairdx.models.views import Views, averaged

FOLDER: Final = "seen"
"""Beside the stages that runs share."""
Array = NDArray[np.float32]


@dataclass
class SeenImages:
    """Embeddings and logits of a data set's images, in memory and, where runs share stages, on disk.

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
    _known: dict[Views, dict[str, Array]] = field(default_factory=dict)

    def of(self, views: Views, indices: NDArray[np.int64]) -> Seen:
        """Returns what the model makes of some images, averaged over their views."""
        known = self._known.get(views) or self._load(views)
        unknown = np.ones(len(indices), dtype=np.bool_)
        if known:
            unknown = np.isnan(known["logit"][indices].sum(1))
        # Another run may write the file before the next process reads it, and all have to look together.
        missing = indices[in_any(unknown, self.fabric.device)]
        if len(missing):
            known = self._make(known, views, missing)
        self._known[views] = known
        embedding = known.get("embedding")
        return Seen(None if embedding is None else embedding[indices], known["logit"][indices])

    def _file(self, views: Views) -> Path | None:
        return None if self.folder is None else self.folder / f"{self.key[:12]}-{views}.npz"

    def _load(self, views: Views) -> dict[str, Array]:
        file = self._file(views)
        if file is None or not file.exists():
            return {}
        with np.load(file) as stored:
            return dict(stored)

    def _make(self, known: dict[str, Array], views: Views, missing: NDArray[np.int64]) -> dict[str, Array]:
        """Diagnoses images and adds them to what is known; others are nan."""
        model = self.model.to(self.fabric.device)
        seen = diagnose(partial(averaged, model, views=views), self.images, missing, self.fabric)
        count = len(self.images.dataset.table)
        for name, rows in seen._asdict().items():
            if rows is not None:
                whole = known.setdefault(name, np.full((count, rows.shape[1]), np.nan, np.float32))
                whole[missing] = rows
        file = self._file(views)
        if file is not None and self.fabric.is_global_zero:
            file.parent.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            np.savez(content, **known)  # type: ignore[arg-type]
            write_whole(file, content.getvalue())
        return known
