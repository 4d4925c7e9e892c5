"""`fairdx summary`: two pages for a committee from the JSON of an audit."""

from pathlib import Path
from typing import Annotated

import typer


def add_summary(app: typer.Typer) -> None:
    """Adds `summary`."""

    @app.command()
    def summary(
        audit: Annotated[Path, typer.Argument(help="What `fairdx audit --json` wrote.")],
        out: Annotated[Path, typer.Option(help="Write the pages (HTML) to this file; - for output.")],
        title: Annotated[str | None, typer.Option(help="Heading.")] = None,
    ) -> None:
        """Two pages for a committee, to print on A4: what was found, how sure, what to do, who signs.

        Example: `fairdx summary audit.json --out summary.html`
        """
        from fairdx.auditing.reread import read_audit
        from fairdx.auditing.summary import render_summary
        from fairdx.commands.outputs import check_outputs, write_output

        check_outputs({"--out": out}, [audit])
        write_output(out, render_summary(read_audit(audit), title=title))
