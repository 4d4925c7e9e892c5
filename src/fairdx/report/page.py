"""One self-contained HTML page from a template: styles, script and data inside, nothing fetched."""

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from math import isfinite
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fairdx.report import numbers
from fairdx.report.svg import SERIES, swatch


@cache
def environment() -> Environment:
    """Templates with escaping always on and undefined names refused."""
    made = Environment(
        loader=PackageLoader("fairdx.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["count"] = numbers.integer
    made.filters["styled"] = lambda value, metric: numbers.style_of(metric)(value)
    made.filters["ends"] = lambda item, metric: numbers.style_of(metric).interval(item.low, item.high)
    made.globals |= {
        "swatch": lambda series: Markup(swatch(series)),
        "unit_of": numbers.unit_of,
        "direction_of": numbers.direction_of,
        "SERIES": SERIES,
    }
    return made


def asset(name: str) -> str:
    """Text of a file beside the templates."""
    return files("fairdx.report").joinpath("templates", name).read_text(encoding="utf-8")


def render_page(template: str, *, script: str | None = None, **content: Any) -> str:
    """Render a page.

    Its content security policy allows styles, embedded images and the one script named here, known by its
    hash: nothing is fetched, and nothing in the data can run.

    Args:
        template: Name of the template.
        script: Name of the page's script, if it has one.
        **content: What the template shows.

    Returns:
        The page.
    """
    code = None if script is None else asset(script)
    allowed = "'none'"
    if code is not None:
        digest = hashlib.sha256(code.encode()).digest()
        allowed = f"'sha256-{base64.b64encode(digest).decode()}'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    return (
        environment()
        .get_template(template)
        .render(
            **content,
            policy=policy,
            style=Markup(asset("charts.css") + asset("style.css")),
            script=None if code is None else Markup(code),
        )
    )


def json_for_script(value: Any) -> Markup:
    """JSON that can stand inside a script element, whatever its strings hold; undefined numbers are null."""
    text = json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)
    for unsafe in "<>&\u2028\u2029":
        text = text.replace(unsafe, f"\\u{ord(unsafe):04x}")
    return Markup(text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def png_uri(data: bytes) -> str:
    """A PNG as the address of an image element."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
