"""Parts joined: the same bytes as a single run, or one sentence why not."""

import pytest

from fairdx.core.errors import InputError
from fairdx.deploy.join import join
from fairdx.deploy.predict import PredictOptions, predict


@pytest.fixture
def parts(tmp_path, model, write_grey):
    """37 files, two of them broken, in three parts; and the whole in one run."""
    for number in range(37):
        write_grey(tmp_path / "in" / f"{number:02}.png", 5 * number)
    for number in (3, 30):
        (tmp_path / "in" / f"{number:02}.png").write_bytes(b"")
    for number in (1, 2, 3):
        out = tmp_path / f"scores.part{number}.csv"
        predict(model, [str(tmp_path / "in")], out, PredictOptions(workers=1, part=(number, 3)))
    predict(model, [str(tmp_path / "in")], tmp_path / "whole" / "scores.csv", PredictOptions(workers=1))
    return [tmp_path / f"scores.part{number}.csv" for number in (1, 2, 3)]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith("scores.csv")}


def test_joined_parts_are_the_whole(tmp_path, parts):
    record = join(parts[::-1], tmp_path / "joined" / "scores.csv")
    assert (record.scored, record.broken) == (35, 2)
    assert contents(tmp_path / "joined") == contents(tmp_path / "whole")
    assert join(parts, tmp_path / "joined" / "scores.csv") == record


def test_what_a_wildcard_finds_can_be_joined(tmp_path, parts, fairdx):
    found = sorted(tmp_path.glob("scores.part*.csv"))
    assert len(found) == 6  # the lists of errors, too
    done = fairdx("predict", "--join", *found, "--out", tmp_path / "joined" / "scores.csv")
    assert done.returncode == 3, done.stderr  # two files are broken
    assert "35 files scored" in done.stdout
    assert contents(tmp_path / "joined") == contents(tmp_path / "whole")


def test_an_interrupted_join_starts_again(tmp_path, parts, monkeypatch):
    from fairdx.deploy import writer

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "write_whole", fail)  # just before the record
        with pytest.raises(KeyboardInterrupt):
            join(parts, tmp_path / "joined" / "scores.csv")
    join(parts, tmp_path / "joined" / "scores.csv")
    assert contents(tmp_path / "joined") == contents(tmp_path / "whole")


def test_more_parts_than_files(tmp_path, model, write_grey):
    file = write_grey(tmp_path / "a.png", 51)
    outs = [tmp_path / f"p{number}.csv" for number in (1, 2)]
    for number, out in enumerate(outs, start=1):
        predict(model, [str(file)], out, PredictOptions(part=(number, 2)))
    predict(model, [str(file)], tmp_path / "whole.csv")
    join(outs, tmp_path / "joined.csv")
    assert (tmp_path / "joined.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_parts_that_do_not_fit(tmp_path, parts, model, write_model, write_grey):
    out = tmp_path / "joined" / "scores.csv"
    one, two, three = parts
    other, _ = write_model(tmp_path / "other", threshold=0.4)
    folder = [str(tmp_path / "in")]
    predict(other, folder, tmp_path / "other3.csv", PredictOptions(part=(3, 3)))
    predict(model, folder, tmp_path / "quarter.csv", PredictOptions(part=(1, 4)))
    predict(model, folder, tmp_path / "again.csv", PredictOptions(part=(2, 3)))
    predict(model, [str(tmp_path / "in" / "00.png")], tmp_path / "few.csv", PredictOptions(part=(3, 3)))
    for given, words in (
        ([one, three], "of 3 parts there is no 2"),
        ([one, two], "of 3 parts there is no 3"),
        ([one, two, two, three], "both part 2/3"),
        ([one, two, tmp_path / "again.csv", three], "both part 2/3"),
        ([one, two, tmp_path / "other3.csv"], "another model"),
        ([one, two, tmp_path / "few.csv"], "another list of files"),
        ([one, two, tmp_path / "quarter.csv"], "do not fit together"),
        ([tmp_path / "whole" / "scores.csv"], "no part but a whole run"),
        ([one, two, tmp_path / "none.csv"], "none.csv has no"),
        ([], "give the parts"),
    ):
        with pytest.raises(InputError, match=words):
            join(given, out)
    assert not out.exists()


def test_parts_that_were_changed(tmp_path, parts):
    lines = parts[1].read_bytes().splitlines(keepends=True)
    parts[1].write_bytes(b"".join(lines[:-1]))
    with pytest.raises(InputError, match=r"scores\.part2\.csv was changed"):
        join(parts, tmp_path / "joined.csv")
    parts[1].write_bytes(b"".join(lines))
    parts[2].with_name("scores.part3.csv.errors.csv").unlink()
    with pytest.raises(InputError, match=r"part3\.csv\.errors\.csv does not exist"):
        join(parts, tmp_path / "joined.csv")
