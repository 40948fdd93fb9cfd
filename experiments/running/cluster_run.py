"""--ray: runs trainings and attacks on a Ray cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from absl import flags

from alp_repro.errors import InputError
from alp_repro.evaluation.restarts import Executor, in_this_process
from alp_repro.tasks import Ended, Status, run_task

from ..console.display import Display
from . import devices
from .devices import Devices
from .row_tasks import RowHere
from .training_run import training_of, training_set

if TYPE_CHECKING:
    from alp_repro.evaluation.heat_maps import RunColumns
    from alp_repro.tasks.cluster import Cluster
    from alp_repro.tasks.on_cluster import ClusterTasks
    from alp_repro.tasks.workers import Workers

    from .rows import Job

# Flags that are defined here count as the binary's own, so that --help lists them.
flags.disclaim_key_flags()


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Define --ray, --cpus_per_task and --gpus_per_task."""
    flags.DEFINE_string(
        "ray",
        None,
        "Run on a Ray cluster: local (a new one on this machine), auto (the cluster that this "
        "machine belongs to), or its HOST:PORT.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "cpus_per_task",
        1,
        "With --ray: CPU cores per task.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_float(
        "gpus_per_task",
        0.0,
        "With --ray: GPUs per task; with 0.5, two tasks share one.",
        lower_bound=0.0,
        flag_values=values,
    )


@dataclasses.dataclass(frozen=True)
class Compute:
    """What the work runs on: this process and its devices, or the workers of a cluster."""

    devices: Devices
    cluster: Cluster | None = None
    workers: Workers | None = None

    def executor(self, idle: Callable[[], None] = lambda: None) -> Executor:
        """Return an executor for `evaluation.evaluate`; `idle` is called about once a second."""
        if self.workers is None:
            return in_this_process
        from alp_repro.tasks.attack import batches_on_workers

        return batches_on_workers(self.workers, idle=idle)

    def run_columns(self) -> RunColumns | None:
        """Return the function that computes columns for `heat_map`; None: in this process."""
        if self.workers is None:
            return None
        from alp_repro.tasks.attack import columns_on_workers

        return columns_on_workers(self.workers)


@contextlib.contextmanager
def computing(values: flags.FlagValues, *, threads: int | None = None) -> Iterator[Compute]:
    """Yield the devices of the flags, or the cluster of --ray; call it before a device is used.

    Raises:
      InputError: see `devices.choose` and `tasks.cluster.joined`; or Ray is not installed.
    """
    import tensorflow as tf

    if values.ray is None:
        yield Compute(devices.choose(values, threads=threads))
        return
    for name in ("device", "strategy", "jobs", "threads"):
        if name in values and values[name].value != values[name].default:
            raise InputError(
                f"--ray={values.ray} --{name}={values[name].value}: Ray places the work by itself; "
                "use --cpus_per_task and --gpus_per_task instead"
            )
    if "tensorboard" in values and values.tensorboard:
        raise InputError(
            f"--ray={values.ray} --tensorboard: trainings on a cluster write no event files; use "
            "one of the two flags"
        )
    try:
        from alp_repro.tasks import cluster, workers
    except ImportError as error:
        raise InputError(
            f"--ray={values.ray}: Ray could not be imported ({error}): install it with pip install "
            "'.[cluster]'"
        ) from None
    tf.config.set_visible_devices([], "GPU")  # those of this machine are the workers'
    share = cluster.TaskResources(values.cpus_per_task, values.gpus_per_task)
    cluster.use_threads(share)
    with cluster.joined(values.ray, share) as found:
        words = f"{share.cpus} CPU" + (f", {share.gpus:g} GPU" if share.gpus else "")
        print(f"device: Ray, {found.slots} tasks at a time with {words} each", flush=True)
        chosen = Devices(f"Ray, {words} per task", share.gpus > 0, None)
        yield Compute(chosen, found, workers.Workers(found))


def train_on(compute: Compute, values: flags.FlagValues) -> None:
    """Train one run on the cluster.

    Raises:
      InputError: the training failed.
    """
    running = _trainings(compute, [(values, {})])
    with Display() as display:
        while len(running):
            for ended in running.ended(seconds=1.0):
                if ended.error is not None:
                    raise InputError(ended.error)
            _show(running, display)


def _trainings(
    compute: Compute, several: list[tuple[flags.FlagValues, dict[str, Any]]]
) -> ClusterTasks:
    """Submit trainings to Ray: flag values of one data set, with additional provenance."""
    from alp_repro.tasks.on_cluster import ClusterTasks, Shared

    assert compute.cluster is not None
    if not several:
        return ClusterTasks(compute.cluster, [])
    dataset, data_dir = several[0][0].dataset, several[0][0].data_dir
    data = Shared(training_set(dataset, data_dir))
    return ClusterTasks(
        compute.cluster,
        [
            training_of(values, compute.devices, data=data, details=details)
            for values, details in several
        ],
    )


def _show(running: ClusterTasks, display: Display) -> None:
    news = running.news()
    for name, line in news.lines:
        display.print(f"{name}: {line}")
    for name, status in news.statuses.items():
        display.report_status(name, status)


def rows_on(compute: Compute, todo: list[Job], display: Display) -> Generator[Ended, None, None]:
    """Train rows in parallel, attack each once it is trained, and yield them as they end.

    The seconds of a row are summed over all workers that worked on it.
    """
    assert compute.workers is not None
    running = _trainings(
        compute, [(job.values, {"scale": job.scale}) for job in todo if not job.run.finished]
    )
    trained: list[tuple[str, float, str | None]]
    trained = [(job.row, 0.0, None) for job in todo if job.run.finished]

    def look(seconds: float = 0.0) -> None:
        _show(running, display)
        for ended in running.ended(seconds=seconds):
            words = "trained" if ended.error is None else "failed"
            display.report_status(ended.task.name, Status(words))
            trained.append((ended.task.name, ended.seconds, ended.error))

    rest = {job.row: RowHere(job, compute.devices, compute.executor(look)) for job in todo}
    while rest:
        look(0.0 if trained else 1.0)
        if not trained:
            continue
        row, seconds, error = trained.pop(0)
        task, started = rest.pop(row), time.monotonic()
        if error is None:
            error = run_task(task, functools.partial(display.report_status, row))
            seconds += (time.monotonic() - started) * max(len(compute.workers), 1)
        yield Ended(task, seconds, error)
