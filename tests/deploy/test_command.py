"""`fairdx predict` as a user meets it, also where there is no torch."""

import os
import sys

import pandas as pd
import pytest

from fairdx import cli


def test_without_torch(tmp_path, model, write_grey, write_dicom, fairdx):
    """Importing torch raises, in this process and in those that decode."""
    for module in ("torch", "torchvision", "timm", "lightning_fabric", "safetensors"):
        (tmp_path / "without" / module).mkdir(parents=True)
        (tmp_path / "without" / module / "__init__.py").write_text("raise ImportError('there is none')")
    for number in range(150):
        write_grey(tmp_path / "in" / f"{number:03}.png", number)
    write_dicom(tmp_path / "in" / "a.dcm", 51)
    path = os.pathsep.join([str(tmp_path / "without"), os.environ.get("PYTHONPATH", "")])
    done = fairdx(
        "predict", model, tmp_path / "in", "--out", tmp_path / "scores.csv", "--workers", 2,
        "--dicom-sr", tmp_path / "sr", env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "151 files scored" in done.stdout
    assert len(pd.read_csv(tmp_path / "scores.csv")) == 151


def test_exit_status_and_summary(tmp_path, model, write_grey, fairdx):
    write_grey(tmp_path / "in" / "a.png", 1)
    (tmp_path / "in" / "b.png").write_bytes(b"")
    (tmp_path / "in" / "c.txt").write_text("")
    done = fairdx("predict", model, tmp_path / "in", "--out", tmp_path / "scores.csv")
    assert done.returncode == 3
    assert "1 files scored" in done.stdout
    assert "scores.csv.errors.csv" in done.stdout
    assert "passed over 1 files" in done.stdout
    again = fairdx("predict", model, tmp_path / "in", "--out", tmp_path / "scores.csv")
    assert (again.returncode, again.stdout) == (3, done.stdout)


def test_a_list_from_the_standard_input(tmp_path, model, write_grey, fairdx):
    file = write_grey(tmp_path / "a.png", 51)
    done = fairdx("predict", model, "--list", "-", "--out", tmp_path / "scores.csv", input=f"{file}\n")
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(tmp_path / "scores.csv")["path"].tolist() == [str(file)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("MODEL", "--out", "s.csv"), "nothing to score"),
        (("MODEL", "none.png", "--out", "s.csv"), "none.png does not exist"),
        (("MODEL", "empty", "--out", "s.csv"), "there is no image file"),
        (("none", "a.png", "--out", "s.csv"), "none holds no model"),
        (("MODEL", "a.png", "--out", "empty"), "empty is a folder"),
        (("MODEL", "a.png", "--out", "s.csv", "--part", "3"), "not of the form K/N"),
        (("MODEL", "a.png", "--out", "s.csv", "--part", "3/2"), "part 3/2 is not possible"),
        (("MODEL", "a.png", "--out", "s.csv", "--part", "0/2"), "part 0/2 is not possible"),
        (("MODEL", "a.png", "--out", "s.csv", "--threshold", "1.5"), "not in [0, 1]"),
        (("MODEL", "a.png", "--out", "s.csv", "--threshold", "nan"), "not in [0, 1]"),
        (("MODEL", "a.png", "--out", "s.csv", "--device", "tpu"), "give cpu or cuda"),
        (("MODEL", "a.png", "--out", "s.csv", "--groups", "g.csv"), "needs no group"),
        (("MODEL", "--list", "none.txt", "--out", "s.csv"), "none.txt cannot be read"),
        (("MODEL", "a.png", "--out", "a.png/s.csv"), "cannot write to"),
        (("--join", "a.png", "--out", "s.csv"), "a.png has no a.png.json"),
        (("--join", "a.png", "--out", "s.csv", "--part", "1/2"), "--part has no meaning with --join"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(
    tmp_path, model, write_grey, monkeypatch, capsys, arguments, words
):
    write_grey(tmp_path / "a.png", 1)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    for registered in ("registered_commands", "registered_groups"):  # `main` adds to them
        monkeypatch.setattr(cli.app, registered, list(getattr(cli.app, registered)))
    given = [str(model) if argument == "MODEL" else argument for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["fairdx", "predict", *given])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2, error
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "s.csv").exists()
