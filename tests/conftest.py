"""Small data that several tests share."""

import resource
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from fairdx import cli
from fairdx.data.base import PreparedDataset
from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import prepare

SMALL = PhantomSettings(size=32, train=64, validation=48, test=64, seed=3)
"""A phantom that is prepared in a moment; large enough for both labels in both groups of every split."""

SLOW = (
    *(
        "study/test_crew",
        "study/test_kill",
        "training/test_processes",
        "commands/test_stopping",
        "study/test_shared",
    ),
    *("real_data/", "contracts/test_notebooks", "runs/", "deploy/test_export", "utility/", "data/test_kill"),
    *("report/test_browser", "contracts/", "explain/"),
)
"""Files whose tests take long each: they come first, or one process would be left with them at the end."""


def pytest_configure(config):
    """A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send."""
    del config
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Slow files first."""
    places = {name: place for place, name in enumerate(SLOW)}

    def place(item):
        return min((at for name, at in places.items() if f"tests/{name}" in item.path.as_posix()), default=99)

    items.sort(key=place)


@pytest.fixture(scope="session")
def small_phantom(tmp_path_factory) -> PreparedDataset:
    folder: Path = tmp_path_factory.mktemp("phantom")
    return prepare(Phantom(SMALL).source(), folder / "set")


@pytest.fixture(autouse=True)
def _signals_as_they_were():
    """A command in this process heeds signals, and after one of them the next would end the process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def here(monkeypatch, capsys):
    """The command in this process, which has imported what it needs."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["fairdx", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        told = capsys.readouterr()
        return SimpleNamespace(returncode=stopped.value.code, stdout=told.out, stderr=told.err)

    return command


@pytest.fixture
def one_thread():
    """As many threads as another process has: another number rounds sums and trains models otherwise."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def _full_disk(folder, largest=16):
    """No file grows beyond so many bytes: a write fails as on a full disk, and one sentence has to say so."""
    from fairdx.core.errors import DiskError

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
    try:
        with pytest.raises(DiskError) as failed:
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    told = str(failed.value)
    assert told.startswith(f"cannot write to {folder}: "), told
    assert "; what was there is kept: free some space" in told
    assert len(told.splitlines()) == 1


@pytest.fixture
def full_disk():
    """A context in which writing to a folder fails, and is expected to say so."""
    return _full_disk
