"""Shows the notebooks in the documentation: each becomes a page of Markdown when the site is built."""

import json
import re
import textwrap
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Puts a page in the place of each notebook; the notebook itself stays as a download."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page = notebook.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, page, content=as_markdown(notebook)))
    return files


def as_markdown(notebook: File) -> str:
    """The cells one after another, each with what it shows."""
    cells = json.loads(notebook.content_string)["cells"]
    name = notebook.src_uri.rpartition("/")[2]
    first, *rest = ["\n".join(_cell(cell)) for cell in cells]
    return "\n\n".join([first, f"[Download this notebook]({name})", *rest])


def _cell(cell: dict[str, Any]) -> list[str]:
    text = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [text]
    shown = [line for output in cell["outputs"] for line in _output(output)]
    return ["```python", text, "```", *shown]


def _output(output: dict[str, Any]) -> list[str]:
    data = output.get("data", {})
    if "text/html" in data:
        # A table of pandas, without its looks: the site has its own.
        table = "".join(data["text/html"]).partition("<table")[2].partition("</table>")[0].partition(">")[2]
        table = re.sub(r' style="[^"]*"', "", table)
        return ["", f"<table>{table}</table>", ""]
    text = "".join(data.get("text/plain") or output.get("text", "")).rstrip()
    wrapped = [
        textwrap.fill(line, 78, subsequent_indent="  ", drop_whitespace=len(line) > 78)
        for line in text.splitlines()
    ]
    return ["", "```text", *wrapped, "```"]
