"""Find and remove the direct effect of a sensitive attribute on image-based diagnoses."""

from importlib.metadata import version

__version__ = version("fairdx")
