"""How figures that may be undefined stand in JSON, and in schemas of it."""

from math import nan
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

Number = Annotated[
    float,
    BeforeValidator(lambda value: nan if value is None else value),
    WithJsonSchema({"type": ["number", "null"]}),
]
"""A float that is nan where it is not defined; JSON has no nan, so it is null there."""
