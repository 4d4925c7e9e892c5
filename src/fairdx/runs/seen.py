"""What the frozen model makes of images, computed once for all methods that only change what follows."""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from fairdx.core.files import write_whole
from fairdx.models.diagnosis import DiagnosisModel
from fairdx.models.loading import TaskImages
from fairdx.models.processes import in_any
from fairdx.models.scoring import Seen, diagnose
from fairdx.models.statistics import MapLayer, watched
from fairdx.models.views import Views, averaged

FOLDER: Final = "seen"
"""Beside the stages that runs share."""
Array = NDArray[np.float32]


class _Table(NamedTuple):
    """One file: its name, and what stands in it."""

    name: str
    columns: tuple[str, ...]


@dataclass
class SeenImages:
    """What a frozen model makes of a data set's images, in memory and, where runs share stages, on disk.

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
    _known: dict[str, dict[str, Array]] = field(default_factory=dict)

    def of(self, views: Views, indices: NDArray[np.int64], layers: tuple[MapLayer, ...] = ()) -> Seen:
        """Returns what the model makes of some images, averaged over their views.

        Args:
            views: Which.
            indices: The images, shape (n,).
            layers: Whose maps are watched.
        """
        # Apart, so that who watches no maps has no larger file to read.
        tables = [_Table(views, ("embedding", "logit"))]
        if layers:
            named = hashlib.sha256(json.dumps(layers).encode()).hexdigest()[:12]
            tables.append(_Table(f"{views}-{named}", ("statistics",)))
        for table in tables:
            if table.name not in self._known:
                self._known[table.name] = self._load(table.name)
        unknown = np.zeros(len(indices), dtype=np.bool_)
        for table in tables:
            known = self._known[table.name]
            unknown |= not known
            for rows in known.values():
                unknown |= np.isnan(rows[indices].sum(1))
        # Another run may write the file before the next process reads it, and all have to look together.
        missing = indices[in_any(unknown, self.fabric.device)]
        if len(missing):
            self._make(tables, views, layers, missing)
        found = {name: rows[indices] for table in tables for name, rows in self._known[table.name].items()}
        return Seen(found.get("embedding"), found["logit"], found.get("statistics"))

    def _file(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{self.key[:12]}-{name}.npz"

    def _load(self, name: str) -> dict[str, Array]:
        file = self._file(name)
        if file is None or not file.exists():
            return {}
        with np.load(file) as stored:
            return dict(stored)

    def _make(
        self,
        tables: Sequence[_Table],
        views: Views,
        layers: tuple[MapLayer, ...],
        missing: NDArray[np.int64],
    ) -> None:
        """Diagnoses images and adds them to what is known; others are nan."""
        model = watched(self.model.to(self.fabric.device), layers)
        seen = diagnose(partial(averaged, model, views=views), self.images, missing, self.fabric)
        count = len(self.images.dataset.table)
        for table in tables:
            known = self._known[table.name]
            for name in table.columns:
                rows: Array | None = getattr(seen, name)
                if rows is not None:
                    whole = known.setdefault(name, np.full((count, rows.shape[1]), np.nan, np.float32))
                    whole[missing] = rows
            file = self._file(table.name)
            if file is not None and self.fabric.is_global_zero:
                file.parent.mkdir(parents=True, exist_ok=True)
                content = io.BytesIO()
                np.savez(content, **known)  # type: ignore[arg-type]
                write_whole(file, content.getvalue())
