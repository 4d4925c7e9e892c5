"""Study files become runs, and mistakes in them are named before anything runs."""

import re
from pathlib import Path

import pytest

from fairdx.core.errors import InputError
from fairdx.study.plan import plan_runs, varied_settings
from fairdx.study.search import check_search
from fairdx.study.settings import load_study

FILE = Path(__file__).with_name("instant.toml").read_text()
CONFIGS = Path(__file__).parents[2] / "configs"
GRID = """
[study]
name = "grid"
seeds = [3]
[run]
method.name = "fair_diagnosis"
method.epochs = 2
model.epochs = 1
[vary]
"method.eta" = [{ value = 0.0, set = { method = { name = "vanilla" } } }, 0.1]
"trainer.flip" = [false, true]
"""


def plan(path, command="compare", assignments=()):
    study = load_study(path, command, assignments)
    return plan_runs(study, path)


def test_a_comparison_is_methods_by_data_by_seeds_by_folds(study_file):
    path = study_file(FILE + '[[data]]\nname = "a"\n[[data]]\nname = "b"\nattribute = "age_group"\n')
    found = plan(path)
    assert [(run.data, run.method, run.seed, run.fold) for run in found] == [
        (data, method, seed, None) for data in "ab" for method in ("vanilla", "ours") for seed in (0, 1)
    ]
    assert {run.settings.data.attribute for run in found if run.data == "b"} == {"age_group"}
    assert all(run.settings.model.epochs == 1 for run in found)
    assert all(run.settings.seed == run.seed for run in found)
    assert len({run.key for run in found}) == len(found)
    folded = plan(path, assignments=("study.seeds=[4]", "study.folds=3"))
    assert [run.fold for run in folded[:3]] == [0, 1, 2]
    assert {(run.settings.data.folds, run.settings.seed) for run in folded} == {(3, 4)}


def test_each_seed_may_draw_a_phantom_of_its_own(study_file):
    found = plan(study_file(FILE), assignments=("study.redraw=true",))
    assert {(run.seed, run.settings.data.phantom.seed) for run in found} == {(0, 0), (1, 1)}
    assert {run.data for run in found} == {"phantom, drawn for each seed"}
    fixed = plan(study_file(FILE))
    assert {run.settings.data.phantom.seed for run in fixed} == {0}
    shared = {run.key for run in fixed} & {run.key for run in found}
    assert shared == {run.key for run in found if run.seed == 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [("run.data.root=prepared/x", "`data.root` has fixed images"), ("run.data.phantom.seed=3", "leave out")],
)
def test_only_phantoms_without_a_seed_are_drawn_anew(study_file, change, message):
    with pytest.raises(InputError, match=message):
        plan(study_file(FILE), assignments=("study.redraw=true", change))


def test_what_a_grid_varies_is_not_overruled_by_drawing_anew(study_file):
    path = study_file(GRID + '"data.phantom.seed" = [1, 2]\n')
    with pytest.raises(InputError, match="leave out"):
        plan(path, "ablate", ("study.redraw=true",))


def test_a_grid_is_the_product_of_what_varies_and_a_point_may_change_the_method(study_file):
    path = study_file(GRID)
    found = plan(path, "ablate")
    assert varied_settings(load_study(path, "ablate")) == ("method.eta", "trainer.flip")
    shown = [
        (run.varied["method.eta"], run.varied["trainer.flip"], run.settings.method_name) for run in found
    ]
    assert shown == [
        (0.0, False, "vanilla"),
        (0.0, True, "vanilla"),
        (0.1, False, "fair_diagnosis"),
        (0.1, True, "fair_diagnosis"),
    ]
    assert {run.method for run in found} == {"fair_diagnosis"}
    assert all(run.settings.model.epochs == 1 for run in found)
    assert [run.settings.method.epochs for run in found[2:]] == [2, 2]


def test_methods_have_grids_of_their_own(study_file):
    found = plan(study_file(FILE + 'vary = { "method.alpha" = [1, 2] }\n'), "ablate")
    assert [(run.method, dict(run.varied)) for run in found if run.seed == 0] == [
        ("vanilla", {}),
        ("ours", {"method.alpha": 1}),
        ("ours", {"method.alpha": 2}),
    ]


def test_the_key_is_of_the_settings_and_of_what_is_in_the_data_not_of_its_place(
    study_file, small_phantom, tmp_path
):
    path = study_file()
    (tmp_path / "moved").symlink_to(small_phantom.root)
    here, there, default = (
        [run.key for run in plan(path, assignments=change)]
        for change in ((f"run.data.root={small_phantom.root}",), (f"run.data.root={tmp_path}/moved",), ())
    )
    assert here == there
    assert not set(here) & set(default)
    other = [run.key for run in plan(path, assignments=("run.trainer.flip=true",))]
    assert not set(other) & set(default)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FILE.replace("model.epochs", "model.epoch"), r"study\.toml.*did you mean `epochs`"),
        (FILE + "eta = 5.0\n", r"study\.toml \(`ours` on phantom\) \[method\]: `eta`.*received 5\.0"),
        (FILE.replace('"vanilla"', '"vanila"'), r"study\.toml.*did you mean `vanilla`"),
        (FILE.replace("seeds", "sead"), r"did you mean `study\.seeds`"),
        (FILE.replace("seeds = [0, 1]", "seeds = [1, 1]"), "different numbers"),
        (FILE.replace("seeds = [0, 1]", "folds = 5"), "give one seed"),
        (FILE.replace('label = "ours"', "").replace('"fair_diagnosis"', '"vanilla"'), "two of that name"),
        (FILE.replace('"fair_diagnosis"', '"vanilla"'), "two runs are the same: `vanilla, phantom, seed 0`"),
        (FILE.replace('"ours"', '"Vanilla"'), "`Vanilla` is what all methods are compared with"),
        (FILE.replace("model", "method.eta = 1\nmodel"), "as `eta`"),
        (FILE.replace("[[method]]", "seed = 3\n[[method]]", 1), r"`run\.seed` is given by"),
        (FILE.replace("[[method]]", "trainer.processes = 2\n[[method]]", 1), "one --storage"),
        (FILE + '[[data]]\nname = "x"\nroot = "nowhere"\n', "nowhere"),
        (FILE + "[vary]\n'method.eta' = [0.1]\n", "is for `fairdx ablate`, not `fairdx compare`"),
        (GRID + "[tune]\nspace.x = { low = 0, high = 1 }\n", "both"),
        (FILE + "[tune]\nspace.'method.eta' = { low = 1, high = 0 }\n", "below `high`"),
    ],
)
def test_mistakes_are_named(study_file, text, message):
    with pytest.raises(InputError, match=message):
        plan(study_file(text))


@pytest.mark.parametrize(
    "change",
    [
        '"method.eta" = [{ value = 0.0 }]',
        '"method.eta" = [{ value = 0.0, set = 3 }]',
        '"method.eta" = []',
        '"method.eta.x" = [1]',
    ],
)
def test_a_spoilt_grid_is_named(study_file, change):
    text = GRID.partition("[vary]")[0].replace("method.epochs = 2", "method.eta = 0.1")
    with pytest.raises(InputError, match=r"method\.eta|`eta`"):
        plan(study_file(text + "[vary]\n" + change + "\n"), "ablate")


STUDIES = sorted(path for path in CONFIGS.glob("*.toml") if path.read_text().count("[study]"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_that_is_delivered_is_valid_and_says_its_command(path):
    text = path.read_text()
    command = re.search(rf"# fairdx (\w+) configs/{path.name}", text)[1]
    study = load_study(path, command)
    assert study.study.name == path.stem
    if "\ndata.root" in text:  # a real data set, which is not here
        with pytest.raises(InputError, match="prepared/"):
            plan_runs(study, path)
    elif command == "tune":
        check_search(study, path)
    else:
        assert len(plan_runs(study, path)) >= 20
    assert "data.root = " in text or "phantom = {" in text


def test_the_paper_has_its_tables():
    names = {path.stem for path in STUDIES}
    assert {"table1_main", "table2_backbones", "table3_eta", "table4_alpha", "table5_beta"} <= names


def test_every_line_of_table_2_trains_the_backbone_that_it_names():
    encoders = set()
    for run in plan(CONFIGS / "table2_backbones.toml", "ablate"):
        assert run.settings.model.encoder == run.varied["model.encoder"]
        encoders.add(run.settings.model.encoder)
    assert len(encoders) == 3


def test_a_point_with_changes_has_the_value_that_it_shows(study_file):
    point = '{ value = 0.0, set = { method = { name = "vanilla" } } }'
    more = "{ value = 0.3, set = { method = { epochs = 7 } } }"
    other = "{ value = 0.4, set = { method = { eta = 0.2 } } }"
    text = GRID.replace(point, f"{more}, {other}")
    found = plan(study_file(text), "ablate")
    had = {(run.varied["method.eta"], run.settings.method.eta, run.settings.method.epochs) for run in found}
    assert had == {(0.3, 0.3, 7), (0.4, 0.2, 2), (0.1, 0.1, 2)}
