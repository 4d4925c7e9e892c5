"""The phantom: drawn chest images whose true direct effect is known, because it can draw interventions."""

from fairdx.data.phantom.phantom import Phantom, PhantomSettings, Regions

__all__ = ["Phantom", "PhantomSettings", "Regions"]
