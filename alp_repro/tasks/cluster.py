"""Joins a Ray cluster, and checks that it can do the work. Requires the extra `[cluster]`."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import platform
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import tensorflow as tf
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from alp_repro.errors import InputError
from alp_repro.system import machine
from alp_repro.versions import package_versions

HINT = "`ray status` shows the cluster's resources and requests, `ray logs` its processes' output"
# How often a worker or task may lose its process or node before it fails.
RETRIES = 100
_CONNECT_SECONDS = 5.0
_CHECK_SECONDS = 600.0


@dataclasses.dataclass(frozen=True)
class TaskResources:
    """The resources that a task needs; it computes with as many threads as it has CPUs."""

    cpus: int = 1
    gpus: float = 0.0

    def fits(self, resources: dict[str, float]) -> int:
        """Return how many tasks a machine with these resources can run at a time."""
        by_cpu = int(resources.get("CPU", 0) // self.cpus)
        return min(by_cpu, int(resources.get("GPU", 0) // self.gpus)) if self.gpus else by_cpu

    @property
    def options(self) -> dict[str, float]:
        """The resources by Ray's names."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}


class Cluster:
    """A cluster that this process has joined as a driver."""

    def __init__(self, share: TaskResources) -> None:
        """Create it for tasks with these resources."""
        self.share = share
        self.tasks = 0  # of `on_cluster`, which hold, or wait for, their resources

    @property
    def slots(self) -> int:
        """How many tasks the current machines can run at a time."""
        return sum(self.share.fits(node["Resources"]) for node in _alive())

    def here(self) -> NodeAffinitySchedulingStrategy:
        """Return the strategy that places an actor on the machine of this process."""
        node = ray.get_runtime_context().get_node_id()
        return NodeAffinitySchedulingStrategy(node_id=node, soft=False)


@contextlib.contextmanager
def joined(address: str, share: TaskResources) -> Iterator[Cluster]:
    """Join a cluster, and check that it can do the work.

    Args:
      address: `local` starts one on this machine, `auto` finds the one that this machine belongs
        to, anything else is its HOST:PORT.
      share: the resources that a task needs.

    Raises:
      InputError: nothing answers there, a machine has other versions of the package or of
        TensorFlow, or none has the resources for a task.
    """
    _init(address)
    try:
        cluster = Cluster(share)
        check_room(cluster)
        check_versions()
        yield cluster
    finally:
        ray.shutdown()


def _init(address: str) -> None:
    if address.startswith("ray://"):
        raise InputError(
            f"Ray cluster {address}: expected to run on a machine of the cluster, with the address "
            "auto; results are written there"
        )
    if address not in ("local", "auto"):
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise InputError(
                f"Ray cluster {address}: expected local, auto, or the HOST:PORT of `ray start`"
            )
        try:  # Ray itself would try for a minute
            machine.resolve(host, seconds=_CONNECT_SECONDS)
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        except (OSError, OverflowError, InputError) as error:
            raise InputError(f"Ray cluster {address}: nothing answers there ({error})") from None
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if address == "local":
            cores = len(os.sched_getaffinity(0))
            ray.init("local", num_cpus=cores, include_dashboard=False, **quiet)
        else:
            ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"Ray cluster {address}: could not be joined ({str(error).strip().splitlines()[0]}); "
            "start one with `ray start --head`, or use the address local"
        ) from None
    finally:  # Ray replaces the handler
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def check_room(cluster: Cluster) -> None:
    """Raise InputError if no machine has the resources for a task."""
    if cluster.slots:
        return
    largest = max(
        ((node["Resources"].get("GPU", 0), node["Resources"].get("CPU", 0)) for node in _alive()),
        default=(0, 0),
    )
    raise InputError(
        f"gpus_per_task={cluster.share.gpus:g}, cpus_per_task={cluster.share.cpus}: no machine "
        f"of the cluster has as many; the largest has {largest[0]:g} GPUs and {largest[1]:g} CPUs"
    )


def versions() -> dict[str, str]:
    """Return the versions that must be the same on all machines of a cluster."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + file.read_bytes())
    return {
        "alp_repro": digest.hexdigest()[:12],
        "python": ".".join(platform.python_version_tuple()[:2]),
        **package_versions(),
    }


our_versions = versions


def check_versions() -> None:
    """Check the versions on every machine; even a busy one answers, as this needs no resources."""
    ask = ray.remote(num_cpus=0, max_retries=2)(versions)
    ours, asked = our_versions(), {}
    for node in _alive():
        where = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=True)
        asked[node["NodeManagerAddress"]] = ask.options(scheduling_strategy=where).remote()
    for address, ref in asked.items():
        try:
            theirs = ray.get(ref, timeout=_CHECK_SECONDS)
        except GetTimeoutError:
            raise InputError(
                f"machine {address} of the cluster did not answer within {_CHECK_SECONDS:.0f} s: "
                f"{HINT}"
            ) from None
        except RayError as error:
            raise InputError(
                f"machine {address} of the cluster failed ({_first_line(error)}): is alp_repro "
                f"installed there? {HINT}"
            ) from None
        for name, version in ours.items():
            if theirs[name] != version:
                raise InputError(
                    f"machine {address} of the cluster has {name} {theirs[name]}, but this one has "
                    f"{version}: install the same version on all machines"
                )


def _first_line(error: Exception) -> str:
    cause = error.cause if isinstance(error, RayTaskError) else error
    return f"{type(cause).__name__}: {str(cause).strip().splitlines()[0] if str(cause) else ''}"


def as_input_error(error: Exception) -> InputError:
    """Convert the error of a task to an InputError of one line."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, InputError):
        return cause
    return InputError(f"on the cluster: {_first_line(error)}; {HINT}")


def use_threads(share: TaskResources) -> None:
    """Limit this process to its resources; call it before a device is used."""
    tf.config.threading.set_intra_op_parallelism_threads(share.cpus)
    tf.config.threading.set_inter_op_parallelism_threads(share.cpus)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
