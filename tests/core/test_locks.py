"""A lock whose file is removed afterwards: whoever waited for it must not hold a file that is gone."""

import subprocess
import sys

from fairdx.core.locks import lock_of, locked

COUNT = """
import sys
from pathlib import Path
from fairdx.core.locks import locked
folder = Path(sys.argv[1])
for _ in range(100):
    with locked(folder, wait=True, clear=True):
        counter = folder / "counter"
        counter.write_text(str(int(counter.read_text()) + 1))
"""


def test_nobody_is_let_in_twice_where_the_file_is_removed(tmp_path):
    (tmp_path / "counter").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, tmp_path]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert (tmp_path / "counter").read_text() == "400"
    assert not lock_of(tmp_path).exists()


def test_the_file_goes_even_after_an_error(tmp_path):
    try:
        with locked(tmp_path, clear=True):
            assert lock_of(tmp_path).exists()
            raise KeyError
    except KeyError:
        assert not lock_of(tmp_path).exists()
