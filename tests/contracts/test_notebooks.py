"""The notebooks of the documentation run as they stand, and give the figures that they show."""

import ast
import os
import warnings
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def figures(notebook):
    """What the last cell shows."""
    return ast.literal_eval(code_of(notebook)[-1].outputs[-1].data["text/plain"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code_of(notebook)] == list(range(1, len(code_of(notebook)) + 1))
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert str(ROOT) not in path.read_text(encoding="utf-8")
    assert path.stat().st_size < 50_000


def run(name, folder, monkeypatch):
    """The notebook as it is kept, and as it is when it is run again."""
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    (path,) = (one for one in NOTEBOOKS if one.stem == name)
    kept, again = (nbformat.read(path, as_version=4) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's own libraries
        client = nbclient.NotebookClient(again, timeout=300, resources={"metadata": {"path": str(folder)}})
        client.execute()  # raises where a cell does
    return kept, again


def test_the_audit_gives_the_same_figures(tmp_path, monkeypatch):
    kept, again = run("audit-a-table", tmp_path, monkeypatch)
    assert figures(again) == pytest.approx(figures(kept), abs=1e-6)
    assert (tmp_path / "audit.html").stat().st_size > 100_000


@pytest.mark.long
def test_the_mask_does_what_the_notebook_shows(tmp_path, monkeypatch):
    """Another processor trains a slightly different mask: figures are near, and the finding is the same."""
    kept, again = (figures(notebook) for notebook in run("mask-a-model", tmp_path, monkeypatch))
    for found in (kept, again):
        assert abs(found["fair_diagnosis"]["direct_effect"]) < abs(found["vanilla"]["direct_effect"])
    for method in kept:
        assert again[method]["auroc"] == pytest.approx(kept[method]["auroc"], abs=0.02)
        assert again[method]["direct_effect"] == pytest.approx(kept[method]["direct_effect"], abs=0.1)
