"""The phantom: drawn chest images whose true direct effect is known, because it can draw interventions."""

from fairdx.data.phantom.phantom import Phantom, PhantomSettings

__all__ = ["Phantom", "PhantomSettings"]
