"""A `predict` that was stopped, repeated, or meets another at the same table."""

import os
import signal
import subprocess
import sys
import time

import pytest
from scored import ONE, names_in, table_of

from fairdx.core.errors import InputError
from fairdx.core.locks import locked
from fairdx.deploy import writer
from fairdx.deploy.predict import PredictOptions, predict


def contents(out):
    return {
        path.name.removeprefix(out.name): path.read_bytes()
        for path in sorted(out.parent.glob(f"{out.name}*"))
    }


COMMAND = """
import sys
from pathlib import Path
from fairdx.deploy import writer
from fairdx.deploy.predict import PredictOptions, predict

writer.SECONDS = 0.0
if __name__ == "__main__":
    print("working", flush=True)
    predict(Path(sys.argv[1]), [sys.argv[2]], Path(sys.argv[3]), PredictOptions(workers=int(sys.argv[4])))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_resumed(tmp_path, model, write_grey, workers):
    for number in range(800):
        write_grey(tmp_path / "in" / f"{number:04}.png", number % 256)
    for number in (5, 400, 799):
        (tmp_path / "in" / f"{number:04}.png").write_bytes(b"")
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    whole = tmp_path / "whole" / "scores.csv"
    predict(model, [str(tmp_path / "in")], whole, ONE)
    out, journal = tmp_path / "out" / "scores.csv", tmp_path / "out" / "scores.csv.progress.jsonl"
    stops = 0
    for wanted in (2, 15, 30):
        process = subprocess.Popen(
            [sys.executable, str(script), str(model), str(tmp_path / "in"), str(out), str(workers)],
            stdout=subprocess.PIPE,
        )
        while process.poll() is None and len(writer.read_journal(journal)) < wanted:
            time.sleep(0.002)
        stops += process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert stops >= 2
    with (tmp_path / "out" / "scores.csv.partial").open("ab") as file:
        file.write(b"/half/a/li")
    outcome = predict(model, [str(tmp_path / "in")], out, ONE)
    assert outcome.record.broken == 3
    assert contents(out) == contents(whole)
    assert names_in(out.parent) == ["scores.csv", "scores.csv.errors.csv", "scores.csv.json"]


def interrupted(monkeypatch, folder, paths, out, after, options=ONE):
    """A run that fails after some batches, with all that is done on the disk."""
    add = writer.ScoreWriter.add

    def failing(self, batch):
        add(self, batch)
        self.batches = getattr(self, "batches", 0) + 1
        if self.batches == after:
            raise RuntimeError("stop")

    with monkeypatch.context() as patch:
        patch.setattr(writer.ScoreWriter, "add", failing)
        with pytest.raises(RuntimeError, match="stop"):
            predict(folder, paths, out, options)


def test_what_is_done_is_not_done_again_unless_it_changed(tmp_path, model, write_grey, monkeypatch):
    files = [write_grey(tmp_path / "in" / f"{n:02}.png", n) for n in range(64)]
    out = tmp_path / "scores.csv"
    interrupted(monkeypatch, model, [str(tmp_path / "in")], out, 3)
    write_grey(files[20], 200)  # in the second batch
    read = []
    from fairdx.deploy import predict as module

    decode = module.decode_batch
    monkeypatch.setattr(
        module, "decode_batch", lambda job, reading: read.append(job.files) or decode(job, reading)
    )
    predict(model, [str(tmp_path / "in")], out, ONE)
    assert read[0][0] == str(files[16])
    assert table_of(out)["score"].tolist() == pytest.approx(
        [(200 if n == 20 else n) / 255 for n in range(64)], abs=2e-6
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threshold": 0.7}, "another threshold"),
        ({"batch_size": 8}, "another batch size"),
        ({"part": (1, 2)}, "another part"),
        ({"keep_patient_id": True}, "--keep-patient-id"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_call_is_refused(tmp_path, model, write_grey, monkeypatch, change, words, finished):
    for n in range(40):
        write_grey(tmp_path / "in" / f"{n:02}.png", n)
    out = tmp_path / "scores.csv"
    if finished:
        predict(model, [str(tmp_path / "in")], out, ONE)
    else:
        interrupted(monkeypatch, model, [str(tmp_path / "in")], out, 1)
    before = contents(out)
    with pytest.raises(InputError, match=words):
        predict(model, [str(tmp_path / "in")], out, PredictOptions(workers=1, **change))
    assert contents(out) == before


def test_another_model_or_another_list_is_refused(tmp_path, model, write_model, write_grey, monkeypatch):
    for n in range(40):
        write_grey(tmp_path / "in" / f"{n:02}.png", n)
    out = tmp_path / "scores.csv"
    interrupted(monkeypatch, model, [str(tmp_path / "in")], out, 1)
    other, _ = write_model(tmp_path / "other", threshold=0.6)
    with pytest.raises(InputError, match="another model"):
        predict(other, [str(tmp_path / "in")], out, ONE)
    write_grey(tmp_path / "in" / "new.png", 1)
    with pytest.raises(InputError, match="another list"):
        predict(model, [str(tmp_path / "in")], out, ONE)


def test_a_finished_run_says_what_is_there(tmp_path, model, write_grey):
    file = write_grey(tmp_path / "a.png", 1)
    first = predict(model, [str(file)], tmp_path / "scores.csv", ONE)
    before = contents(tmp_path / "scores.csv")
    assert predict(model, [str(file)], tmp_path / "scores.csv", ONE) == first
    assert contents(tmp_path / "scores.csv") == before


@pytest.mark.parametrize("ending", ["", ".errors.csv"])
def test_a_finished_table_that_was_changed_is_not_taken_for_what_was_written(
    tmp_path, model, write_grey, ending
):
    file = write_grey(tmp_path / "in" / "a.png", 1)
    out = tmp_path / "out" / "scores.csv"
    predict(model, [str(file)], out, ONE)
    changed = out.with_name(out.name + ending)
    changed.write_bytes(changed.read_bytes()[:-3])
    with pytest.raises(InputError, match=rf"{changed} was changed after it was written"):
        predict(model, [str(file)], out, ONE)
    changed.unlink()
    with pytest.raises(InputError, match=f"has lost its {changed.name}"):
        predict(model, [str(file)], out, ONE)
    assert not list(out.parent.glob(".*"))  # no lock is left behind


def test_scores_of_a_file_that_was_replaced_are_not_taken_for_the_new_one_s(tmp_path, model, write_grey):
    file, other = (write_grey(tmp_path / "in" / name, 1) for name in ("a.png", "b.png"))
    out = tmp_path / "scores.csv"
    predict(model, [str(file), str(other)], out, ONE)
    write_grey(file, 200)
    with pytest.raises(InputError, match="files have changed since"):
        predict(model, [str(file), str(other)], out, ONE)
    assert table_of(out)["score"][0] == pytest.approx(1 / 255, abs=2e-6)


def test_a_journal_of_another_kind_is_started_anew(tmp_path, model, write_grey, monkeypatch):
    for n in range(40):
        write_grey(tmp_path / "in" / f"{n:02}.png", n)
    out = tmp_path / "scores.csv"
    interrupted(monkeypatch, model, [str(tmp_path / "in")], out, 2)
    journal = tmp_path / "scores.csv.progress.jsonl"
    first, *_ = journal.read_text().splitlines()
    journal.write_text(f'{first}\n{{"files": "16", "stamp": null}}\n{{}}\n')
    assert predict(model, [str(tmp_path / "in")], out, ONE).record.scored == 40


def test_nothing_is_overwritten(tmp_path, model, write_grey):
    file = write_grey(tmp_path / "a.png", 1)
    (tmp_path / "scores.csv").write_text("precious")
    with pytest.raises(InputError, match=r"scores\.csv already exists"):
        predict(model, [str(file)], tmp_path / "scores.csv", ONE)
    assert (tmp_path / "scores.csv").read_text() == "precious"


def test_two_runs_do_not_write_the_same_table(tmp_path, model, write_grey):
    file = write_grey(tmp_path / "a.png", 1)
    script = (
        "import sys; from pathlib import Path; from fairdx.core.locks import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "scores.csv")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match=rf"written by process {process.pid}"):
        predict(model, [str(file)], tmp_path / "scores.csv", ONE)
    predict(model, [str(file)], tmp_path / "others.csv", ONE)
    process.communicate(b"")
    with locked(tmp_path / "scores.csv"):
        pass


def test_a_full_disk_is_one_sentence_and_the_same_call_goes_on(tmp_path, model, write_grey, full_disk):
    for k in range(4):
        write_grey(tmp_path / "in" / f"{k}.png", 51 * k)
    old, out = tmp_path / "old.csv", tmp_path / "out" / "scores.csv"
    predict(model, [str(tmp_path / "in")], old, ONE)
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path) if name.startswith("old")}
    limit = old.stat().st_size // 2
    out.parent.mkdir()
    with full_disk(out, limit):
        predict(model, [str(tmp_path / "in")], out, ONE)
    assert not out.exists()
    predict(model, [str(tmp_path / "in")], out, ONE)
    assert out.read_bytes() == old.read_bytes()
    # What is finished is not written again, so a full disk does not touch it.
    predict(model, [str(tmp_path / "in")], old, ONE)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
