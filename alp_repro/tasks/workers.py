"""Workers on the machines of a Ray cluster, which share the blocks of a plan.

Placing, starting, restarting and retrying is left to Ray.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import statistics
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import ActorPool

from alp_repro.errors import InputError
from alp_repro.tasks.cluster import (
    HINT,
    RETRIES,
    Cluster,
    TaskResources,
    as_input_error,
    use_threads,
)
from alp_repro.tasks.plans import Plan

WAIT_SECONDS = 60.0
# A block is late after both LATE_SECONDS and _LATE times the median time of the others.
LATE_SECONDS = 5.0
_LATE = 3.0
_LOOK_SECONDS = 1.0
_SHORT_SECONDS = 0.05
_PREPARED_PLANS = 4
_log = logging.getLogger(__name__)


class _Worker:
    """A process of the cluster that computes blocks of plans; a plan is prepared once."""

    def __init__(self, share: TaskResources) -> None:
        use_threads(share)
        self._prepared: dict[str, Callable[[Any], Any]] = {}

    def ready(self) -> None:
        """Return when the process has started."""

    def do(self, key: str, number: int, plan: list[Any], block: Any) -> tuple[str, int, Any]:
        """Compute a block of a plan, which is passed by reference and fetched if not yet prepared.

        Errors are returned: one that arrives after its plan has ended is dropped like a result.
        """
        try:
            if key not in self._prepared:
                while len(self._prepared) >= _PREPARED_PLANS:
                    del self._prepared[next(iter(self._prepared))]
                self._prepared[key] = ray.get(plan[0]).prepare()
            return key, number, self._prepared[key](block)
        except Exception as error:
            return key, number, as_input_error(error)


@dataclasses.dataclass
class _Out:
    """A block without a result yet: since when, and whether two workers compute it."""

    block: Any
    since: float
    twice: bool = False


class Workers:
    """Processes of the cluster, as many as it can run, that share the blocks of plans.

    Ray places and restarts them and repeats the work of lost ones; its pool distributes the
    blocks. Trainings take precedence: workers use the remaining resources.
    """

    def __init__(self, cluster: Cluster) -> None:
        """Create the pool; workers start when there is work."""
        self._cluster = cluster
        self._make = ray.remote(max_restarts=RETRIES, max_task_retries=RETRIES)(_Worker)
        self._all: list[Any] = []
        self._starting: dict[ray.ObjectRef, Any] = {}
        self._pool = ActorPool([])
        self._keys = itertools.count()
        self._looked, self._room = float("-inf"), 0
        self._waits_since: float | None = None

    def __len__(self) -> int:
        return len(self._all)

    def end(self) -> None:
        """End all workers."""
        for worker in self._all:
            ray.kill(worker)
        self._all, self._starting, self._pool = [], {}, ActorPool([])

    def results(
        self, plan: Plan, next_block: Callable[[], Any], *, idle: Callable[[], None]
    ) -> Iterator[tuple[int, Any]]:
        """Yield (number, result) of blocks as they are computed; numbers are in the given order.

        The others do not wait for a late block, on a slow or lost machine; once there is nothing
        else to do, a second worker computes it too, and the first result counts.

        Args:
          plan: the common part of the blocks.
          next_block: returns the next block, or None if there is none now; it is called again
            after each result.
          idle: called about once a second.

        Raises:
          InputError: a block failed, or Ray gave up on it; in one line.
        """
        key, shared = str(next(self._keys)), [ray.put(plan)]
        out: dict[int, _Out] = {}
        took: list[float] = []
        given = itertools.count()
        more = True
        while more or out:
            self._look()
            while self._pool.has_free():
                block = next_block()
                more = block is not None
                if more:
                    number = next(given)
                    out[number] = _Out(block, time.monotonic())
                elif (late := _late(out, took)) is not None:
                    number, out[late].twice = late, True
                else:
                    break
                self._pool.submit(_do, (key, number, shared, out[number].block))
            idle()
            for of_plan, number, result in self._back():
                if of_plan != key or number not in out:
                    continue
                if isinstance(result, InputError):
                    raise result
                took.append(time.monotonic() - out.pop(number).since)
                yield number, result
                more = True  # the result may have led to more blocks

    def _back(self) -> list[tuple[str, int, Any]]:
        """Return a worker's result, if there is one within a second."""
        if not self._pool.has_next():
            time.sleep(_SHORT_SECONDS if self._starting else _LOOK_SECONDS)
            return []
        try:
            return [self._pool.get_next_unordered(timeout=_LOOK_SECONDS)]
        except RayError as error:
            raise as_input_error(error) from None
        except TimeoutError:
            return []

    def _look(self) -> None:
        """Start and end workers as resources become available or are taken."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            self._room = max(self._cluster.slots - self._cluster.tasks, 0)
        while len(self._all) < self._room:
            worker = self._make.options(**self._cluster.share.options).remote(self._cluster.share)
            self._all.append(worker)
            self._starting[worker.ready.remote()] = worker
        for ref in _done(self._starting):
            worker = self._starting.pop(ref)
            try:
                ray.get(ref)
            except RayError as error:
                self._all.remove(worker)
                raise as_input_error(error) from None
            self._pool.push(worker)
        while self._cluster.tasks and len(self._all) > self._room:
            if (worker := self._pool.pop_idle()) is None:
                break
            self._all.remove(worker)
            ray.kill(worker)
        self._tell_of_waiting()

    def _tell_of_waiting(self) -> None:
        """Warn once if no worker starts, although no training of ours uses the resources."""
        if self._cluster.tasks or len(self._starting) < len(self._all):
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = time.monotonic()
        elif time.monotonic() - self._waits_since > WAIT_SECONDS:
            self._waits_since = float("inf")
            _log.warning("no worker has started for %.0f s: %s", WAIT_SECONDS, HINT)


def _do(worker: Any, arguments: tuple[Any, ...]) -> ray.ObjectRef:
    return worker.do.remote(*arguments)


def _done(refs: Collection[ray.ObjectRef]) -> list[ray.ObjectRef]:
    """Return those that have a result."""
    return ray.wait(list(refs), num_returns=len(refs), timeout=0)[0] if refs else []


def _late(out: dict[int, _Out], took: list[float]) -> int | None:
    """Return the first block that is late and has not been given to a second worker."""
    if not took:
        return None
    limit = time.monotonic() - max(LATE_SECONDS, _LATE * statistics.median(took))
    late = [number for number, one in out.items() if one.since < limit and not one.twice]
    return min(late, default=None)
