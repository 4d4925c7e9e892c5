"""Trackers hear what history and results say and change nothing; one that fails costs no run."""

import json
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
from lightning_fabric.loggers import tensorboard as loggers

from fairdx.core.errors import InputError
from fairdx.core.files import read_sealed
from fairdx.runs.run import run
from fairdx.runs.settings import load_settings

SETTINGS = (
    *("method.name=faap", "method.epochs=1", "method.batch_size=16"),
    *("model.encoder=test_resnet", "model.epochs=2", "model.batch_size=16"),
    *("evaluation.replicates=20", "evaluation.true_effect_patients=16"),
)


@pytest.fixture(scope="module")
def settings(small_phantom):
    return lambda *more: load_settings(None, (*SETTINGS, f"data.root={small_phantom.root}", *more))


@pytest.fixture(scope="module")
def plain(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    run(settings(), folder)
    return folder


def same_run(one, other):
    for path in one.glob("stages/*/best.safetensors"):
        assert read_sealed(other / path.relative_to(one)) == read_sealed(path)
    pd.testing.assert_frame_equal(*(pd.read_parquet(f / "predictions.parquet") for f in (one, other)))
    pd.testing.assert_frame_equal(*(pd.read_parquet(f / "history.parquet") for f in (one, other)))


def expected_figures(folder):
    """Each stage's and epoch's figures, as the history of the run has them, and the test figures."""
    found = {}
    for row in json.loads(
        pd.read_parquet(folder / "history.parquet").to_json(orient="records", double_precision=15)
    ):
        own = {k: v for k, v in row.items() if isinstance(v, float) and v is not None and k != "epoch"}
        found[row["stage"], row["epoch"]] = {k: pytest.approx(v) for k, v in own.items()}
    results = json.loads((folder / "results.json").read_text())
    found["test", 0] = {
        f"{method}/{name}": pytest.approx(figure["value"])
        for method, figures in results["methods"].items()
        for name, figure in figures.items()
        if isinstance(figure, dict) and figure.get("value") is not None
    }
    return found


class FakeMLflow(ModuleType):
    """Records what its client is told, in the words of MLflow's own."""

    def __init__(self):
        super().__init__("mlflow")
        self.runs, self.broken = {}, False
        self.entities = ModuleType("mlflow.entities")
        self.entities.Metric = lambda key, value, timestamp, step: (key, value, step)
        self.entities.Param = lambda key, value: (key, value)
        self.MlflowClient = lambda: self

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=f"id of {name}")

    def create_run(self, experiment_id, run_name):
        key = f"run{len(self.runs)}"
        self.runs[key] = {"experiment": experiment_id, "name": run_name, "params": {}, "metrics": []}
        return SimpleNamespace(info=SimpleNamespace(run_id=key))

    def get_run(self, key):
        assert key in self.runs
        return SimpleNamespace(info=SimpleNamespace(run_id=key))

    def update_run(self, key, status):
        self.runs[key]["status"] = status

    def log_batch(self, key, metrics=(), params=()):
        if self.broken and metrics:
            raise ConnectionError("the server is gone")
        assert len(params) <= 100
        self.runs[key]["params"] |= dict(params)
        self.runs[key]["metrics"] += metrics

    def set_terminated(self, key, status):
        self.runs[key]["status"] = status


@pytest.fixture
def mlflow(monkeypatch):
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setitem(sys.modules, "mlflow.entities", fake.entities)
    return fake


@pytest.fixture
def wandb(monkeypatch):
    fake = ModuleType("wandb")
    fake.rows, fake.axes, fake.ended = [], {}, []
    fake.Settings = lambda **options: options

    def init(**options):
        fake.options = options
        return SimpleNamespace(
            log=fake.rows.append,
            finish=lambda *, exit_code: fake.ended.append(exit_code),
            define_metric=lambda name, step_metric=None: fake.axes.update({name: step_metric}),
        )

    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


@pytest.fixture
def tensorboard(monkeypatch):
    """What a writer of event files is told by Fabric's logger."""
    told = SimpleNamespace(scalars={}, folders=[], closed=0)

    class Writer:
        def __init__(self, log_dir):
            told.folders.append(log_dir.rstrip("/"))

        def add_scalar(self, name, value, step):
            stage, _, rest = name.partition("/")
            told.scalars.setdefault((stage, step), {})[rest] = value

        def flush(self):
            pass

        def close(self):
            told.closed += 1

    writers = ModuleType("torch.utils.tensorboard")
    writers.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "tensorboard", ModuleType("tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", writers)
    monkeypatch.setattr(loggers, "_TENSORBOARD_AVAILABLE", True)
    return told


def test_the_csv_file_is_the_history(plain):
    found = pd.read_csv(plain / "history.csv")
    expected = pd.read_parquet(plain / "history.parquet")
    pd.testing.assert_frame_equal(found[expected.columns], expected, check_dtype=False)
    assert found["stage"].tolist() == ["pretrain"] * 3 + ["faap"] * 2


def test_trackers_hear_what_is_written_and_change_nothing(
    settings, plain, mlflow, wandb, tensorboard, tmp_path
):
    folder = tmp_path / "shown"
    run(settings("track=['tensorboard', 'mlflow', 'wandb']"), folder)
    same_run(plain, folder)
    (told,) = mlflow.runs.values()
    assert (told["experiment"], told["name"], told["status"]) == ("id of fairdx", "shown", "FINISHED")
    assert told["params"]["model.epochs"] == "2"
    expected = expected_figures(folder)
    found = {}
    for key, value, step in told["metrics"]:
        stage, _, name = key.partition("/")
        found.setdefault((stage, step), {})[name] = value
    assert found == expected
    rows = {}
    for row in wandb.rows:
        (stage,) = {key.partition("/")[0] for key in row}
        epoch = row[f"{stage}/epoch"]
        rows[stage, epoch] = {k.partition("/")[2]: v for k, v in row.items() if k != f"{stage}/epoch"}
    assert rows == expected
    assert wandb.axes["faap/*"] == "faap/epoch"
    assert wandb.ended == [0]
    assert wandb.options["settings"] == {"console": "off", "save_code": False}
    assert wandb.options["config"]["seed"] == 0
    assert tensorboard.scalars == expected
    assert tensorboard.folders == [str(folder / "tensorboard")]
    assert tensorboard.closed == 1
    assert json.loads((folder / "tracking.json").read_text()) == {
        "tensorboard": "tensorboard",
        "mlflow": "run0",
        "wandb": wandb.options["id"],
    }


def test_a_run_that_goes_on_is_the_same_run_to_its_trackers(settings, mlflow, tmp_path, monkeypatch):
    from fairdx.training import fit

    augment, steps = fit.augment, iter(range(100))

    def stopped(image, **options):
        if next(steps) == 6:
            raise KeyboardInterrupt
        return augment(image, **options)

    monkeypatch.setattr(fit, "augment", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(settings("track=['mlflow']"), tmp_path)
    assert mlflow.runs["run0"]["status"] == "KILLED"
    monkeypatch.setattr(fit, "augment", augment)
    run(settings("track=['mlflow']"), tmp_path, resume=True)
    assert list(mlflow.runs) == ["run0"]
    assert mlflow.runs["run0"]["status"] == "FINISHED"
    shown = [(key, step) for key, _, step in mlflow.runs["run0"]["metrics"]]
    assert len(shown) == len(set(shown)) == sum(map(len, expected_figures(tmp_path).values()))


def test_a_tracker_that_fails_costs_no_run(settings, plain, mlflow, tmp_path, caplog):
    mlflow.broken = True
    run(settings("track=['mlflow']"), tmp_path)
    same_run(plain, tmp_path)
    assert caplog.text.count("mlflow hears no more of this run, which goes on: the server is gone") == 1


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_named_before_training(settings, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"asks for {name}, .*: pip install 'fairdx\[{name}\]'"):
        run(settings(f"track=['{name}']"), tmp_path)
    assert not (tmp_path / "stages").exists()


def test_a_tracker_that_cannot_be_started_says_why(settings, tmp_path, wandb):
    wandb.init = lambda **_: 1 / 0
    with pytest.raises(InputError, match="wandb, which cannot be started: division by zero"):
        run(settings("track=['wandb']"), tmp_path)


def test_an_address_with_a_password_is_not_shown(settings, tmp_path, wandb):
    def refused(**_):
        raise ConnectionError("cannot reach https://me:hunter2@tracker/api")

    wandb.init = refused
    with pytest.raises(InputError, match="wandb, which cannot be started: ConnectionError") as raised:
        run(settings("track=['wandb']"), tmp_path)
    assert "hunter2" not in str(raised.value)
    assert raised.value.__suppress_context__  # nor with --debug


def test_an_unknown_tracker_is_refused():
    with pytest.raises(InputError, match=r"track.*tensorboard"):
        load_settings(None, ("track=['paper']",))


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="the extra `tensorboard` is not installed")
def test_tensorboard_reads_what_was_written(settings, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(settings("track=['tensorboard']"), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for (stage, epoch), figures in expected_figures(tmp_path).items():
        for name, value in figures.items():
            found = {event.step: event.value for event in events.Scalars(f"{stage}/{name}")}
            assert found[epoch] == pytest.approx(value.expected, rel=1e-6)
