"""Reproduces one of the paper's tables: trains and attacks what is missing, and prints the table.

    python -m experiments.table --table=1 --scale=quick
    python -m experiments.table --table=1 --scale=quick --only=clp,lsq
    python -m experiments.table --table=1 --scale=quick --show
    python -m experiments.table --table=followups --scale=followups    # what came after the paper

Our numbers stand beside the paper's. Each row is printed as soon as it is complete; the whole table
is written as Markdown, CSV and JSON to <runs_dir>/<scale>/tables/, unless --show is given. Rows of
a stored table that --rows leaves out are kept. The command can be stopped at any time; run it again
to resume.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from alp_repro import runs, tasks
from alp_repro.data import dataset_spec, unverified_source
from alp_repro.errors import InputError
from alp_repro.reporting import spread, stored_tables, table_files, tables
from alp_repro.reporting.kept_rows import with_kept_rows
from alp_repro.reporting.table_names import TableName, is_papers, table_stem, table_title
from alp_repro.reporting.tables import Column, PaperTable, TableRow

from .console import app
from .console.commands import command
from .console.display import Display, duration
from .evidence.deviations import in_words
from .flags import settings
from .running import cluster_run, devices, estimates, shares
from .running.cluster_run import Compute, computing, rows_on
from .running.row_tasks import RowHere, RowTask, table_arguments
from .running.rows import Job, make_job, result_query, table_of
from .running.shares import row_parallelism
from .running.training_run import lacks_initial_model

if TYPE_CHECKING:
    from alp_repro.reporting.spread import Spread
    from alp_repro.reporting.stored_tables import StoredTable

FLAGS = flags.FLAGS
settings.define_table_flags()
devices.define_flags()
shares.define_flags()
cluster_run.define_flags()


def main(_: list[str]) -> None:
    """Compute the table of --table at --scale, or with --show only print it."""
    settings.fill_in_table()
    paper = table_of(FLAGS)
    wanted = chosen_rows()
    with contextlib.ExitStack() as stack:
        # Devices are chosen before one is used.
        execution = None if FLAGS.show else stack.enter_context(row_execution(len(wanted)))
        jobs = [make_job(FLAGS, row) for row in FLAGS.rows]
        heading = scale_heading(paper, jobs)
        print(heading, flush=True)
        if execution:
            table_to_keep(paper, jobs)  # raises its errors before the work
        failed = (
            compute_missing(paper, [job for job in jobs if job.row in wanted], execution)
            if execution
            else []
        )
    found = [row_of(paper, job) for job in jobs]
    seeds = spread_of(paper)
    text = table_files.to_markdown(
        found,
        columns_of(jobs),
        heading=heading,
        spread=seeds,
        printed=is_papers(paper.number),
    )
    print(f"\n{text}")
    if not FLAGS.show:  # which may show other rows or columns than the stored table's
        print(write(paper, found, jobs, seeds))
    if failed:
        raise InputError(f"failed, for the reasons above: {', '.join(failed)}")


@dataclasses.dataclass(frozen=True)
class RowExecution:
    """How rows are computed: on what, how many in parallel, and with how many cores each."""

    compute: Compute
    at_a_time: int
    threads: int | None


@contextlib.contextmanager
def row_execution(count: int) -> Iterator[RowExecution]:
    """Yield how to compute `count` rows, by --jobs or --ray."""
    if FLAGS.ray is not None:
        with computing(FLAGS) as compute:
            assert compute.cluster is not None
            yield RowExecution(compute, compute.cluster.slots, None)
        return
    share = row_parallelism(FLAGS, count)
    with computing(FLAGS, threads=share.threads) as compute:
        yield RowExecution(compute, share.jobs, share.threads)


def columns_of(jobs: list[Job]) -> list[Column]:
    """Return the adversarial columns, as the heads of all rows."""
    return [Column.of_rows(columns) for columns in zip(*(j.columns for j in jobs), strict=True)]


def write(paper: PaperTable, found: list[TableRow], jobs: list[Job], seeds: Spread | None) -> str:
    """Write the table's files; return a line about them."""
    folder = settings.scale_folder(FLAGS) / "tables"
    wanted = result_query(jobs[0])
    columns, stored, kept = columns_of(jobs), table_to_keep(paper, jobs), ""
    if stored is not None:
        made = [row.row for row in found]
        found, columns = with_kept_rows(found, columns, stored, paper)
        jobs = [*jobs, *described_jobs([row.row for row in found if row.row not in made])]
        kept = f" (kept: {', '.join(row.row for row in found if row.row not in made)})"
    details = {"table": paper.number, "scale": FLAGS.scale, **runs.provenance()}
    images = wanted.digest(wanted.num_images)
    if images is not None:  # it is None if the data set is not prepared
        details["images"] = images
    table_files.write_table(
        folder,
        table_stem(paper.number),
        found,
        columns,
        heading=scale_heading(paper, jobs),
        details=details,
        spread=seeds,
        printed=is_papers(paper.number),
    )
    return f"written: {folder}/{table_stem(paper.number)}.md, .csv, .json{kept}"


def table_to_keep(paper: PaperTable, jobs: list[Job]) -> StoredTable | None:
    """Return the stored table if it has rows to keep, which are not requested now.

    Raises:
      InputError: it cannot be read, or is of other images.
    """
    file = stored_tables.table_file(settings.scale_folder(FLAGS), paper.number)
    asked = {job.row for job in jobs}
    if not file.exists() or asked >= {row.row for row in paper.rows}:
        return None
    stored = stored_tables.read_table(file)
    if asked >= {row.row for row in stored.rows}:
        return None
    wanted = result_query(jobs[0])
    images = wanted.digest(wanted.num_images)
    if None not in (images, stored.images) and images != stored.images:
        raise InputError(
            f"{file} has rows of other images, which cannot be combined with these: compute all of "
            "its rows, or move it away"
        )
    return stored


def described_jobs(rows: list[str]) -> list[Job]:
    """Return the jobs of kept rows, except rows that no longer have a flagfile."""
    found = []
    for row in rows:
        with contextlib.suppress(InputError):
            found.append(make_job(FLAGS, row))
    return found


def chosen_rows() -> list[str]:
    """Return the rows to compute: --only, or all.

    Raises:
      InputError: --only names a row that the table does not have.
    """
    for row in FLAGS.only:
        if row not in FLAGS.rows:
            raise InputError(
                f"unknown row {row!r} of {table_title(FLAGS.table)}: expected one of "
                f"{', '.join(FLAGS.rows)}"
            )
    return FLAGS.only or FLAGS.rows


def scale_heading(paper: PaperTable, jobs: list[Job]) -> str:
    """Return the table's heading: its name and scale, and the changes of the paper's settings."""
    lines = [f"{table_title(paper.number)}, {FLAGS.dataset}, scale {FLAGS.scale}"]
    values = jobs[0].values
    restarts = _by_row([job.values.max_restarts for job in jobs], jobs)
    if restarts:
        restarts = f", at most {restarts} restarts"
    images = f"{_by_row([job.columns[0].images for job in jobs], jobs)} evaluation images"
    if values.num_images == "all":
        images = f"all {images} of the {dataset_spec(FLAGS.dataset).test_split} split"
    lines.append(
        f"{images}{restarts}, attacks crafted in "
        f"{jobs[0].columns[0].attack.dtype}; brackets: 95% Wilson interval"
    )
    if data := unverified_source(FLAGS.dataset, data_dir=FLAGS.data_dir):
        lines.append(f"data: {data}")
    by_change: dict[str, list[str]] = {}
    for job in jobs:
        as_printed = settings.row_flags(
            dataset=FLAGS.dataset, row=job.row, scale=None, flags_dir=FLAGS.flags_dir
        )
        changed = settings.changes(settings.recipe(as_printed), settings.recipe(job.values))
        by_change.setdefault(in_words(changed) or "the paper's settings", []).append(job.row)
    lines += [f"{', '.join(rows)}: {text}" for text, rows in by_change.items()]
    return "\n".join([lines[0], *(f"- {line}" for line in lines[1:])])


def _by_row(counts: list[int | None], jobs: list[Job]) -> str:
    """Describe a count of each row (None: no bound), with the rows if it differs; "": no bounds."""
    rows: dict[int | None, list[str]] = {}
    for count, job in zip(counts, jobs, strict=True):
        rows.setdefault(count, []).append(job.row)
    if len(rows) == 1:
        return str(counts[0] or "")
    return ", ".join(f"{count or 'all'} ({', '.join(names)})" for count, names in rows.items())


def compute_missing(paper: PaperTable, jobs: list[Job], execution: RowExecution) -> list[str]:
    """Compute what is missing, and print each row as it ends; return the rows that failed."""
    for job in jobs:
        if lacks_initial_model(job.values, job.run):
            print(
                f"{job.row}: skipped, since it is fine-tuned: expected "
                "--init_from=RUN_FOLDER_OR_MODEL, or a model imported by "
                f"{command('import_checkpoint')} with --run_dir={job.run.path}"
            )
    jobs = [job for job in jobs if not lacks_initial_model(job.values, job.run)]
    missing = {job.row: job for job in jobs if not row_of(paper, job).complete}
    clock = estimates.TimeLeft({}, execution.at_a_time)
    # GPUs that this process does not use cannot be timed.
    if missing and jobs[0].values.estimate and not FLAGS.gpus_per_task:
        todo = list(missing.values())
        clock = estimates.announce(todo, execution.compute.devices, at_a_time=execution.at_a_time)
    failed = []
    with (
        Display(clock.left) as display,
        contextlib.closing(run_rows(clock.order(missing), execution, display)) as all_ends,
    ):
        for ended in all_ends:
            row, job = ended.task.name, missing[ended.task.name]
            display.ended(row)
            clock.ended(row, ended.seconds)
            if ended.error is None:
                made = row_of(paper, job)
                beside = made.beside_long_run
                printed = is_papers(paper.number)
                display.print(
                    table_files.markdown_line(made, job.columns, long_run=beside, printed=printed)
                )
            else:
                failed.append(row)
                display.print(f"{row} failed: {ended.error}")
            display.print(f"({row}: {duration(ended.seconds)}; {clock.left()})")
    return failed


def run_rows(
    todo: list[Job], execution: RowExecution, display: Display
) -> Generator[tasks.Ended, None, None]:
    """Compute rows, several in parallel, and yield them as they end.

    A row that starts from the model of another one comes after it.
    """
    folders = {job.run.path.resolve() for job in todo}
    later = [
        job
        for job in todo
        if job.values.init_from and Path(job.values.init_from).resolve() in folders
    ]
    for several in ([job for job in todo if job not in later], later):
        if execution.compute.cluster is not None:
            yield from rows_on(execution.compute, several, display)
        else:
            yield from run_rows_here(several, execution, display)


# Modules that each row's process would otherwise import again, after the kernels are chosen.
_HEAVY = ("tensorflow", "alp_repro.training.train")


def run_rows_here(
    several: list[Job], execution: RowExecution, display: Display
) -> Iterator[tasks.Ended]:
    """Compute rows on this machine."""

    def report_status(task: tasks.Task, status: tasks.Status) -> None:
        display.report_status(task.name, status)

    def report_line(task: tasks.Task, text: str) -> None:
        display.print(f"{task.name}: {text}")

    chosen = execution.compute.devices
    if execution.at_a_time == 1:
        return tasks.run_here(
            [RowHere(job, chosen) for job in several], report_status=report_status
        )
    assert execution.threads is not None
    arguments = table_arguments(FLAGS)
    return tasks.run_in_processes(
        [RowTask(job.row, arguments, execution.threads) for job in several],
        jobs=execution.at_a_time,
        report_status=report_status,
        report_line=report_line,
        preload=None if chosen.gpu else (RowTask.__module__, *_HEAVY),
    )


def row_of(paper: PaperTable, job: Job) -> TableRow:
    """Return the row as far as it is on disk."""
    row = tables.table_row(paper, job.row, job.run, job.columns, wanted=result_query(job))
    return stored_tables.beside_long_run(row, job.columns, long_run(paper.number, job.scale))


def spread_of(paper: PaperTable) -> Spread | None:
    """Return how much the numbers vary between trainings, if --runs_dir has that."""
    if FLAGS.training_seed is not None or FLAGS.scale == spread.SCALE:
        return None
    return spread.spread_beside(Path(FLAGS.runs_dir), paper.number)


@functools.cache
def long_run(number: TableName, scale: str) -> StoredTable | None:
    """Return the published table, to stand beside that of any other scale."""
    found = stored_tables.shipped_table(number)
    return None if found is None or found.scale == scale else found


def cli() -> None:
    """Console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
