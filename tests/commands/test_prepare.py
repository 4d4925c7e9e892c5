"""The commands `prepare` and `inspect` as a person types them: status, words, files."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairdx.data.base import PreparedDataset
from fairdx.data.readers import READERS

HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
PATIENTS = 40


def fairdx(*arguments, width=100):
    """Runs the installed command without torch: none of this may need it."""
    command = [sys.executable, "-m", "fairdx.cli", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": str(width), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def options_of(help_text):
    return {word.rstrip("│") for word in help_text.split() if word.startswith("--")}


@pytest.fixture
def root(tmp_path):
    """40 patients with an image each, every fourth with pneumonia."""
    folder = tmp_path / "source"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for i in range(PATIENTS):
        Image.fromarray(rng.integers(0, 256, (24, 20), np.uint8)).save(folder / "images" / f"{i:03d}.png")
        finding = "Pneumonia|Edema" if i % 4 == 0 else "No Finding"
        lines.append(f"{i:03d}.png,{finding},0,{i},{30 + i},{'MF'[i % 3 % 2]},{'AP' if i % 2 else 'PA'}\n")
    (folder / "Data_Entry_2017.csv").write_text(HEADER + "".join(lines))
    return folder


def prepare_nih(root, out, *more):
    return fairdx("prepare", "nih", "--root", root, "--out", out, "--size", 16, "--workers", 1, *more)


@pytest.mark.parametrize("name", [*READERS, "phantom"])
def test_help_shows_every_option_with_words_and_an_example(name):
    done = fairdx("prepare", name, "--help", width=200)
    assert done.returncode == 0
    text = done.stdout
    assert f"Example: fairdx prepare {name} " in text
    assert "Args:" not in text
    assert {
        "--out",
        *(() if name == "phantom" else ("--root", "--size", "--seed", "--on-error")),
    } <= options_of(text)
    # Each option's cell of words is filled: no line of an option ends right after its type.
    for line in text.splitlines():
        if "--" in line and "<" in line:
            assert line.rstrip("│ ").split(">")[-1].strip(), line


def test_help_shows_the_defaults_and_the_choices():
    text = " ".join(fairdx("prepare", "chexpert", "--help", width=240).stdout.replace("│", " ").split())
    for words in (
        "in pixels; 224 by default",
        "[default: ignore]",
        "<ignore|zeros|ones>",
        "[default: Pneumonia]",
        "[default: 0.1]",
        "[default: stop]",
        "[default: official-split]",
    ):
        assert words in text


def test_prepare_then_inspect(root, tmp_path):
    done = prepare_nih(root, tmp_path / "out", "--attribute", "view", "--age-bins", 40, "--age-bins", 60)
    assert (done.returncode, done.stderr) == (0, "")
    dataset = PreparedDataset.open(tmp_path / "out")
    counts = ", ".join(f"{number} {name}" for name, number in dataset.meta.counts.items())
    assert (
        done.stdout == f"{tmp_path / 'out'}: {counts}\nLook at it with: fairdx inspect {tmp_path / 'out'}\n"
    )
    assert dataset.meta.counts["images"] == PATIENTS
    assert dataset.meta.attributes["age_group"] == ["under 40", "40 to 59", "60 and over"]
    assert dataset.meta.attributes["view"] == ["AP", "PA"]
    assert dataset.meta.size == 16

    seen = fairdx("inspect", tmp_path / "out", "--json", tmp_path / "found.json", "--label", "Edema")
    assert seen.returncode == 0
    assert "nih: 40 images of 40 patients, 16 x 16, grey" in seen.stdout
    assert "Groups by Edema" in seen.stdout
    assert (
        json.loads((tmp_path / "found.json").read_text())["patients"]["test"] == dataset.meta.counts["test"]
    )


def test_skip_prints_and_lists_what_it_left_out(root, tmp_path):
    (root / "images" / "003.png").write_bytes(b"")
    (root / "images" / "007.png").unlink()
    (root / "images" / "stray.png").touch()
    done = prepare_nih(root, tmp_path / "out", "--on-error", "skip")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'out'}: 38 images, 38 patients, ")
    assert sorted(lines[1:4]) == [
        "  left out 1: file does not exist",
        "  left out 1: file is empty",
        "  left out 1: not in the table",
    ]
    assert lines[4] == f"  each of them is listed in {tmp_path / 'out' / 'exclusions.csv'}"
    with (tmp_path / "out" / "exclusions.csv").open(newline="") as file:
        listed = {row["image"]: row["reason"] for row in csv.DictReader(file)}
    assert listed == {
        "stray.png": "not in the table",
        "003.png": "file is empty",
        "007.png": "file does not exist",
    }
    assert "file is empty" in fairdx("inspect", tmp_path / "out").stdout


def _missing_root(root):
    root.rename(root.with_name("away"))


def _header(root):
    file = root / "Data_Entry_2017.csv"
    file.write_text(file.read_text().replace("Finding Labels", "Findings"))


def _missing_image(root):
    (root / "images" / "004.png").unlink()


def _truncated(root):
    file = root / "images" / "005.png"
    file.write_bytes(file.read_bytes()[:80])


def _empty_file(root):
    (root / "images" / "006.png").write_bytes(b"")


def _third_value(root):
    file = root / "Data_Entry_2017.csv"
    file.write_text(file.read_text().replace("No Finding", "Perhaps", 1))


def _leak(root):
    (root / "train_val_list.txt").write_text("\n".join(f"{i:03d}.png" for i in range(30)))
    (root / "test_list.txt").write_text("\n".join(f"{i:03d}.png" for i in range(30, PATIENTS)))
    file = root / "Data_Entry_2017.csv"
    file.write_text(file.read_text().replace("No Finding,0,39,", "No Finding,0,1,"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_missing_root, "source is not a folder: give the folder that holds the data set"),
        (_header, "Data_Entry_2017.csv has no column 'Finding Labels' (did you mean 'Findings'?)"),
        (_missing_image, "images/004.png does not exist (with on-error skip"),
        (_truncated, "images/005.png is damaged ("),
        (_empty_file, "images/006.png is empty (0 bytes) (with on-error skip"),
        (_third_value, "Data_Entry_2017.csv row 3: 'Finding Labels' is 'Perhaps', which is not"),
        (_leak, "patient '1' is in the splits 'train' and 'test' (1 such patients): images of one patient"),
    ],
)
def test_bad_input_is_status_2_and_one_sentence(root, tmp_path, spoil, words):
    spoil(root)
    done = prepare_nih(root, tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fairdx: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def table(root, label="ill"):
    (root / "images.csv").write_text(
        "image,patient,ill,sex\n"
        + "".join(f"images/{i:03d}.png,p{i},{i % 2},{'mf'[i // 2 % 2]}\n" for i in range(PATIENTS))
    )
    options = ("--table", "images.csv", "--label", label, "--attribute", "sex", "--size", 16, "--workers", 1)
    return ("prepare", "table", "--root", root, *options)


def test_a_third_value_in_a_label_of_ones_own_table(root, tmp_path):
    command = table(root)
    file = root / "images.csv"
    file.write_text(file.read_text().replace("p7,1", "p7,2"))
    done = fairdx(*command, "--out", tmp_path / "out")
    assert done.returncode == 2
    known = "known: '0', '0.0', 'false', 'no', '1', '1.0', 'true', 'yes'"
    assert done.stderr == f"fairdx: {file} row 9: 'ill' is '2' ({known})\n"


def test_an_empty_group_of_ones_own_table(root, tmp_path):
    command = table(root)
    at = command.index("sex")
    done = fairdx(*command[:at], "sex:m|f|x", *command[at + 1 :], "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == f"fairdx: {root / 'images.csv'} has no row with 'x' in 'sex', which 'sex' names\n"


@pytest.mark.parametrize("target", ["file", "folder"])
def test_output_that_cannot_be_written(root, tmp_path, target):
    place = tmp_path / "place"
    if target == "file":
        place.touch()
        words = "place/out: Not a directory"
    else:
        place.mkdir(mode=0o500)
        if os.access(place, os.W_OK):
            pytest.skip("this user may write everywhere")
        words = "place/out: Permission denied"
    done = prepare_nih(root, place / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f"{words}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("prepare", "nih", "--fnding", "Mass"), "No such option: --fnding"),
        (("prepare", "nih", "--out", "x"), "Missing option '--root'"),
        (("prepare", "nhi"), "No such command 'nhi'. Did you mean 'nih'?"),
        (("inspect", "nowhere"), "nowhere is not a folder: give the folder that `fairdx prepare` wrote"),
    ],
)
def test_a_command_that_is_wrong(arguments, words):
    done = fairdx(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_options_that_are_impossible(root, tmp_path):
    for options, words in (
        (("--finding", "Pneumonai"), "finding='Pneumonai' is not possible (did you mean 'Pneumonia'?)"),
        (("--geometry", "pda"), "'pda' is not one of 'pad', 'crop', 'stretch'"),
        (("--test", 1.5), "test=1.5 is not a fraction of patients"),
        (("--attribute", "veiw"), "nih has no column 'veiw' to take as attribute (did you mean 'view'?)"),
    ):
        done = prepare_nih(root, tmp_path / "out", *options)
        assert done.returncode == 2
        assert words in " ".join(done.stderr.replace("│", " ").split())


def test_the_commands_need_no_torch(root, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; from fairdx.cli import main; sys.argv[0] = 'fairdx'; main()"
    )
    arguments = ["prepare", "nih", "--root", root, "--out", tmp_path / "out", "--workers", "1"]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(tmp_path / "out" / "meta.json").exists()
