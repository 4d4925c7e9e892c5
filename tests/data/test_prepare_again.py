"""A preparation that was stopped, repeated, or has no place to write."""

import json
import os
import resource
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from pictures import OPTIONS, contents, source, spoil
from PIL import Image

from fairdx.core.errors import InputError
from fairdx.data import writer as writer_module
from fairdx.data.prepare import PrepareOptions, prepare


class Killed(BaseException):
    pass


@pytest.mark.parametrize("blocks", [0, 1, 2, 7])
@pytest.mark.parametrize("damage", ["none", "torn line", "torn block", "flipped bit"])
def test_goes_on_where_it_stopped(root, tmp_path, monkeypatch, blocks, damage):
    monkeypatch.setattr("fairdx.data.prepare._BLOCK_ROWS", 8)
    spoil(root)
    options = PrepareOptions(size=16, workers=1, on_error="skip")
    whole = prepare(source(root), tmp_path / "whole", options)
    add, decoded = writer_module.ImageWriter.add, []

    def counted(self, block):
        if len(decoded) == blocks:
            raise Killed
        decoded.append(block.rows)
        add(self, block)

    monkeypatch.setattr(writer_module.ImageWriter, "add", counted)
    out = tmp_path / "out"
    with pytest.raises(Killed):
        prepare(source(root), out, options)
    partial, journal = out / "images.npy.partial", out / "progress.jsonl"
    if damage == "torn line":
        journal.write_bytes(journal.read_bytes()[:-3])
    elif damage == "torn block":
        partial.write_bytes(partial.read_bytes() + b"half a block")
    elif damage == "flipped bit":
        data = bytearray(partial.read_bytes())
        data[-1:] = bytes([data[-1] ^ 1]) if data else b""
        partial.write_bytes(data)
    decoded.clear()
    blocks = -1
    again = prepare(source(root), out, options)
    assert again.meta.hash == whole.meta.hash
    assert contents(out) == contents(whole.root)


def test_file_replaced_while_stopped_is_decoded_again(root, tmp_path, monkeypatch):
    monkeypatch.setattr("fairdx.data.prepare._BLOCK_ROWS", 8)
    (root / "images" / "0002.png").unlink()
    options = PrepareOptions(size=16, workers=1, on_error="skip")
    finish = writer_module.ImageWriter.finish
    monkeypatch.setattr(writer_module.ImageWriter, "finish", lambda self: exec("raise Killed", globals()))
    with pytest.raises(Killed):
        prepare(source(root), tmp_path / "out", options)
    monkeypatch.setattr(writer_module.ImageWriter, "finish", finish)
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(root / "images" / "0030.png")
    Image.fromarray(np.ones((16, 16), np.uint8)).save(root / "images" / "0002.png")
    resumed = prepare(source(root), tmp_path / "out", options)
    assert resumed.meta.exclusions == {}
    assert (resumed.images[2] == 1).all()
    assert (resumed.images[30] == 0).all()
    assert resumed.meta.hash == prepare(source(root), tmp_path / "whole", options).meta.hash


def test_unfinished_set_of_another_source_is_refused(root, tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module.ImageWriter, "finish", lambda self: exec("raise Killed", globals()))
    with pytest.raises(Killed):
        prepare(source(root), tmp_path / "out", OPTIONS)
    with pytest.raises(InputError, match="holds an unfinished data set made from another source"):
        prepare(source(root), tmp_path / "out", PrepareOptions(size=16, geometry="crop"))


def test_stopped_between_the_last_two_renames(root, tmp_path):
    whole = prepare(source(root), tmp_path / "out", OPTIONS)
    before = contents(whole.root)
    journal = [{"fingerprint": whole.meta.fingerprint}]
    (whole.root / "meta.json").unlink()
    (whole.root / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in journal))
    assert prepare(source(root), tmp_path / "out", OPTIONS).meta.hash == whole.meta.hash
    assert contents(whole.root) == before


def test_images_of_something_else_are_not_touched(root, tmp_path):
    np.save(tmp_path / "images.npy", np.arange(5))
    with pytest.raises(InputError, match=r"holds an images\.npy of something else"):
        prepare(source(root), tmp_path, OPTIONS)
    assert np.load(tmp_path / "images.npy").tolist() == [0, 1, 2, 3, 4]


HOLD = """
import sys
from pathlib import Path
from fairdx.core.locks import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_refuse_each_other(root, tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"is being written by process {other.pid}: wait"):
            prepare(source(root), tmp_path, OPTIONS)
        other.communicate()
    prepare(source(root), tmp_path, OPTIONS)


def test_system_without_locks_is_refused_clearly(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(InputError, match="needs Linux or macOS"):
        prepare(source(root), tmp_path, OPTIONS)


def test_full_disk_is_one_sentence_and_goes_on_later(root, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # a write beyond fails as on a full disk
    try:
        with pytest.raises(InputError, match=r"cannot write to .*out: File too large; .*: free some space"):
            prepare(source(root), tmp_path / "out", OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    whole = prepare(source(root), tmp_path / "whole", OPTIONS)
    assert prepare(source(root), tmp_path / "out", OPTIONS).meta.hash == whole.meta.hash


def test_too_small_a_disk_is_seen_before_the_work(root, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 100}))
    with pytest.raises(InputError, match=r"out needs 15\.4 kB and its disk has \d+ bytes free"):
        prepare(source(root), tmp_path / "out", OPTIONS)


def test_folder_that_cannot_be_written(root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write to .*file/out: Not a directory"):
        prepare(source(root), tmp_path / "file" / "out", OPTIONS)
    with pytest.raises(InputError, match=r"cannot write to .*file: File exists"):
        prepare(source(root), tmp_path / "file", OPTIONS)


def test_folder_without_permission(root, tmp_path):
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(InputError, match=r"cannot write to .*out: Permission denied"):
        prepare(source(root), tmp_path / "out", OPTIONS)
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("blocks", [False, True])
def test_images_with_odd_bytes_behind_their_pixels(root, tmp_path, caplog, monkeypatch, blocks):
    for number in (3, 40, 41):
        path = root / "images" / f"{number:04d}.png"
        Image.open(path).save(path, "JPEG", quality=95)
        data = path.read_bytes()
        path.write_bytes(data[:-2] + bytes(50) + data[-2:])
    if blocks:
        monkeypatch.setattr("fairdx.data.prepare._BLOCK_ROWS", 7)
    for on_error in ("stop", "skip"):
        out, options = tmp_path / on_error, PrepareOptions(size=16, workers=1, on_error=on_error)
        if on_error == "stop":
            with pytest.raises(
                InputError, match=r"0003\.png has odd bytes .*all its pixels are whole: on-error w"
            ):
                prepare(source(root), out, options)
        else:
            assert prepare(source(root), out, options).meta.counts["images"] == 57
    dataset = prepare(source(root), tmp_path / "out", PrepareOptions(size=16, workers=1, on_error="warn"))
    assert len(dataset) == 60
    assert dataset.meta.warnings == {"has odd bytes behind its last pixel": 3}
    listed = pd.read_csv(tmp_path / "out" / "warnings.csv", dtype=str)
    assert listed["image"].tolist() == ["0003", "0040", "0041"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]  # one for all of them
    assert "0003.png has odd bytes" in caplog.text
    assert "(3 such images" in caplog.text
