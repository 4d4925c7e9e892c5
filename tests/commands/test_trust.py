"""What must not go wrong silently on the command line: statuses, signals, locks, markup, formulas."""

import csv
import io
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.table import Table
from safetensors.torch import save_file

import fairdx as fairdx_package
from fairdx.core.cells import as_text
from fairdx.core.console import PlainConsole
from fairdx.core.errors import InputError
from fairdx.core.files import write_sealed
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.source import Source, exclude
from fairdx.models.networks import Encoder
from fairdx.models.runtime import TrainerSettings, make_fabric
from fairdx.runs.files import check_free
from fairdx.runs.run import run
from fairdx.runs.settings import load_settings
from fairdx.runs.trained import StageFolders
from fairdx.study.settings import load_study
from fairdx.study.tables import csv_text
from fairdx.utility.run import data_utility
from fairdx.utility.settings import UtilitySettings

SOURCES = Path(fairdx_package.__file__).parent


def fairdx(*arguments, first="", **options):
    """The command as its entry point starts it, after some lines of Python."""
    code = f"import sys\n{textwrap.dedent(first)}\nfrom fairdx.__main__ import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def one_sentence(done, status):
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def source(groups=("male", "female")):
    rows = np.arange(80)
    table = pd.DataFrame(
        {
            "image": [f"i{i}" for i in rows],
            "patient": [f"p{i}" for i in rows],
            "y": pd.array(rows % 2, dtype="Int16"),
            "sex": np.array(groups)[rows // 2 % 2],
            "split": np.array(["train", "train", "train", "validation", "test"])[rows // 4 % 5],
        }
    )
    pictures = np.random.default_rng(0).integers(0, 256, (80, 1, 16, 16), np.uint8)
    return Source(
        name="made",
        table=table,
        labels={"y": ("no", "yes")},
        attributes={"sex": tuple(groups)},
        render=lambda rows: pictures[rows],
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(source(), tmp_path_factory.mktemp("data") / "set").root


def settings_of(root, *more):
    small = (
        "model.encoder=test_resnet",
        "model.epochs=1",
        "model.batch_size=16",
        "evaluation.replicates=20",
        "trainer.precision=fp32",
    )
    return load_settings(None, (*small, f"data.root={root}", "method.name=score_shift", *more))


def test_the_version():
    done = fairdx("--version")
    assert (done.returncode, done.stdout) == (0, f"fairdx {fairdx_package.__version__}\n")


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("SIGINT", 130, "interrupted; the same command goes on"),
        ("SIGTERM", 143, "stopped by SIGTERM; the same command goes on"),
    ],
)
def test_a_signal_says_how_to_go_on(tmp_path, name, status, words):
    first = f"""
    import os, signal, time
    import fairdx.commands.prepare as command
    def stopped(*_, **__):
        os.kill(os.getpid(), signal.{name})
        time.sleep(60)
    command.prepare = stopped
    """
    assert one_sentence(fairdx("prepare", "phantom", "--out", tmp_path, first=first), status) == f"{words}\n"


@pytest.mark.parametrize("module", ["fairdx.cli", "fairdx.commands.outputs"])
def test_ctrl_c_during_the_imports_shows_no_traceback(tmp_path, module):
    first = f"""
    class Stop:
        def find_spec(self, name, *_):
            if name == {module!r}:
                raise KeyboardInterrupt
    sys.meta_path.insert(0, Stop())
    """
    one_sentence(fairdx("inspect", tmp_path, first=first), 130)


def test_sigterm_during_the_imports_is_no_ctrl_c(tmp_path):
    first = """
    import os, signal, time
    class Stop:
        def find_spec(self, name, *_):
            if name == "fairdx.commands.utility":
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
    sys.meta_path.insert(0, Stop())
    """
    assert one_sentence(fairdx("inspect", tmp_path, first=first), 143) == "stopped by SIGTERM\n"


def test_a_missing_package_names_the_extra(tmp_path):
    done = fairdx("demo", "--out", tmp_path / "out", first="sys.modules['torch'] = None")
    assert "needs the package torch: pip install 'fairdx[train]'" in one_sentence(done, 2)


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "[a]\n" + "b." * 50 + "c = 1\n[a.b"])
def test_settings_that_are_nested_too_deeply_are_bad_input(tmp_path, text):
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(InputError, match=r"run\.toml is not a TOML file"):
        load_settings(tmp_path / "run.toml")


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/b", "-x"])
def test_a_study_cannot_be_called_like_a_folder_above(tmp_path, name):
    path = tmp_path / "study.toml"
    path.write_text(f'[study]\nname = "{name}"\n[[method]]\nname = "vanilla"\n')
    with pytest.raises(InputError, match=r"study\.name"):
        load_study(path, "compare")


def test_weights_of_another_shape_are_bad_input(tmp_path):
    weights = Encoder("resnet18").backbone.state_dict()
    save_file({**weights, "conv1.weight": torch.zeros(64, 1, 7, 5)}, tmp_path / "w.safetensors")
    words = r"w\.safetensors does not hold the weights of resnet18: "
    with pytest.raises(InputError, match=words):
        Encoder("resnet18", weights=str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("table", ["model", "method"])
def test_a_batch_beyond_the_data_is_found_before_stage_1(prepared, tmp_path, table):
    method = () if table == "model" else ("method.name=fair_diagnosis",)
    settings = settings_of(prepared, *method, f"{table}.batch_size=49")
    with pytest.raises(InputError, match=rf"`{table}\.batch_size` is 49, and .* has 48 usable"):
        run(settings, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_one_group_in_training_is_said(tmp_path, caplog):
    given = source()
    lone = given.table["sex"].where(given.table["split"] != "train", "male")
    root = prepare(Source(**{**given.__dict__, "table": given.table.assign(sex=lone)}), tmp_path / "set").root
    with pytest.raises(InputError, match=r"every training image of .* is of the group male of sex"):
        run(settings_of(root), tmp_path / "run")
    run(settings_of(root, "method.name=vanilla"), tmp_path / "vanilla")
    assert "has no training image of sex female" in caplog.text


def test_a_run_checks_its_data_before_it_trains(tmp_path):
    root = prepare(source(), tmp_path / "set").root
    data = bytearray((root / "images.npy").read_bytes())
    data[-1] ^= 1
    (root / "images.npy").write_bytes(data)
    with pytest.raises(InputError, match=rf"{root} is not what was prepared"):
        run(settings_of(root), tmp_path / "run")
    assert not (tmp_path / "run" / "stages").exists()


def test_a_damaged_stage_is_not_trained_again_by_who_only_looks(tmp_path):
    stage = tmp_path / "pretrain-0"
    stage.mkdir()
    write_sealed(stage / "best.safetensors", b"weights")
    write_sealed(stage / "history.json", b"[]")
    place = StageFolders(tmp_path, resume=True, shared=False, finished=True)
    held = place.hold("pretrain-0", make_fabric(TrainerSettings(device="cpu")))
    with pytest.raises(InputError, match=r"history\.json is damaged: it holds no records"), held:
        pass
    assert (stage / "history.json").read_bytes() == b"[]"


@pytest.mark.parametrize("work", [run, lambda own, folder: data_utility(UtilitySettings(run=own), folder)])
def test_a_folder_is_held_by_one_run(prepared, tmp_path, work):
    code = """
    import sys
    from pathlib import Path
    from fairdx.core.locks import locked
    with locked(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"{tmp_path} is being written by process {other.pid}"):
            work(settings_of(prepared), tmp_path)
        other.stdin.close()
    assert not (tmp_path / "config.json").exists()


def test_settings_that_are_damaged_are_written_again(prepared, tmp_path, caplog):
    settings = settings_of(prepared)
    (tmp_path / "stages").mkdir()
    (tmp_path / "config.json").write_bytes(b"\0" * 100)
    check_free(tmp_path, settings, "results.json")
    assert "config.json is damaged" in caplog.text
    for damaged in (b"[]", b"null", b"", b"[" * 200_000):
        (tmp_path / "config.json").write_bytes(damaged)
        check_free(tmp_path, settings, "results.json")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="holds a run with other settings"):
        check_free(tmp_path, settings, "results.json")


def test_names_with_brackets_are_in_what_a_run_prints(tmp_path):
    words = ("late [/old]", "[unknown]")
    table = Table(title=words[0])
    table.add_column(words[1])
    table.add_row(words[0])
    console = PlainConsole()
    with console.capture() as capture:
        console.print(table)
        console.print(f"Open {words[1]}: {words[0]} \x1b[2J :smile:")
    shown = capture.get()
    assert shown.count(words[0]) == 3
    assert shown.count(words[1]) == 2
    assert "\\x1b[2J :smile:" in shown
    used = (path for path in SOURCES.rglob("*.py") if path.name != "console.py")
    texts = {path.name: path.read_text() for path in used}
    # Nobody prints to a console that would read markup in a name.
    assert [name for name, text in texts.items() if re.search(r"(?<!Plain)Console\(", text)] == []


FORMULAS = ("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", '=HYPERLINK("http://x","y")')


@pytest.mark.parametrize("cell", FORMULAS)
def test_no_cell_of_ours_is_a_formula(tmp_path, cell):
    assert as_text(cell) == f"'{cell}"
    text = csv_text(pd.DataFrame({"method": [cell], "mean": [-0.5]}))
    assert next(csv.DictReader(io.StringIO(text, newline=""))) == {"method": f"'{cell}", "mean": "-0.5"}
    given = source()
    left = Source(**{**given.__dict__, "exclusions": exclude(pd.Series([cell]), cell, cell)})
    root = prepare(left, tmp_path / "set", PrepareOptions()).root
    with (root / "exclusions.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1] == [f"'{cell}"] * 3


@pytest.mark.parametrize("cell", ["-0.5", "+3", "1e5", "name", "", "a=b", "’"])
def test_numbers_and_names_stay_as_they_are(cell):
    assert as_text(cell) == cell


def test_a_path_that_looks_like_a_formula_is_the_same_file(tmp_path, monkeypatch):
    from fairdx.deploy.inputs import find_inputs

    monkeypatch.chdir(tmp_path)
    (tmp_path / "=1.png").touch()
    (found,) = find_inputs(["=1.png"]).files
    assert os.path.samefile(found, "=1.png")
    assert as_text(found) == found


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_signs_that_a_terminal_lacks_end_no_work(tmp_path, encoding):
    root = prepare(source(("männlich", "weiblich −")), tmp_path / "set").root
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "fairdx", "inspect", str(root)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"weiblich \\u2212" in done.stdout
    page = subprocess.run([*command, "--html", "-"], env=environment, capture_output=True, check=True).stdout
    subprocess.run([*command, "--html", str(tmp_path / "page.html")], capture_output=True, check=True)
    assert page == (tmp_path / "page.html").read_bytes() + b"\n"  # the last line ends where others follow
