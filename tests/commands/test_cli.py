"""The command line as a user meets it: exit status, one sentence on stderr, no traceback."""

import subprocess
import sys

import pytest


def from_the_shell(*arguments):
    command = [sys.executable, "-m", "fairdx.cli", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)


def test_help_lists_every_command():
    done = from_the_shell("--help")
    assert done.returncode == 0
    for command in ("demo", "prepare", "inspect", "run", "audit", "predict"):
        assert command in done.stdout


@pytest.mark.parametrize("command", ["demo", "inspect", "run", "audit", "predict"])
def test_the_help_of_every_command_has_an_example(here, command):
    done = here(command, "--help")
    assert done.returncode == 0
    assert f"fairdx {command}" in done.stdout.partition("Example")[2]


def test_bad_input_is_one_sentence_and_status_2(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text("[method]\nepoch = 3\n")
    done = from_the_shell("run", config)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].endswith("unknown key `epoch`; did you mean `epochs`?")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("run", "none.toml"), "none.toml"),
        (("inspect", "nowhere"), "nowhere"),
        (("audit", "none.csv", "--label", "y", "--score", "p", "--group", "s"), "none.csv"),
        (("prepare", "nih", "--root", "nowhere", "--out", "out"), "nowhere"),
    ],
)
def test_what_is_missing_is_named(here, tmp_path, monkeypatch, arguments, word):
    monkeypatch.chdir(tmp_path)
    done = here(*arguments)
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_option_is_status_2(here):
    assert here("demo", "--quik").returncode == 2


def test_a_place_that_cannot_be_written_to_is_named(here, tmp_path):
    (tmp_path / "file").write_text("")
    config = tmp_path / "run.toml"
    config.write_text("")
    done = here("run", config, "--out", tmp_path / "file" / "out")
    assert done.returncode == 2
    assert "cannot write to" in done.stderr


def test_debug_shows_the_traceback(tmp_path):
    done = from_the_shell("inspect", tmp_path / "nowhere", "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_the_phantom_is_prepared_and_inspected(here, tmp_path):
    sizes = ("--size", 32, "--train", 40, "--validation", 20, "--test", 20)
    done = here("prepare", "phantom", "--out", tmp_path / "set", *sizes)
    assert done.returncode == 0, done.stderr
    assert "80 images" in done.stdout
    shown = here("inspect", tmp_path / "set")
    assert shown.returncode == 0, shown.stderr
    assert "pneumonia" in shown.stdout
