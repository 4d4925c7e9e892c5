"""Who starts the processes that train together: this one, torchrun or SLURM."""

import os
from typing import Final, NamedTuple

import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from fairdx.core.errors import InputError

INTERACTIVE: Final = ("bash", "interactive")
"""Names of SLURM jobs in which somebody works at a prompt."""


class Started(NamedTuple):
    """What started this process beside others."""

    by: str
    """`torchrun` or `SLURM`."""
    processes: int
    """On each node."""
    nodes: int


def started() -> Started | None:
    """Says who started this process beside others; None where it stands alone."""
    given = os.environ
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        total, local = int(given["WORLD_SIZE"]), int(given.get("LOCAL_WORLD_SIZE", "1"))
        return Started("torchrun", local, total // local)
    # A batch script has the number of tasks too, and is none of them: srun starts them, as a step.
    tasks = int(given.get("SLURM_NTASKS", "1")) if "SLURM_STEP_ID" in given else 1
    if tasks == 1 or given.get("SLURM_JOB_NAME") in INTERACTIVE:
        return None
    nodes = int(given.get("SLURM_NNODES", "1"))
    return Started("SLURM", tasks // nodes, nodes)


def check_started(processes: int, nodes: int) -> None:
    """Finds out whether as many processes were started as the settings of a run ask for.

    Args:
        processes: On each node.
        nodes: How many nodes.

    Raises:
        InputError: There are others.
    """
    found = started()
    if found is not None and found[1:] != (processes, nodes):
        raise InputError(
            f"{found.by} started {found.processes} {'process' if found.processes == 1 else 'processes'} on "
            f"each of {found.nodes} nodes, and the settings ask for {processes} on each of {nodes}: set "
            f"`trainer.processes={found.processes}` and `trainer.nodes={found.nodes}`, or start as many"
        )


def cluster_environment(processes: int, nodes: int) -> ClusterEnvironment:
    """Returns where processes learn of each other.

    Args:
        processes: On each node; with one on one node there are no others, whoever started it.
        nodes: How many nodes.

    Raises:
        InputError: Others were started than are asked for, or nothing started those of several nodes.
    """
    if processes * nodes == 1:
        return LightningEnvironment()
    check_started(processes, nodes)
    found = started()
    if found is not None and found.by == "SLURM":
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(processes))  # set by one of SLURM's options only
        return SLURMEnvironment(auto_requeue=False)
    if found is not None:
        return TorchElasticEnvironment()
    if nodes > 1 and not {"NODE_RANK", "MASTER_ADDR"} <= set(os.environ):
        raise InputError(
            f"`trainer.nodes` is {nodes}, and nothing started a process on each: start them with torchrun or "
            "srun (docs/how-to/cluster.md)"
        )
    return LightningEnvironment()
