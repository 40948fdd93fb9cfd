"""The task that computes a row of a table: its training and its attacks, where missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import flags

from alp_repro import files, runs
from alp_repro.evaluation.restarts import Executor, in_this_process

from ..flags import settings
from . import devices
from .evaluation_run import attack_run
from .rows import Job, make_job
from .training_run import train_row

if TYPE_CHECKING:
    from alp_repro.tasks import Status

    from .devices import Devices


@dataclasses.dataclass(frozen=True)
class RowTask:
    """Trains a row's model and runs its attacks, where they are not on disk, in its own process.

    Attributes:
      row: its name.
      arguments: the table's flags, as arguments of a command.
      threads: the row's share of the CPU cores.
    """

    row: str
    arguments: tuple[str, ...]
    threads: int

    @property
    def name(self) -> str:
        """The row."""
        return self.row

    def run(self, report_status: Callable[[Status], None]) -> None:
        """Compute the row on its share of the CPU cores."""
        table = _table_flags()
        table(["table", *self.arguments])
        chosen = devices.choose(table, threads=self.threads, verbose=False)
        make_row(make_job(table, self.row), chosen, report_status=report_status)


@dataclasses.dataclass(frozen=True)
class RowHere:
    """Does the same in this process, whose devices are chosen already."""

    job: Job
    devices: Devices
    executor: Executor = in_this_process

    @property
    def name(self) -> str:
        """The row."""
        return self.job.row

    def run(self, report_status: Callable[[Status], None]) -> None:
        """Compute the row."""
        make_row(self.job, self.devices, report_status=report_status, executor=self.executor)


def table_arguments(values: flags.FlagValues) -> tuple[str, ...]:
    """Return the table's flags as arguments, from those of a binary that defines them."""
    given = (values[name] for name in _table_flags() if name in values)
    texts = [flag.serialize() for flag in given if flag.value is not None]
    return tuple(line for text in texts for line in text.splitlines())


def _table_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    settings.define_table_flags(values)
    devices.define_flags(values)
    return values


def make_row(
    job: Job,
    chosen: Devices,
    *,
    report_status: Callable[[Status], None],
    executor: Executor = in_this_process,
) -> None:
    """Train the row's model and run its attacks, where they are not on disk."""
    import keras

    details: dict[str, Any] = {"scale": job.scale}
    model = (
        runs.load_model(job.run.model)
        if is_imported(job.run)
        else train_row(job.values, chosen, details=details, report_status=report_status)
    )
    for column in job.columns:
        attack_run(
            job.values,
            job.run,
            model,
            column.attack,
            chosen,
            details=details,
            report_status=report_status,
            executor=executor,
        )
    keras.backend.clear_session()


def is_imported(run: runs.RunDir) -> bool:
    """Return whether the run was imported from a published checkpoint, not trained."""
    return run.finished and "imported" in files.read_json(run.recipe)
