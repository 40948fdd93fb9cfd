"""One of the paper's tables: trains and evaluates what is missing, prints ours beside the paper's.

    python -m experiments.table --table=1 --scale=quick
    python -m experiments.table --table=1 --scale=quick --only=clp,lsq
    python -m experiments.table --table=1 --scale=quick --show

Each row is printed as soon as it is known; the whole table is written as Markdown, CSV and JSON to
<runs_dir>/<scale>/tables/. It can be stopped at any time and started again.
"""

from __future__ import annotations

import time
from pathlib import Path

import keras
from absl import flags

from alp_repro import files, runs
from alp_repro.data import unverified_source
from alp_repro.errors import InputError
from alp_repro.reporting import table_files, tables
from alp_repro.reporting.tables import PaperTable, TableRow

from . import app, devices, estimates, settings
from .devices import Devices
from .evaluation_run import attack_run
from .rows import Job, make_job, table_of, wanted_of
from .training_run import lacks_start, train_row

FLAGS = flags.FLAGS
settings.define_table_flags()
devices.define_flags()


def main(_: list[str]) -> None:
    """Makes, or with --show only prints, the table of --table at --scale."""
    settings.fill_in_table()
    paper = table_of(FLAGS)
    chosen = None if FLAGS.show else devices.choose()  # before anything touches a device
    jobs = [make_job(FLAGS, row) for row in FLAGS.rows]
    wanted = chosen_rows()
    heading = scale_heading(paper, jobs)
    print(heading, flush=True)
    if chosen is not None:
        make(paper, [job for job in jobs if job.row in wanted], chosen)
    rows = [row_of(paper, job) for job in jobs]
    text = table_files.to_markdown(rows, jobs[0].columns, heading=heading)
    try:
        written = write(paper, rows, jobs)
    except InputError as error:
        if not FLAGS.show:
            raise
        written = f"not written: {error}"  # showing is reading, which needs no writable folder
    print(f"\n{text}\n{written}")


def write(paper: PaperTable, rows: list[TableRow], jobs: list[Job]) -> str:
    """Writes the table's files; what to tell of it."""
    folder = Path(FLAGS.runs_dir) / FLAGS.scale / "tables"
    wanted = wanted_of(jobs[0])
    details = {
        "table": paper.number,
        "scale": FLAGS.scale,
        "images": wanted.digest(wanted.num_images),
        **runs.provenance(),
    }
    table_files.write_table(
        folder,
        f"table{paper.number}",
        rows,
        jobs[0].columns,
        heading=scale_heading(paper, jobs),
        details=details,
    )
    return f"written: {folder}/table{paper.number}.md, .csv, .json"


def chosen_rows() -> list[str]:
    """The rows to work on: --only, or all.

    Raises:
      InputError: --only names a row that the table has not.
    """
    for row in FLAGS.only:
        if row not in FLAGS.rows:
            raise InputError(
                f"unknown row {row!r}: table {FLAGS.table} has {', '.join(FLAGS.rows)}"
            )
    return FLAGS.only or FLAGS.rows


def scale_heading(paper: PaperTable, jobs: list[Job]) -> str:
    """The table's name and scale, and below it what the scale changes of the paper's settings."""
    lines = [f"Table {paper.number}, {FLAGS.dataset}, scale {FLAGS.scale}"]
    values = jobs[0].values
    restarts = f", at most {values.max_restarts} restarts" if values.max_restarts else ""
    lines.append(
        f"{values.num_images} evaluation images{restarts}, attacks crafted in "
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
        text = ", ".join(
            f"{key} {after} (paper {'full' if before is None else before})"
            for key, (before, after) in changed.items()
        )
        by_change.setdefault(text or "the paper's settings", []).append(job.row)
    lines += [f"{', '.join(rows)}: {text}" for text, rows in by_change.items()]
    return "\n".join([lines[0], *(f"- {line}" for line in lines[1:])])


def make(paper: PaperTable, jobs: list[Job], chosen: Devices) -> None:
    """Trains and attacks what is missing, row by row."""
    for job in jobs:
        if lacks_start(job.values, job.run):
            print(
                f"{job.row}: left out; it is fine-tuned, from --init_from=RUN_FOLDER_OR_MODEL, "
                f"or imported by experiments.import_checkpoint into --run_dir={job.run.path}"
            )
    jobs = [job for job in jobs if not lacks_start(job.values, job.run)]
    if all(row_of(paper, job).complete for job in jobs):
        return
    if jobs[0].values.estimate:
        estimates.tell([(job.values, job.columns) for job in jobs if not job.run.finished], chosen)
    for job in jobs:
        if not row_of(paper, job).complete:
            started = time.monotonic()
            make_row(job, chosen)
            row = row_of(paper, job)
            print(table_files.markdown_line(row, job.columns), flush=True)
            print(f"({job.row}: {(time.monotonic() - started) / 60:.1f} minutes)", flush=True)
            keras.backend.clear_session()


def make_row(job: Job, chosen: Devices) -> None:
    """Trains the row's model unless it is there, and runs the attacks that are not."""
    details = {"scale": FLAGS.scale}
    if not job.run.finished:
        print(f"\n{job.row}: training", flush=True)
    model = (
        runs.load_model(job.run.model)
        if is_imported(job.run)
        else train_row(job.values, chosen, details=details)
    )
    for column in job.columns:
        attack_run(job.values, job.run, model, column.attack, chosen, details=details)


def is_imported(run: runs.RunDir) -> bool:
    """Whether the run came from a published checkpoint rather than from a recipe."""
    return run.finished and "imported" in files.read_json(run.recipe)


def row_of(paper: PaperTable, job: Job) -> TableRow:
    """The row as far as it is on disk."""
    return tables.table_row(paper, job.row, job.run, job.columns, wanted=wanted_of(job))


def cli() -> None:
    """Console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
