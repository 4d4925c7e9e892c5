"""How figures that may be undefined stand in JSON schemas."""

from typing import Annotated

from pydantic import WithJsonSchema

Number = Annotated[float, WithJsonSchema({"type": ["number", "null"]})]
"""A float that is nan where it is not defined; JSON has no nan, so it is null there."""
