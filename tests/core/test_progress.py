from fairdx.core import progress
from fairdx.core.progress import Reporter, advanced, reporting


def test_short_work_shows_nothing(capsys):
    with Reporter("decoding", 3) as bar:
        for _ in range(3):
            bar.advance()
        bar.describe({"validation/auroc": 0.9})
    assert capsys.readouterr() == ("", "")


def test_longer_work_shows_how_much_how_fast_and_the_scores(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("fairdx.core.progress.time.monotonic", lambda: now[0])
    monkeypatch.setenv("COLUMNS", "200")
    with Reporter("decoding", 100, unit="images", done=40) as bar:
        now[0] = 108.0
        bar.advance(40)
        bar.describe({"validation/auroc": 0.91234, "loss": 3.0, "validation/accuracy": 0.8})
    out, shown = capsys.readouterr()
    assert out == ""
    # The 40 of an earlier run count as done, not as speed: 40 in 8 seconds.
    for words in ("decoding", "80/100", "5.0 images/s", "AUC 0.9123 ACC 0.8000"):
        assert words in shown
    assert "loss" not in shown


def test_of_several_processes_one_shows(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    with Reporter("training", 2, enabled=False) as bar:
        bar.advance(2)
    assert capsys.readouterr() == ("", "")


def test_work_is_watched_from_outside():
    seen = []

    class Watching(Reporter):
        def advance(self, amount=1):
            seen.append(amount)

    advanced(1)  # nobody watches
    with reporting(Watching("work", 5, enabled=False)):
        advanced(2)
        advanced(3)
    advanced(4)
    assert seen == [2, 3]
