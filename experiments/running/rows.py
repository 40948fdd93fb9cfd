"""A row of a table: its settings from flagfiles, and which results it shows."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from alp_repro.errors import InputError
from alp_repro.reporting import tables
from alp_repro.reporting.results import ResultQuery
from alp_repro.reporting.table_names import table_title

from ..flags import settings
from .evaluation_run import evaluation_digest, image_count

if TYPE_CHECKING:
    from absl import flags

    from alp_repro import runs
    from alp_repro.reporting.tables import Column, PaperTable


@dataclasses.dataclass(frozen=True)
class Job:
    """A row of a table with everything that is needed to compute it."""

    row: str
    scale: str
    values: flags.FlagValues
    columns: list[Column]

    @property
    def run(self) -> runs.RunDir:
        """The row's run folder."""
        return settings.run_dir(self.values)


def table_of(table: flags.FlagValues) -> PaperTable:
    """Return the paper's table of --table.

    Raises:
      InputError: it is of another data set than --dataset.
    """
    paper = tables.load_paper_table(table.table)
    if paper.dataset != table.dataset:
        raise InputError(
            f"--table={paper.number} --dataset={table.dataset}: {table_title(paper.number)} is of "
            f"{paper.dataset}; leave --dataset out"
        )
    return paper


def make_job(table: flags.FlagValues, row: str) -> Job:
    """Read a row's flagfile and the scale's, and limit the grid's restarts."""
    values = settings.row_flags(
        dataset=table.dataset,
        row=row,
        scale=table.scale,
        flags_dir=table.flags_dir,
        extra=[
            f"--runs_dir={settings.scale_folder(table)}",
            f"--flags_dir={table.flags_dir}",
            f"--grid={table.grid}",
            *(f"--attack={attack}" for attack in table.attack),
            *([f"--data_dir={table.data_dir}"] if table.data_dir else []),
            *([f"--seed={table.training_seed}"] if table.training_seed is not None else []),
        ],
    )
    if values.fine_tuned:
        values.init_from = table.init_from
    settings.recipe(values)  # reports contradictions before any work starts
    paper, images = table_of(table), image_count(values)
    columns = [
        paper.column(settings.capped(attack, values), attack.restarts, images=images)
        for attack in settings.attack_grid(values)
    ]
    if table.strong:
        strong = settings.parse_attack("strong", values)
        columns.append(paper.column(strong, strong.restarts, ours_only=True, images=images))
    return Job(row, table.scale, values, columns)


def result_query(job: Job) -> ResultQuery:
    """Return which results the row shows: those of its recipe and of today's images."""
    values = job.values
    return ResultQuery(
        num_images=image_count(values),
        seed=values.seed,
        digest_of=functools.partial(
            evaluation_digest, values.dataset, values.data_dir, values.num_images == "all"
        ),
        recipe=settings.recipe(values),
    )
