"""`fairdx monitor` as a user starts it."""

import json

import numpy as np
import pandas as pd
import pytest

from fairdx import cli
from fairdx.commands.monitor import MonitorRequest, monitor_files


@pytest.fixture
def frame():
    rng, n = np.random.default_rng(0), 1800
    day = np.sort(rng.integers(0, 180, n))
    sex, y = rng.choice(["F", "M"], n), (rng.random(n) < 0.4).astype(int)
    score = 1 / (1 + np.exp(1.2 - (2.4 - 1.2 * (sex == "F")) * y - rng.normal(size=n)))
    when = pd.Timestamp("2025-01-01") + pd.to_timedelta(day, unit="D")
    return pd.DataFrame({"id": np.arange(n), "when": when.astype(str), "sex": sex, "y": y, "p": score})


@pytest.fixture
def run(capsys, monkeypatch):
    def started(*arguments):
        monkeypatch.setattr("sys.argv", ["fairdx", "monitor", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code or 0
        return (status, *capsys.readouterr())

    return started


NAMED = ("--label", "y", "--score", "p", "--group", "sex")


def test_one_table_with_dates_and_one_file_for_each_month_say_the_same(run, frame, tmp_path):
    frame.to_csv(tmp_path / "all.csv", index=False)
    files = []
    for month, part in frame.groupby(frame["when"].str[:7]):
        files.append(tmp_path / f"{month}.csv")
        part.to_csv(files[-1], index=False)
    page, first, second = tmp_path / "m.html", tmp_path / "a.json", tmp_path / "b.json"
    status, out, err = run(tmp_path / "all.csv", *NAMED, "--time", "when", "--json", first, "--out", page)
    assert (status, err) == (0, "")
    assert "Equal opportunity difference is" in out
    assert run(*files, *NAMED, "--json", second)[0] == 0
    one, other = (json.loads(path.read_text()) for path in (first, second))
    assert [look["name"] for look in one["looks"]] == [f"2025-{m:02}" for m in range(1, 7)]
    assert [look["name"] for look in other["looks"]] == [path.name for path in files]
    assert one["gaps"] == other["gaps"]
    assert "<script" not in page.read_text()


def test_the_gate_has_a_status_of_its_own(run, frame, tmp_path):
    path = tmp_path / "all.csv"
    frame.to_csv(path, index=False)
    given = (path, *NAMED, "--time", "when")
    status, _, err = run(*given, "--fail-if", "eo_low>0.01", "--fail-if", "dp>0.9")
    assert status == 3
    assert err.startswith("eo_low>0.01: equal_opportunity_difference_low of sex is 0.")
    assert "dp>0.9" not in err
    assert run(*given, "--fail-if", "eo_low>0.9")[0] == 0
    status, _, err = run(*given, "--fail-if", "ece>0.1")
    assert (status, "is not monitored; there are demographic_parity_difference" in err) == (2, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"when": "soon"}, "'soon', no date, in 1 row (first: row 5)"),
        ({"p": 1.7}, "lies outside [0, 1] in 1 row (first: row 5)"),
        ({"id": 0}, "'id'"),
    ],
)
def test_what_cannot_be_used_is_named_by_file_and_row(run, frame, tmp_path, change, message):
    frame = frame.astype({"when": object})
    for column, value in change.items():
        frame.loc[3, column] = value
    frame.to_csv(tmp_path / "bad.csv", index=False)
    status, _, err = run(tmp_path / "bad.csv", *NAMED, "--time", "when", "--id", "id")
    assert status == 2
    assert message in err
    assert "bad.csv" in err


def test_periods_and_files_are_checked(run, frame, tmp_path):
    path = tmp_path / "all.csv"
    frame.to_csv(path, index=False)
    assert "give one of day, week, month" in run(path, *NAMED, "--time", "when", "--by", "moon")[2]
    assert "is given twice" in run(path, path, *NAMED)[2]
    status, out, _ = run(path, *NAMED, "--time", "when", "--by", "quarter", "--json", "-")
    assert status == 0
    assert [look["name"] for look in json.loads(out)["looks"]] == ["2025Q1", "2025Q2"]


@pytest.mark.parametrize("option", ["--json", "--out"])
def test_a_full_disk_is_one_sentence_and_the_old_file_is_kept(frame, tmp_path, full_disk, option):
    path, written = tmp_path / "all.csv", tmp_path / "out" / "old"
    frame.to_csv(path, index=False)
    written.parent.mkdir()
    written.write_text("what was there")
    request = MonitorRequest(
        predictions=(str(path),), label="y", score="p", group=("sex",), time="when", by="month", patient=None,
        identifier=None, positive=None, threshold=0.5, reference=(), min_group_size=30, level=0.95,
        out=written if option == "--out" else None, json=written if option == "--json" else None, fail_if=(),
    )  # fmt: skip
    with full_disk(written.parent):
        monitor_files(request)
    assert written.read_text() == "what was there"


def test_weights_are_refused_in_a_sentence(run, frame, tmp_path):
    path = tmp_path / "all.csv"
    frame.to_csv(path, index=False)
    status, _, err = run(path, *NAMED, "--time", "when", "--weight", "score")
    assert (status, "takes no weights" in err) == (2, True)


@pytest.fixture
def months(frame, tmp_path):
    """The same rows by file, without a column of dates that would tell copies apart."""
    files = []
    for number in range(1, 13):
        files.append(tmp_path / f"month-{number}.csv")
        frame[(number - 1) * 150 : number * 150].to_csv(files[-1], index=False)
    return files


def test_a_file_that_is_a_copy_of_another_is_refused_though_its_name_is_new(run, months, tmp_path):
    copy = tmp_path / "month-13.csv"
    copy.write_bytes(months[4].read_bytes())
    status, _, err = run(*months, copy, *NAMED)
    assert (status, "month-13.csv holds the same rows as" in err, "month-5.csv" in err) == (2, True, True)


def test_the_order_of_the_shell_is_named_where_numbers_say_another_one(run, months):
    assert "in the order given" not in run(*months, *NAMED)[1]
    assert "in which month-2.csv comes after month-12.csv" in run(*sorted(months), *NAMED)[1]
    looks = json.loads(run(*sorted(months), *NAMED, "--json", "-")[1])["looks"]
    assert [look["name"] for look in looks] == [path.name for path in sorted(months)]


def test_rows_of_several_files_are_named_by_their_file(run, frame, months):
    frame.loc[153, "id"] = 7
    frame[150:300].to_csv(months[1], index=False)
    status, _, err = run(*months, *NAMED, "--id", "id")
    assert (status, "(first: row 5 of " in err, "month-2.csv)" in err) == (2, True, True)
    assert "--where" not in err  # which this command has not


def test_a_period_without_a_label_is_not_lost_in_silence(run, frame, months):
    frame[150:300].assign(y="").to_csv(months[1], index=False)
    status, out, _ = run(*months, *NAMED)
    assert (status, "No image of month-2.csv has a label" in out) == (0, True)


@pytest.mark.parametrize(
    "times",
    [
        ("T23+05", "T23+06"),
        ("T23Z", "T23"),
        ("T233000Z", "T233000-0800"),
        (" 23:30:00.25-11:00", " 23:30"),
        ("T23:30:00 UTC", "T00:10:00+14"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_zones_move_no_image_to_another_day_however_they_are_written(run, frame, tmp_path, times):
    days = frame["when"]
    compact = "3000" in times[0]
    days = days.str.replace("-", "") if compact else days
    frame.assign(when=[day + times[k % 2] for k, day in enumerate(days)]).to_csv(
        tmp_path / "z.csv", index=False
    )
    status, out, err = run(tmp_path / "z.csv", *NAMED, "--time", "when", "--by", "day", "--json", "-")
    assert status == 0, err
    found = {look["name"]: look["images"] for look in json.loads(out)["looks"]}
    assert found == frame["when"].value_counts().sort_index().to_dict()


def test_references_are_named_by_attribute_as_in_an_audit(run, frame, tmp_path):
    frame["race"] = np.where(np.arange(len(frame)) < 12, "few", np.where(frame["id"] % 2, "a", "b"))
    frame.to_csv(tmp_path / "all.csv", index=False)
    given = (tmp_path / "all.csv", *NAMED, "--group", "race", "--time", "when")
    for chosen in (["--reference", "F", "--json", "-"],
                   ["--reference", "sex=F", "--reference", "race=b", "--json", "-"]):  # fmt: skip
        found = json.loads(run(*given, *chosen)[1])["attributes"]
        assert found["sex"]["reference"] == "F"
    assert found["race"]["reference"] == "b"
    status, _, err = run(*given, "--reference", "Z")
    assert (status, "'Z' is no group of sex, race" in err) == (2, True)
    status, out, err = run(*given, "--reference", "race=few", "--fail-if", "direct_effect>0.9")
    assert (status, "no effect can be given, as the reference few is too small" in out) == (3, True)
    assert err == "direct_effect>0.9: direct_effect is undefined for race\n"
