"""Who started the processes that train together, by what each starter says of itself."""

import pytest

from fairdx.core.errors import InputError
from fairdx.models.cluster import check_started, cluster_environment, started

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "5"}
BATCH = {"SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "fairdx"}
"""What a batch script finds, before it says srun."""
SRUN = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_NODEID": "1", "SLURM_LOCALID": "1"}


@pytest.fixture
def given(monkeypatch):
    for name in {*TORCHRUN, *SRUN, "SLURM_NTASKS_PER_NODE", "NODE_RANK", "MASTER_ADDR", "LOCAL_RANK"}:
        monkeypatch.delenv(name, raising=False)

    def give(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    # What is set for SLURM's sake goes with the test.
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "")
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    return give


@pytest.mark.parametrize(("variables", "by"), [(TORCHRUN, "torchrun"), (SRUN, "SLURM")])
def test_processes_that_were_started_are_compared_with_those_asked_for(given, variables, by):
    given(variables)
    assert started() == (by, 4, 2)
    place = cluster_environment(4, 2)
    assert (place.world_size(), place.global_rank()) == (8, 5)
    assert place.creates_processes_externally
    for processes, asked in ((1, 1), (8, 1), (4, 1)):
        told = rf"{by} started 4 processes on each of 2 .*ask for {processes} on each of {asked}.*nodes=2"
        with pytest.raises(InputError, match=told):
            check_started(processes, asked)
    # Eight workers of a study do not train together.
    assert not cluster_environment(1, 1).creates_processes_externally


@pytest.mark.parametrize(
    "variables", [{}, BATCH, {**SRUN, "SLURM_NTASKS": "1"}, {**SRUN, "SLURM_JOB_NAME": "bash"}]
)
def test_a_process_that_stands_alone_starts_the_others_itself(given, variables):
    given(variables)
    assert started() is None
    check_started(4, 1)
    assert not cluster_environment(4, 1).creates_processes_externally


def test_several_nodes_need_somebody_who_starts_a_process_on_each(given):
    with pytest.raises(InputError, match=r"trainer.nodes.* is 2, and nothing started.*torchrun or srun"):
        cluster_environment(4, 2)
    given({"NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1"})
    assert cluster_environment(4, 2).node_rank() == 1
