"""`fairdx summary` and `fairdx checklist`: an audit for a committee, and for a journal."""

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


def add_checklist(app: typer.Typer) -> None:
    """Adds `checklist`."""

    @app.command()
    def checklist(
        sources: Annotated[
            list[Path],
            typer.Argument(help="What `fairdx audit --json` wrote, the folder of a run, or both."),
        ],
        out: Annotated[Path, typer.Option(help="Write Markdown to this file; - for output.")] = Path("-"),
        form: Annotated[
            str, typer.Option("--form", help="stard-ai, tripod-ai or claim; all three by default.")
        ] = "",
    ) -> None:
        """Reporting checklists, filled as far as an audit and a run can answer them.

        Example: `fairdx checklist audit.json runs/mine --form claim --out claim.md`
        """
        from fairdx.auditing.checklists import CHECKLISTS, filled
        from fairdx.commands.outputs import check_outputs, write_output
        from fairdx.core.errors import InputError

        if form and form not in CHECKLISTS:
            raise InputError(f"there is no checklist {form!r}; there is {', '.join(CHECKLISTS)}")
        check_outputs({"--out": out}, sources)
        facts: dict[str, str] = {}
        for source in sources:
            for key, text in _facts(source).items():
                facts[key] = f"{facts[key]} {text}" if facts.get(key) else text
        chosen = [CHECKLISTS[form]] if form else list(CHECKLISTS.values())
        write_output(out, "\n".join(filled(one, facts) for one in chosen))


def _facts(source: Path) -> dict[str, str]:
    if source.is_dir():
        from fairdx.runs.checklist_facts import facts_of_run

        return facts_of_run(source)
    from fairdx.auditing.checklist_facts import facts_of_audit
    from fairdx.auditing.reread import read_audit

    return facts_of_audit(read_audit(source))
