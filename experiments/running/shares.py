"""--jobs: how many rows of a table at a time, each in a process of its own."""

from __future__ import annotations

import dataclasses

from absl import flags

from alp_repro.errors import InputError

from .devices import cores, uses_gpu

# What is defined here counts as the binary's own, so that --help lists it.
flags.disclaim_key_flags()


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines --jobs."""
    flags.DEFINE_string(
        "jobs",
        "auto",
        "Rows at a time, each in a process of its own with its share of the cores; auto: as many "
        "as there are cores, one with a GPU.",
        flag_values=values,
    )


@dataclasses.dataclass(frozen=True)
class Share:
    """Rows at a time, and CPU cores for each; None: all there are."""

    jobs: int
    threads: int | None


def share_of(values: flags.FlagValues, count: int) -> Share:
    """What --jobs says for so many rows, and each row's share of the cores.

    auto is a row a core, since a step of a small model cannot keep several busy, and one row at a
    time on a GPU.

    Raises:
      InputError: --jobs is neither auto nor a number of 1 to the rows.
    """
    alone = uses_gpu(values) or values.strategy != "none"
    if values.jobs == "auto":
        jobs = 1 if alone else min(cores(), count)
    elif values.jobs.isdecimal() and 1 <= int(values.jobs) <= count:
        jobs = int(values.jobs)
    else:
        raise InputError(
            f"--jobs={values.jobs}: auto, or a number of 1 to {count}, the rows to make"
        )
    if jobs > 1 and values.strategy != "none":
        raise InputError(
            f"--jobs={jobs} --strategy={values.strategy}: one row at a time can use several devices"
        )
    return Share(jobs, values.threads or (max(1, cores() // jobs) if jobs > 1 else None))
