"""What people build from: the image, the environment, the source distribution, the versions."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = set(PROJECT["optional-dependencies"])
TRACKERS = {"tensorboard", "mlflow", "wandb"}
"""Extras that no test needs; mlflow allows neither the pandas nor the pyarrow that the tests run with."""


def instructions():
    """The instructions of the Dockerfile, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [line.split(maxsplit=1) for line in lines if line.strip()]


def ignored(path):
    """Whether .dockerignore keeps a path out of the build context: the last rule that fits counts."""
    out = False
    for rule in (ROOT / ".dockerignore").read_text().splitlines():
        if rule and not rule.startswith("#"):
            pattern = rule.lstrip("!").removeprefix("**/")
            above = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
            if any(fnmatch(one, pattern) or fnmatch(Path(one).name, pattern) for one in above):
                out = not rule.startswith("!")
    return out


def extras_of(text):
    return set(re.search(r"\.\[([\w,-]+)\]", text)[1].split(","))


def test_the_dockerfile_is_one_that_can_be_built():
    known = {"ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "ENTRYPOINT"}
    parsed = instructions()
    assert {name for name, _ in parsed} <= known
    assert [name for name, _ in parsed][:2] == ["ARG", "FROM"]
    assert parsed[0][1] == "BASE=python:3.12-slim"  # another base, as one of CUDA, is a build argument
    assert parsed[1][1] == "${BASE}"
    for name, rest in parsed:
        if name == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert not ignored(source)
    install = next(rest for name, rest in parsed if name == "RUN" and "pip install" in rest)
    assert "-c constraints.txt" in install
    assert {"train", "study"} <= extras_of(install) <= EXTRAS
    assert [rest for name, rest in parsed if name == "USER"][-1] != "root"


@pytest.mark.parametrize(
    "path",
    ["prepared/nih/images.npy", "scan.dcm", "data/p1.png", "runs/x/last.pt", ".venv/x", "demo", ".git"],
)
def test_no_image_of_a_patient_enters_the_build_context(path):
    assert ignored(path)
    assert not ignored("src/fairdx/cli.py")
    assert ignored("src/fairdx/__pycache__")


def test_the_environment_installs_what_the_image_does():
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra `train`")
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip[0] == "-c constraints.txt"
    install = next(rest for name, rest in instructions() if name == "RUN" and "pip install" in rest)
    assert extras_of(pip[1]) == extras_of(install)
    assert re.search(r"python=3\.1[1-9]", str(environment["dependencies"][0]))


def test_every_dependency_is_pinned_within_what_the_project_allows():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    given = [*PROJECT["dependencies"]]
    for extra in EXTRAS - {"test", "docs", "lint"} - TRACKERS:
        given += PROJECT["optional-dependencies"][extra]
    for requirement in map(Requirement, given):
        if requirement.name != PROJECT["name"]:
            pinned = pins[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(pinned), f"{requirement} is pinned to {pinned}"


def locked():
    """{package: its pins, with the environments that they are for}, and how many hashes each has."""
    entries = re.sub(r"\\\n\s*", " ", (ROOT / "requirements.lock").read_text())
    found = {}
    for line in entries.splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement, *hashes = re.split(r"\s+--hash=", line.strip())
            assert hashes
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes)
            pin = Requirement(requirement)
            found.setdefault(canonicalize_name(pin.name), []).append(pin)
    return found


@pytest.mark.parametrize("python", ["3.11", "3.14"])
@pytest.mark.parametrize(
    ("system", "machine"), [("linux", "x86_64"), ("darwin", "arm64"), ("win32", "AMD64")]
)
def test_the_lock_pins_every_extra_for_every_python_and_system(python, system, machine):
    names = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}
    here = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": system,
        "platform_system": names[system],
        "platform_machine": machine,
        "os_name": "nt" if system == "win32" else "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }
    pins = {
        name: [pin for pin in given if pin.marker is None or pin.marker.evaluate(here)]
        for name, given in locked().items()
    }
    assert all(len(given) <= 1 for given in pins.values())
    extras = [one for name, one in PROJECT["optional-dependencies"].items() if name != "mlflow"]
    for requirement in map(
        Requirement, {*PROJECT["dependencies"], *(one for extra in extras for one in extra)}
    ):
        if requirement.name != PROJECT["name"]:
            (pin,) = pins[canonicalize_name(requirement.name)]
            (version,) = (one.version for one in pin.specifier)
            assert requirement.specifier.contains(version), f"{requirement} is locked to {version}"


def test_the_lock_has_the_tested_versions():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    for name, pins in locked().items():
        if name in tested:
            assert {str(pin.specifier) for pin in pins} == {f"=={tested[name]}"}


def test_the_distributions_hold_all_that_they_should(tmp_path):
    code = (
        "import sys; from setuptools import build_meta; out = sys.argv[1]; "
        "print(build_meta.build_sdist(out)); print(build_meta.build_wheel(out))"
    )
    copy = tmp_path / "copy"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if files.returncode:
        pytest.skip("not a clone of the repository")
    for name in {
        *files.stdout.splitlines(),
        "MANIFEST.in",
        "constraints.txt",
        "requirements.lock",
        ".dockerignore",
    }:
        source = ROOT / name
        if source.is_file() and not source.is_symlink():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(source.read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=copy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "tests/conftest.py",
        "docs/architecture.md",
        "Dockerfile",
        "constraints.txt",
        "mkdocs.yml",
        "requirements.lock",
    ):
        assert name in inside
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        inside = set(archive.namelist())
    for name in ("configs/phantom.toml", "report/templates/inspect.html", "py.typed", "__main__.py"):
        assert f"fairdx/{name}" in inside
