"""Find and remove the direct effect of a sensitive attribute on image-based diagnoses."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairdx.auditing import audit

__all__ = ["audit"]
__version__ = version("fairdx")


def __getattr__(name: str) -> Any:
    """`fairdx.audit`, imported when it is first asked for."""
    if name == "audit":
        from fairdx.auditing import audit

        return audit
    raise AttributeError(f"module 'fairdx' has no attribute {name!r}")
