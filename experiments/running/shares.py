"""--jobs: the number of rows of a table to compute in parallel, each in its own process."""

from __future__ import annotations

import dataclasses

from absl import flags

from alp_repro.errors import InputError

from .devices import cores, uses_gpu

# Flags that are defined here count as the binary's own, so that --help lists them.
flags.disclaim_key_flags()


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Define --jobs."""
    flags.DEFINE_string(
        "jobs",
        "auto",
        "Number of rows to compute in parallel, each in its own process with its share of the CPU "
        "cores; auto: one for each core, or a single one with a GPU.",
        flag_values=values,
    )


@dataclasses.dataclass(frozen=True)
class RowParallelism:
    """The number of rows to compute in parallel, and the CPU cores of each (None: all)."""

    jobs: int
    threads: int | None


def row_parallelism(values: flags.FlagValues, count: int) -> RowParallelism:
    """Return how many of `count` rows run in parallel, and each row's share of the CPU cores.

    auto is one row for each core, since a step of a small model cannot keep several cores busy, or
    a single row at a time on a GPU.

    Raises:
      InputError: --jobs is neither auto nor a number from 1 to `count`.
    """
    alone = uses_gpu(values) or values.strategy != "none"
    if values.jobs == "auto":
        jobs = 1 if alone else min(cores(), count)
    elif values.jobs.isdecimal() and 1 <= int(values.jobs) <= count:
        jobs = int(values.jobs)
    else:
        raise InputError(
            f"--jobs={values.jobs}: expected auto, or a number from 1 to {count}, the number of "
            "rows to compute"
        )
    if jobs > 1 and values.strategy != "none":
        raise InputError(
            f"--jobs={jobs} --strategy={values.strategy}: expected --jobs=1 with several devices"
        )
    return RowParallelism(jobs, values.threads or (max(1, cores() // jobs) if jobs > 1 else None))
