from pathlib import Path

import pytest

from fairdx.core.config import merge, override, read_toml
from fairdx.core.errors import InputError
from fairdx.core.registry import Registry
from fairdx.runs.settings import load_settings


def write(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_a_file_and_overrides_become_typed_settings(tmp_path):
    path = write(tmp_path, 'seed = 3\n[method]\nname = "fair_diagnosis"\npreset = "paper"\neta = 0.1\n')
    settings = load_settings(path, ("method.alpha=2", "data.label=pneumonia", "model.epochs=2"))
    assert (settings.seed, settings.method_name, settings.data.label) == (3, "fair_diagnosis", "pneumonia")
    assert (settings.method.eta, settings.method.alpha) == (0.1, 2.0)
    assert settings.method.discriminator_sees == ("image",)
    assert settings.model.epochs == 2
    assert settings.model.learning_rate == 1e-4  # of the preset, not lost by the override


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[method]\netaa = 0.1", r"run.toml \[method\]: unknown key `etaa`; did you mean `eta`\?"),
        ("[trainer]\nprecison = '32'", "unknown key `trainer.precison`; did you mean `trainer.precision`"),
        ("[model]\nepoch = 1", "did you mean `epochs`"),
        ("[method]\nname = 'fair_diagnosys'", "did you mean `fair_diagnosis`"),
        ("[method]\npreset = 'best'", "no preset `best`, only default, adversarial, gap, paper"),
        ("[method]\neta = 3", r"`eta`: .*less than or equal to 1 \(received 3\)"),
        ("[method]\neta = ", "not a TOML file"),
        ("method = 'vanilla'", "`method` is a table"),
        ("method_name = 'vanilla'", r"use `name` in \[method\]"),
        ("[method]\ndiscriminator_sees = []", "`discriminator_sees`"),
        ("[evaluation]\nlevel = 95", "`evaluation.level`"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_key(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_settings(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no configuration file .*none.toml"):
        read_toml(tmp_path / "none.toml")


@pytest.mark.parametrize("assignment", ["eta", "=3", "seed.x.y=1"])
def test_an_override_that_cannot_be_read(assignment):
    with pytest.raises(InputError, match="--set"):
        override({"seed": 1}, [assignment])


def test_merging_changes_neither_side():
    base, changes = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}
    assert merge(base, changes) == {"a": {"b": 3, "c": 2}}
    assert base == {"a": {"b": 1, "c": 2}}


def test_a_registry_refuses_two_of_one_name_and_lists_what_it_has():
    registry: Registry[int] = Registry("number")
    registry.register("one")(1)
    with pytest.raises(ValueError, match="two numbers called `one`"):
        registry.register("one")(2)
    with pytest.raises(InputError, match=r"no number `onee` \(there are: one\); did you mean `one`"):
        registry["onee"]


def test_a_configuration_that_ships_is_found_by_its_name_unless_there_is_one_of_that_name(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shipped = read_toml(Path("configs/nih_small.toml"))
    assert shipped["data"]["root"] == "prepared/nih"
    assert read_toml(Path("nih_small.toml")) == shipped
    (tmp_path / "nih_small.toml").write_text("seed = 4")
    assert read_toml(Path("nih_small.toml")) == {"seed": 4}
    with pytest.raises(InputError, match="no configuration file"):
        read_toml(tmp_path / "elsewhere" / "nih_small.toml")
