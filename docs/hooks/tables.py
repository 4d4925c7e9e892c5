"""Stops the build where a table would be shown as a row of bars: Markdown wants an empty line before it."""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Looks at every page after its Markdown has become HTML."""
    text = re.sub(r"(?s)<pre.*?</pre>", "", html)
    row = re.search(r"(?m)^(?:<p>)?(\|.*\|.*)$", text)
    if row is not None:
        raise PluginError(f"{page.file.src_uri}: put an empty line before the table of `{row[1][:60]}`")
    return html
