"""No run twice, whatever happens: failures, interruptions, other workers, an extended plan."""

import subprocess
import sys
from contextlib import closing

import pandas as pd
import pytest
from optuna.trial import TrialState, create_trial

from fairdx.core.errors import DiskError, InputError
from fairdx.study import storage
from fairdx.study.execute import GridWorker
from fairdx.study.plan import plan_runs
from fairdx.study.run import StudyRequest, run_study
from fairdx.study.settings import load_study
from fairdx.study.storage import FAILURE, KEY, Trials


def compare(path, out, *assignments, **options):
    return run_study(StudyRequest(path, "compare", assignments, out, **options))[1]


def test_every_run_is_done_once_and_the_table_has_a_row_for_each(runs, study_file, tmp_path):
    path, out = study_file(), tmp_path / "out"
    outcome = compare(path, out)
    assert not outcome.failures
    table = pd.read_parquet(out / "study.parquet")
    assert list(zip(table["method"], table["seed"], strict=True)) == [
        ("vanilla", 0),
        ("vanilla", 1),
        ("ours", 0),
        ("ours", 1),
    ]
    assert table["auroc"].tolist() == pytest.approx([0.9, 0.901, 0.88, 0.881])
    assert table["auroc/low"].tolist() == [0.8] * 4
    assert table["accuracy"].isna().all()
    assert table["needs_group"].tolist() == [False] * 4
    assert table["kept_epoch"].tolist() == [1] * 4
    assert all((out / folder / "results.json").exists() for folder in table["folder"])
    assert "ours" in (out / "table.md").read_text()
    assert (out / "study.html").exists()
    before = (out / "study.parquet").read_bytes()
    compare(path, out)
    assert len(runs.done) == 4
    assert (out / "study.parquet").read_bytes() == before


def test_an_interrupted_study_goes_on_with_the_same_command(runs, study_file, tmp_path):
    path, out = study_file(), tmp_path / "out"
    runs.interrupt_at = 2
    with pytest.raises(KeyboardInterrupt):
        compare(path, out)
    assert len(runs.done) == 2
    assert len(pd.read_parquet(out / "study.parquet")) == 2
    outcome = compare(path, out)
    assert (len(runs.done), len(outcome.rows)) == (4, 4)


def test_a_run_that_fails_is_listed_and_the_study_goes_on(runs, study_file, tmp_path):
    path, out = study_file(), tmp_path / "out"
    runs.fails = lambda settings: (settings.method_name, settings.seed) == ("fair_diagnosis", 0)
    for _ in range(2):  # and is not tried again by itself
        outcome = compare(path, out)
        assert outcome.failures == [("ours, phantom, seed 0", "the loss is no longer finite")]
        assert len(runs.done) == 4
    assert outcome.rows["failure"].notna().tolist() == [False, False, True, False]
    assert "no longer finite" in (out / "study.html").read_text()
    runs.fails = lambda settings: False
    outcome = compare(path, out, retry=True)
    assert (len(runs.done), outcome.failures) == (5, [])
    assert outcome.rows["auroc"].notna().all()


def test_a_study_is_extended_but_not_changed(runs, study_file, tmp_path):
    path, out = study_file(), tmp_path / "out"
    compare(path, out)
    assert len(compare(path, out, "study.seeds=[0, 1, 2]").rows) == 6
    assert len(runs.done) == 6
    with pytest.raises(InputError, match="2 runs that this file does not ask for"):
        compare(path, out)
    with pytest.raises(InputError, match="can be extended, not changed"):
        compare(path, out, "study.seeds=[0, 1, 2]", "run.trainer.flip=true")
    assert len(runs.done) == 6


def test_what_a_lost_database_knew_is_taken_from_the_folders(runs, study_file, tmp_path, capsys):
    path, out = study_file(), tmp_path / "out"
    before = compare(path, out).rows
    assert "run 4 of 4: ours" in capsys.readouterr().err
    (out / "study.db").unlink()
    pd.testing.assert_frame_equal(compare(path, out).rows, before)
    assert len(runs.done) == 4
    assert "run 1 of" not in capsys.readouterr().err


def test_one_process_holds_the_folder(runs, study_file, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    script = (
        "import sys; from pathlib import Path; from fairdx.core.locks import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="being written by process"):
            compare(study_file(), out)
        other.stdin.close()
    assert runs.done == []
    assert len(compare(study_file(), out).rows) == 4


def test_a_trial_of_a_dead_process_is_done_again(runs, study_file, tmp_path):
    path, out = study_file(), tmp_path / "out"
    out.mkdir()
    keys = [run.key for run in plan_runs(load_study(path, "compare"), path)]
    with closing(Trials("instant", out, None, ("minimize",))) as trials:
        trials.enqueue(keys)
        trials.study.ask()  # and the process ends
    outcome = compare(path, out)
    assert [settings.seed for settings in runs.done].count(0) == 2
    assert (len(runs.done), len(outcome.rows)) == (4, 4)
    with closing(Trials("instant", out, None, ("minimize",))) as trials:
        states = [trial.state for trial in trials.all()]
    assert (states.count(TrialState.FAIL), states.count(TrialState.COMPLETE)) == (1, 4)


def test_a_run_that_is_queued_twice_is_done_once(runs, study_file, tmp_path):
    path, out = study_file(), tmp_path / "out"
    out.mkdir()
    plan = plan_runs(load_study(path, "compare"), path)
    with closing(Trials("instant", out, None, ("minimize",))) as trials:
        for run in (*plan, *plan):  # two workers looked at an empty queue at once
            trials.study.enqueue_trial({}, user_attrs={KEY: run.key})
        outcome = GridWorker(plan, out, trials).work()
    assert (len(runs.done), len(outcome.rows)) == (4, 4)


def test_a_setting_that_varies_is_a_column(runs, study_file, tmp_path):
    text = study_file().read_text() + 'vary = { "method.eta" = [0.1, 0.2], "data.label" = ["a", 3] }\n'
    text = text.replace("[[method]]", 'data.label = "a"\n[[method]]', 1).replace('"a", 3', '"a", "b"')
    path = study_file(text)
    outcome = run_study(StudyRequest(path, "ablate", (), tmp_path / "out"))[1]
    table = pd.read_parquet(tmp_path / "out" / "study.parquet")
    assert table.loc[table["method"] == "ours", "method.eta"].tolist() == [0.1] * 4 + [0.2] * 4
    assert table.loc[table["method"] == "vanilla", "method.eta"].isna().all()
    assert table["data.label"].dropna().unique().tolist() == ["a", "b"]
    assert len(outcome.rows) == 10


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "is not one as postgresql://"),
        (
            "postgresql://nobody:secret@127.0.0.1:1/none",
            r"cannot use the database postgresql at 127\.0\.0\.1",
        ),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(
    runs, study_file, tmp_path, url, message, monkeypatch
):
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    with pytest.raises(InputError, match=message) as caught:
        compare(study_file(), tmp_path / "out", storage=url)
    assert "secret" not in str(caught.value)


def test_a_folder_holds_one_study_of_one_kind(runs, study_file, tmp_path):
    path, out = study_file(), tmp_path / "out"
    compare(path, out)
    before = (out / "study.parquet").read_bytes()
    with pytest.raises(InputError, match="is of the study `instant`, not of `other`"):
        compare(path, out, "study.name=other", "study.seeds=[7]")
    search = (
        '[study]\nname = "instant"\n[run]\nmethod.name = "fair_diagnosis"\n'
        '[tune.space]\n"method.eta" = { low = 0.1, high = 0.2 }\n'
    )
    with pytest.raises(InputError, match="another kind of study under the name `instant`"):
        run_study(StudyRequest(study_file(search, "search.toml"), "tune", (), out))
    assert (out / "study.parquet").read_bytes() == before


def shared_database(tmp_path):
    return f"sqlite:///{tmp_path}/shared.db"


def test_a_failure_in_another_workers_longer_plan_is_not_ours(runs, study_file, tmp_path):
    path, out, url = study_file(), tmp_path / "out", shared_database(tmp_path)
    longer = plan_runs(load_study(path, "compare", ("study.seeds=[0, 1, 2]",)), path)

    def meanwhile(settings):
        with closing(Trials("instant", out, url, ("minimize",))) as trials:
            failed = {KEY: longer[2].key, FAILURE: "of another"}
            trials.study.add_trial(create_trial(state=TrialState.FAIL, user_attrs=failed))
        return False

    runs.fails = meanwhile
    outcome = compare(path, out, storage=url)
    assert (len(outcome.rows), outcome.failures) == (4, [])


def test_a_worker_who_died_at_an_empty_queue_is_in_nobodys_way(runs, study_file, tmp_path):
    path, out, url = study_file(), tmp_path / "out", shared_database(tmp_path)
    out.mkdir()
    with closing(Trials("instant", out, url, ("minimize",))) as trials:
        trials.study.add_trial(create_trial(state=TrialState.RUNNING))
    assert len(compare(path, out, storage=url).rows) == 4


@pytest.mark.parametrize("fails", [False, True])
def test_a_worker_whose_run_was_given_away_goes_on(runs, study_file, tmp_path, caplog, fails):
    path, out, url = study_file(), tmp_path / "out", shared_database(tmp_path)

    def given_away(settings):
        if len(runs.done) > 1:
            return False
        with closing(Trials("instant", out, url, ("minimize",))) as trials:
            for trial in trials.all(TrialState.RUNNING):  # what others do when they hear nothing
                trials.study.tell(trial.number, state=TrialState.FAIL)
        return fails

    runs.fails = given_away
    outcome = compare(path, out, storage=url)
    assert (len(outcome.rows), outcome.failures) == (4, [])
    assert len(runs.done) == 4 + fails
    assert "silent for too long" in caplog.text


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 200, b'{"seconds": 1.5, "da', b"[]", b"null", b"[" * 200_000, b'{"methods": {}}']
)
def test_damaged_results_are_set_aside_and_the_run_is_done_again(runs, study_file, tmp_path, caplog, content):
    path, out = study_file(), tmp_path / "out"
    before = compare(path, out).rows
    place = out / before["folder"].iloc[1]
    (place / "results.json").write_bytes(content)
    after = compare(path, out).rows
    assert len(runs.done) == 5
    assert runs.done[4] == runs.done[1]
    assert (place / "results.json.broken").read_bytes() == content
    assert f"{place / 'results.json'} is damaged" in caplog.text
    pd.testing.assert_frame_equal(after, before)


def test_damaged_predictions_are_named(runs, study_file, tmp_path):
    path, out = study_file(), tmp_path / "out"
    place = out / compare(path, out).rows["folder"].iloc[1]
    (place / "predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=rf"{place / 'predictions.parquet'} is damaged"):
        compare(path, out)


def test_a_full_disk_ends_a_study_and_counts_no_run_as_failed(runs, study_file, tmp_path):
    path, out = study_file(), tmp_path / "out"

    def full(settings):
        if settings.seed == 1:
            raise DiskError("cannot write to there: No space left on device")
        return False

    runs.fails = full
    with pytest.raises(DiskError, match="cannot write to there"):
        compare(path, out)
    runs.fails = lambda settings: False
    outcome = compare(path, out)
    assert not outcome.failures
    assert len(outcome.rows) == 4
