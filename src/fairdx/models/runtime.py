"""On what a run computes: device, precision, processes, and where its random numbers come from."""

import hashlib
import json
import math
import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, Self, cast, get_args

import torch
from lightning_fabric import Fabric
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from fairdx.core.config import Config
from fairdx.core.errors import InputError
from fairdx.models.cluster import cluster_environment

Precision = Literal["fp32", "bf16"]
PRECISIONS: Final = get_args(Precision)


class TrainerSettings(Config):
    """On what to train, and how exactly."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto` takes an accelerator where there is one."""
    processes: int = Field(1, ge=1)
    """Devices of a machine that train together; with more than one, each sees its share of an epoch."""
    nodes: int = Field(1, ge=1)
    """Machines that train together, each with as many `processes`; torchrun or SLURM starts these."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` takes bfloat16 where the processor computes with it and is clearly faster so, and 32 bits
    elsewhere. On a CPU it measures, once for a run; a result that must not depend on that names its
    precision."""
    compile: bool = False
    """Compile the networks with torch.compile; pays off in long runs on a GPU."""
    shift: int = Field(4, ge=0)
    """Training images are shifted at random by up to so many pixels along each axis."""
    flip: bool = False
    """Training images are mirrored left to right at random."""
    turn: bool = False
    """Training images are turned by quarters at random; for skin and tissue, which have no upright."""
    save_minutes: float = Field(10, ge=0)
    """Minutes between two saves within a long epoch; 0 saves at its end only. A process that is asked to end
    (Ctrl-C, SIGTERM) saves in any case."""
    _measured: Precision | None = PrivateAttr(None)

    def measured(self, precision: Precision) -> Self:
        """Returns the same settings, of which `auto` comes to what was measured before."""
        found = self.model_copy()
        found._measured = precision
        return found


def make_fabric(settings: TrainerSettings) -> Fabric:
    """Returns a launched Fabric for the settings.

    Raises:
        InputError: The device is not there, or of several processes others were started than the settings ask
            for.
    """
    if (settings.device == "cuda" and not torch.cuda.is_available()) or (
        settings.device == "mps" and not torch.backends.mps.is_available()
    ):
        raise InputError(
            f"`trainer.device` is {settings.device}, and torch finds none on this machine: give cpu or auto"
        )
    precision = "bf16-mixed" if precision_of(settings) == "bf16" else "32-true"
    environment = cluster_environment(settings.processes, settings.nodes)
    fabric = Fabric(
        accelerator=settings.device,
        devices=settings.processes,
        num_nodes=settings.nodes,
        precision=cast(Any, precision),
        strategy="ddp" if settings.processes * settings.nodes > 1 else "auto",
        plugins=environment,
    )
    fabric.launch()
    if not fabric.is_global_zero and not environment.creates_processes_externally:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    return fabric


def _end_with(parent: int) -> None:
    """Ends this process with the one that started it: it would wait for it for ever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def precision_of(settings: TrainerSettings) -> Precision:
    """Returns the precision that the settings come to on this machine."""
    if settings.precision == "auto" and settings._measured is not None:
        return settings._measured
    return "bf16" if _use_bf16(settings) else "fp32"


def _use_bf16(settings: TrainerSettings) -> bool:
    if settings.precision != "auto":
        return settings.precision == "bf16"
    if settings.device in ("auto", "cuda") and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if settings.device in ("auto", "cpu"):
        # Processors without these instructions emulate bfloat16, several times slower than 32 bits.
        able = any(
            getattr(torch.cpu, f"_is_{unit}_supported", bool)() for unit in ("avx512_bf16", "amx_tile")
        )
        return able and _bf16_gains()
    return False


GAIN: Final = 1.2
"""How many times faster bfloat16 has to be: two measurements of the same machine should not disagree."""


@cache
def _bf16_gains() -> bool:
    """Measures a step of each kind of convolution that our networks are made of, once in a process.

    Dense ones alone would mislead: for depthwise ones some processors have no bfloat16 and take many times
    longer. The slower kind decides.
    """
    return min(_gain(groups) for groups in (1, 64)) > GAIN


def _gain(groups: int) -> float:
    """How many times faster than in 32 bits a 3 x 3 convolution learns in bfloat16.

    In processor time: what else the machine does must not decide.
    """
    with isolated_rng(0):
        layers = (nn.Conv2d(64, 64, 3, padding=1, groups=groups) for _ in range(2))
        network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        image = torch.rand(16, 64, 16, 16).to(memory_format=torch.channels_last)
    times = {True: math.inf, False: math.inf}
    for _ in range(3):
        for low in (False, True):
            start = time.process_time()
            with torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
                network(image).float().sum().backward()
            times[low] = min(times[low], time.process_time() - start)
    return times[False] / times[True]


@cache
def processor() -> str:
    """Returns the name of what computes: the GPU if there is one, or the processor and its instructions."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}"


@cache
def cpu_name() -> str:
    """Returns the name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def derive_seed(*parts: object) -> int:
    """Returns a 63-bit seed that depends on all parts: no two uses share a stream of random numbers."""
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seeds torch's global generators for a block and gives them back as they were."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=list(devices)):
        torch.manual_seed(seed)
        yield


GPUS: Final = "CUDA_VISIBLE_DEVICES"


def share(place: int, size: int) -> dict[str, str]:
    """What one of `size` processes gets of the machine, as environment variables.

    Args:
        place: Which one, from 0.
        size: How many there are.

    Returns:
        An equal share of the threads that this process uses, and where there are GPUs, one of them in turn.
    """
    threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // size))}
    count = torch.cuda.device_count()
    if count == 0:
        return threads
    visible = os.environ.get(GPUS, ",".join(map(str, range(count)))).split(",")
    return threads | {GPUS: visible[place % count]}


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Within the block, new processes see these variables."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """Returns the states of the global generators that work on a device draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type in ("cuda", "mps"):
        states[device.type] = getattr(torch, device.type).get_rng_state()
    return states


def restore_generators(states: Mapping[str, Tensor]) -> None:
    """Puts the global generators into states that `generator_states` returned."""
    for kind, state in states.items():
        (torch if kind == "cpu" else getattr(torch, kind)).set_rng_state(state.cpu())
