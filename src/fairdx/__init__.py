"""Find and remove the direct effect of a sensitive attribute on image-based diagnoses."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fairdx.auditing.engine import audit
    from fairdx.models.store import load_model as load
    from fairdx.runs.mitigate import mitigate

__all__ = ["audit", "load", "mitigate"]
__version__ = version("fairdx")

_PLACES: Final = {
    "audit": ("fairdx.auditing", "audit"),
    "load": ("fairdx.models.store", "load_model"),
    "mitigate": ("fairdx.runs.mitigate", "mitigate"),
}
"""Where the public names are. Each is imported when it is first asked for: an audit needs no torch."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'fairdx' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)
