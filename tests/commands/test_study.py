"""The commands of studies: exit status, what is printed, and that the audit does not wait for them."""

import subprocess
import sys

import pandas as pd
import pytest
import typer

from fairdx.commands.study import study_command
from fairdx.study import run as study_run
from fairdx.study.execute import Outcome


@pytest.fixture
def outcome(monkeypatch):
    def give(found):
        def run_study(request):
            if isinstance(found, BaseException):
                raise found
            return request.out, found

        monkeypatch.setattr(study_run, "run_study", run_study)

    return give


def test_failed_runs_are_listed_and_the_status_is_one(outcome, tmp_path, capsys):
    outcome(Outcome(pd.DataFrame(), [("ours, phantom, seed 3", "no longer finite")], open=2))
    with pytest.raises(typer.Exit) as stopped:
        study_command("compare")(tmp_path / "x.toml", out=tmp_path)
    assert stopped.value.exit_code == 1
    said = capsys.readouterr().err
    assert "failed: ours, phantom, seed 3: no longer finite" in said
    assert "2 runs are still open at other workers" in said
    assert "study.html" not in said  # there is nothing in it yet


def test_an_interruption_says_how_to_go_on(outcome, tmp_path, capsys):
    outcome(KeyboardInterrupt())
    with pytest.raises(typer.Exit) as stopped:
        study_command("compare")(tmp_path / "x.toml", out=tmp_path)
    assert stopped.value.exit_code == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_finished_study_prints_its_table(outcome, tmp_path, capsys):
    (tmp_path / "table.md").write_text("| Method | AUC |\n| --- | ---: |\n| ours | 98.7 |\n")
    outcome(Outcome(pd.DataFrame({"key": ["a"]}), []))
    study_command("compare")(tmp_path / "x.toml", out=tmp_path)
    assert "98.7" in capsys.readouterr().out


def test_adding_the_commands_imports_neither_torch_nor_optuna():
    code = (
        "import sys, typer; from fairdx.commands.study import add_studies; add_studies(typer.Typer()); "
        "sys.exit(bool({'torch', 'optuna', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
