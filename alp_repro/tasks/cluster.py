"""Tasks on the machines of a Ray cluster: what is there, and workers that share blocks of a plan.

Ray places, starts, restarts and retries; nothing here does. Needs the extra `[cluster]`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import itertools
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
import tensorflow as tf
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from alp_repro.errors import InputError
from alp_repro.tasks.plans import Plan

HINT = "`ray status` shows what the cluster has and waits for, `ray logs` what its processes wrote"
# What a worker or a task may lose its process or node before its work is given up.
RETRIES = 100
_CONNECT_SECONDS = 5.0
_CHECK_SECONDS = 120.0
_LOOK_SECONDS = 1.0
_PREPARED_PLANS = 4


@dataclasses.dataclass(frozen=True)
class Share:
    """What a task needs of a machine; a task computes with as many threads as it has CPUs."""

    cpus: int = 1
    gpus: float = 0.0

    def fits(self, resources: dict[str, float]) -> int:
        """How many tasks at a time a machine with these resources takes."""
        by_cpu = int(resources.get("CPU", 0) // self.cpus)
        return min(by_cpu, int(resources.get("GPU", 0) // self.gpus)) if self.gpus else by_cpu

    @property
    def options(self) -> dict[str, float]:
        """As Ray names them."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}


class Cluster:
    """A cluster that this process has joined as a driver."""

    def __init__(self, share: Share) -> None:
        """For tasks with this share of a machine."""
        self.share = share
        self.trainings = 0  # that hold, or wait for, a share of their own

    @property
    def slots(self) -> int:
        """Tasks at a time that the machines of now take."""
        return sum(self.share.fits(node["Resources"]) for node in _alive())

    def here(self) -> NodeAffinitySchedulingStrategy:
        """Places an actor on the machine of this process."""
        node = ray.get_runtime_context().get_node_id()
        return NodeAffinitySchedulingStrategy(node_id=node, soft=False)


@contextlib.contextmanager
def joined(address: str, share: Share) -> Iterator[Cluster]:
    """Joins a cluster and checks that it can do the work.

    Args:
      address: `local` starts one on this machine, `auto` finds the one that this machine belongs
        to, anything else is its HOST:PORT.
      share: what a task needs.

    Raises:
      InputError: nothing answers there, a machine has other versions of the package or of
        TensorFlow, or none has room for a task.
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
            f"Ray cluster {address}: start on a machine of the cluster, with the address auto; "
            "results are written there"
        )
    if address not in ("local", "auto"):
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise InputError(f"Ray cluster {address}: local, auto, or the HOST:PORT of `ray start`")
        try:  # Ray itself would try for a minute
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise InputError(f"Ray cluster {address}: nothing answers there ({error})") from None
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == "local":
            cores = len(os.sched_getaffinity(0))
            ray.init("local", num_cpus=cores, include_dashboard=False, **quiet)
        else:
            ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"Ray cluster {address}: none to join ({str(error).strip().splitlines()[0]}); "
            "`ray start --head` begins one, the address local needs none"
        ) from None


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def check_room(cluster: Cluster) -> None:
    """Raises InputError where no machine has room for a task."""
    if cluster.slots:
        return
    largest = max(
        ((node["Resources"].get("GPU", 0), node["Resources"].get("CPU", 0)) for node in _alive()),
        default=(0, 0),
    )
    raise InputError(
        f"gpus_per_task={cluster.share.gpus:g}, cpus_per_task={cluster.share.cpus}: no machine "
        f"of the cluster has so many; the largest has {largest[0]:g} GPUs and {largest[1]:g} CPUs"
    )


def versions() -> dict[str, str]:
    """What must be the same on all machines for their results to be of one kind."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + file.read_bytes())
    packages = ("tensorflow", "keras", "numpy", "cleverhans")
    return {
        "alp_repro": digest.hexdigest()[:12],
        "python": ".".join(platform.python_version_tuple()[:2]),
        **{name: importlib.metadata.version(name) for name in packages},
    }


our_versions = versions


def check_versions() -> None:
    """Asks every machine; one that is busy answers too, since asking needs no share."""
    ask = ray.remote(num_cpus=0, max_retries=2)(versions)
    ours, asked = our_versions(), {}
    for node in _alive():
        where = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=True)
        asked[node["NodeManagerAddress"]] = ask.options(scheduling_strategy=where).remote()
    for address, ref in asked.items():
        try:
            theirs = ray.get(ref, timeout=_CHECK_SECONDS)
        except RayError as error:
            raise InputError(
                f"machine {address} of the cluster cannot do the work ({_first_line(error)}): is "
                f"alp_repro installed there? {HINT}"
            ) from None
        for name, version in ours.items():
            if theirs[name] != version:
                raise InputError(
                    f"machine {address} of the cluster has {name} {theirs[name]}, this one "
                    f"{version}: install the same on all"
                )


def _first_line(error: Exception) -> str:
    cause = error.cause if isinstance(error, RayTaskError) else error
    return f"{type(cause).__name__}: {str(cause).strip().splitlines()[0] if str(cause) else ''}"


def told(error: Exception) -> InputError:
    """An error of a task as one line."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, InputError):
        return cause
    return InputError(f"on the cluster: {_first_line(error)}; {HINT}")


def use_threads(share: Share) -> None:
    """Lets this process compute with its share; before it first uses a device."""
    tf.config.threading.set_intra_op_parallelism_threads(share.cpus)
    tf.config.threading.set_inter_op_parallelism_threads(share.cpus)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


class _Worker:
    """A process of the cluster that does blocks of plans; a plan is prepared once."""

    def __init__(self, share: Share) -> None:
        use_threads(share)
        self._prepared: dict[str, Callable[[Any], Any]] = {}

    def ready(self) -> None:
        """Answers when the process is up."""

    def do(self, key: str, plan: list[Any], block: Any) -> Any:
        """A block of a plan, which comes by reference: it is fetched when it is not prepared."""
        if key not in self._prepared:
            while len(self._prepared) >= _PREPARED_PLANS:
                del self._prepared[next(iter(self._prepared))]
            self._prepared[key] = ray.get(plan[0]).prepare()
        return self._prepared[key](block)


class Workers:
    """Processes of the cluster, as many as there is room for, that share the blocks of plans.

    Trainings come first: workers take what these leave.
    """

    def __init__(self, cluster: Cluster) -> None:
        """Starts none before there is work."""
        self._cluster = cluster
        self._make = ray.remote(max_restarts=RETRIES, max_task_retries=RETRIES)(_Worker)
        self._all: list[Any] = []
        self._busy: dict[ray.ObjectRef, Any] = {}
        self._keys = itertools.count()
        self._looked, self._room = float("-inf"), 0

    def __len__(self) -> int:
        return len(self._all)

    def end(self) -> None:
        """Ends all of them."""
        for worker in self._all:
            ray.kill(worker)
        self._all, self._busy = [], {}

    def results(
        self, plan: Plan, next_block: Callable[[], Any], *, idle: Callable[[], None]
    ) -> Iterator[tuple[int, Any]]:
        """Yields (number, result) of blocks as they come back; blocks are numbered as given.

        A block that is out for long, on a slow machine or one that was lost, is not waited for by
        the others; when there is nothing else to do it is given out once more, and the first result
        counts.

        Args:
          plan: what the blocks have in common.
          next_block: the next block, None when there is none now; it is asked again after each
            result.
          idle: called about once a second.
        """
        key, shared = str(next(self._keys)), [ray.put(plan)]
        out: dict[int, Any] = {}
        twice: set[int] = set()
        numbers: dict[ray.ObjectRef, int] = {}
        given = itertools.count()
        more = True
        while more or out:
            for worker in self._free():
                block = next_block()
                more = block is not None
                if more:
                    number = next(given)
                    out[number] = block
                elif out.keys() - twice:
                    number = min(out.keys() - twice)
                    twice.add(number)
                else:
                    break
                ref = worker.do.remote(key, shared, out[number])
                self._busy[ref], numbers[ref] = worker, number
            idle()
            for ref in self._back():
                result = _fetched(ref)
                if (number := numbers.pop(ref, -1)) in out:
                    del out[number]
                    yield number, result

    def _back(self) -> list[ray.ObjectRef]:
        """What a worker has given back, after a second at the most."""
        if not self._busy:
            time.sleep(_LOOK_SECONDS)  # trainings have all the room
            return []
        back, _ = ray.wait(list(self._busy), timeout=_LOOK_SECONDS)
        for ref in back:
            del self._busy[ref]
        return back

    def _free(self) -> list[Any]:
        """Workers without work; makes and ends some as room comes and goes."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            self._room = max(self._cluster.slots - self._cluster.trainings, 0)
        while len(self._all) < self._room:
            worker = self._make.options(**self._cluster.share.options).remote(self._cluster.share)
            self._all.append(worker)
            self._busy[worker.ready.remote()] = worker
        free = [worker for worker in self._all if worker not in self._busy.values()]
        while free and len(self._all) > self._room and self._cluster.trainings:
            worker = free.pop()
            self._all.remove(worker)
            ray.kill(worker)
        return free


def _fetched(ref: ray.ObjectRef) -> Any:
    try:
        return ray.get(ref)
    except (RayTaskError, RayActorError) as error:
        raise told(error) from None
