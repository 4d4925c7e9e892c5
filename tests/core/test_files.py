"""Whole writes, under power cuts and full disks: a disk that forgets what was not brought to it."""

import errno
import os
from pathlib import Path

import pytest

from fairdx.core import files
from fairdx.core.console import printable
from fairdx.core.errors import DiskError, InputError, room_in
from fairdx.core.files import parse_json, read_sealed, set_aside, write_sealed, write_whole


class Disk:
    """What a power cut would leave: contents that were synced, under names whose folder was synced.

    The worst case that a file system may choose: data that was not synced is lost (zeros, or nothing), and a
    name that was not synced points to what it pointed to before. Renames are kept at once or not at all.
    """

    def __init__(self, monkeypatch):
        self.synced = {}  # inode -> content on the disk
        self.names = {}  # path -> inode, as the disk knows it
        self.events = []
        self.look = lambda: None
        self.real = os.fsync, Path.replace
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(Path, "replace", lambda path, target: self.replace(path, target))  # noqa: PLW0108 - a method

    def fsync(self, descriptor):
        self.look()
        self.real[0](descriptor)
        place = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if place.is_dir():
            self.events.append(("folder", place.name))
            for path in place.iterdir():
                self.names[path] = path.stat().st_ino
        else:
            self.events.append(("file", place.name))
            self.synced[os.fstat(descriptor).st_ino] = place.read_bytes()
        self.look()

    def replace(self, path, target):
        self.look()
        self.events.append(("rename", path.name))
        moved = self.real[1](path, target)
        self.look()
        return moved

    def after_a_cut(self, path, *, renamed=False):
        """Content of a file after a cut now; with `renamed` its last rename reached the disk by itself."""
        inode = path.stat().st_ino if renamed else self.names.get(path)
        return None if inode is None else self.synced.get(inode, b"")


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def test_content_comes_before_the_name_and_the_name_before_what_follows(disk, tmp_path):
    write_whole(tmp_path / "a", b"one")
    assert disk.events == [("file", "a.partial"), ("rename", "a.partial"), ("folder", tmp_path.name)]
    assert disk.after_a_cut(tmp_path / "a") == b"one"


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("write", [write_whole, write_sealed])
def test_a_power_cut_at_any_moment_leaves_the_old_or_the_new(disk, tmp_path, write, renamed):
    path = tmp_path / "a"
    write(path, b"one")
    seen = set()

    def look():
        found = disk.after_a_cut(path, renamed=renamed)
        assert found in (b"one", b"two")
        if write is write_sealed:
            seals = disk.after_a_cut(tmp_path / "a.sha256", renamed=renamed).decode().split()
            assert files._hash(found) in seals
        seen.add(found)

    disk.look = look
    write(path, b"two")
    assert seen == {b"one", b"two"}


def test_a_full_disk_keeps_the_old_file_and_names_the_folder(tmp_path, monkeypatch):
    write_whole(tmp_path / "a", b"one")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match=rf"cannot write to {tmp_path}: No space left on device; what was"):
        write_whole(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]  # half a file would take the room of others


@pytest.mark.parametrize(
    "change",
    [lambda data: data[:-1], lambda data: b"\0" * len(data), lambda _: b"", lambda data: data + b"x"],
)
def test_a_sealed_file_is_itself_or_refused(tmp_path, change):
    path = tmp_path / "a"
    write_sealed(path, b"content")
    write_sealed(path, b"other content")
    assert read_sealed(path) == b"other content"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=rf"{path} is damaged: its hash is not the one"):
        read_sealed(path)


@pytest.mark.parametrize("seal", [b"", b"\0" * 65, b"\n"])
def test_a_seal_that_says_nothing_vouches_for_nothing(tmp_path, seal):
    write_sealed(tmp_path / "a", b"content")
    (tmp_path / "a.sha256").write_bytes(seal)
    with pytest.raises(InputError, match="is damaged"):
        read_sealed(tmp_path / "a")


def test_json_that_is_nested_too_deeply_is_no_json():
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 200_000)
    assert parse_json(b'{"a": [1]}') == {"a": [1]}


@pytest.mark.parametrize(
    "text", ["0.1\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}0.3", "95\N{NARROW NO-BREAK SPACE}%"]
)
def test_spaces_that_hold_words_together_are_printed_and_what_steers_a_terminal_is_not(text):
    assert printable(text) == text
    assert printable("a\x1b[2Jb\r\N{LINE SEPARATOR}") == "a\\x1b[2Jb\\r\\u2028"


def test_a_file_of_an_earlier_version_has_no_seal(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    assert read_sealed(tmp_path / "a") == b"old"


def test_what_is_set_aside_is_in_nobodys_way(tmp_path):
    write_sealed(tmp_path / "a", b"one")
    assert set_aside(tmp_path / "a").read_bytes() == b"one"
    assert not (tmp_path / "a").exists()
    write_sealed(tmp_path / "a", b"two")
    assert read_sealed(tmp_path / "a") == b"two"
    set_aside(tmp_path / "b")  # which another process has done


def _as_optuna_says_it():
    raise RuntimeError("An exception is raised during the commit") from ValueError("database or disk is full")


@pytest.mark.parametrize(
    "fail",
    [
        lambda: (_ for _ in ()).throw(OSError(errno.EDQUOT, "Disk quota exceeded")),
        lambda: (_ for _ in ()).throw(RuntimeError("I/O error: No space left on device (os error 28)")),
        _as_optuna_says_it,
    ],
)
def test_a_full_disk_is_known_by_whatever_a_library_says(tmp_path, fail):
    with (
        pytest.raises(DiskError, match=rf"cannot write to {tmp_path}: .*: free some space"),
        room_in(tmp_path),
    ):
        fail()
    with pytest.raises(OSError, match="x"), room_in(tmp_path):
        raise OSError(errno.EACCES, "x")
