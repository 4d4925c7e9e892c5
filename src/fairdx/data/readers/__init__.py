"""The readers by name: `fairdx prepare NAME --root SRC` calls one, its keyword arguments are the options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fairdx.data.readers.chexpert import read_chexpert
from fairdx.data.readers.chexpert_plus import read_chexpert_plus
from fairdx.data.readers.ham10000 import read_ham10000
from fairdx.data.readers.mimic_cxr import read_mimic_cxr
from fairdx.data.readers.nih import read_nih
from fairdx.data.readers.table import read_table
from fairdx.data.readers.tcga_luad import read_tcga_luad

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fairdx.data.source import Source

READERS: Final[Mapping[str, Callable[..., Source]]] = {
    "nih": read_nih,
    "chexpert": read_chexpert,
    "chexpert-plus": read_chexpert_plus,
    "mimic-cxr": read_mimic_cxr,
    "tcga-luad": read_tcga_luad,
    "ham10000": read_ham10000,
    "table": read_table,
}
"""Each takes the root and keyword options, and returns a source."""
