"""Two workers on one PostgreSQL database share the runs; what a dead one was doing is done by the other."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pandas as pd
import pytest

from fairdx.study import storage
from fairdx.study.run import StudyRequest, run_study

WORKER = textwrap.dedent(
    """
    import json, os, sys, time
    from pathlib import Path
    from fairdx.runs import run as experiment
    from fairdx.study.run import StudyRequest, run_study

    file, out, url, log, seconds = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]

    def run(settings, folder, **options):
        with open(log, "a") as lines:
            lines.write(f"{os.getpid()} {folder.name}\\n")
        time.sleep(float(seconds))
        value = {"value": 0.5 + settings.seed / 100, "low": 0.4, "high": 0.6}
        results = {"seconds": 1.0, "kept_epochs": {"pretrain": 1}, "data": {},
                   "methods": {settings.method_name: {
                       "auroc": value, "approximate_diagnosis_fairness": value}}}
        (folder / "results.json").write_text(json.dumps(results))
        return results

    experiment.run = run
    run_study(StudyRequest(file, "compare", (), out, url))
    """
)
SEEDS = "seeds = [0, 1, 2, 3, 4]"


def binaries():
    """The folder of PostgreSQL's programs, where there is one."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL server that is gone afterwards; it refuses to run as root."""
    pytest.importorskip("psycopg", reason="the extra `postgresql` is not installed")
    programs = binaries()
    if programs is None or not (programs / "initdb").exists():
        pytest.skip("there is no PostgreSQL server on this machine")
    user = {"user": "nobody"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="fairdx-", dir="/tmp"))
    if user:
        shutil.chown(folder, "nobody")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def do(*command):
        subprocess.run(
            [str(programs / command[0]), *command[1:]],
            check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=300, **user,
        )  # fmt: skip

    data, options = f"{folder}/data", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        do("initdb", "-D", data, "-U", "fairdx", "--auth=trust", "--no-sync")
        do("pg_ctl", "-D", data, "-o", options, "-l", f"{folder}/log", "-w", "-t", "240", "start")
        yield f"postgresql://fairdx@127.0.0.1:{port}/"
        do("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def database(server, request):
    import psycopg

    name = f"study_{abs(hash(request.node.name))}"
    with psycopg.connect(f"{server}postgres", autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return server + name


@pytest.fixture
def start(study_file, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    path = study_file()
    path.write_text(path.read_text().replace("seeds = [0, 1]", SEEDS))
    log = tmp_path / "log"
    log.touch()
    begun = []

    def begin(out, url, seconds):
        command = [str(part) for part in (sys.executable, script, path, tmp_path / out, url, log, seconds)]
        begun.append(subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}))
        return begun[-1]

    yield begin, path, log
    for worker in begun:
        worker.kill()
        worker.wait()


def test_two_workers_share_the_runs_and_do_each_once(database, start, tmp_path):
    begin, _, log = start
    workers = [begin(out, database, 0.5) for out in ("a", "b")]  # two machines: each has a folder of its own
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    done = [line.split() for line in log.read_text().splitlines()]
    assert len(done) == len({key for _, key in done}) == 10
    assert len({worker for worker, _ in done}) == 2
    tables = [pd.read_parquet(tmp_path / out / "study.parquet") for out in ("a", "b")]
    assert sorted(len(table) for table in tables)[-1] == 10
    assert max(tables, key=len)["auroc"].notna().all()


def test_the_run_of_a_dead_worker_is_done_by_another(database, start, runs, tmp_path, monkeypatch):
    begin, path, log = start
    worker = begin("a", database, 1000)
    while not log.read_text() and worker.poll() is None:
        time.sleep(0.05)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    outcome = run_study(StudyRequest(path, "compare", (), tmp_path / "a", database))[1]
    assert (len(runs.done), outcome.open) == (9, 1)  # nobody can know yet that it is dead
    monkeypatch.setattr(storage, "GRACE", 1)
    time.sleep(1.5)
    outcome = run_study(StudyRequest(path, "compare", (), tmp_path / "a", database))[1]
    assert (len(runs.done), outcome.open, len(outcome.rows)) == (10, 0, 10)
