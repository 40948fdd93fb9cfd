"""Computes mean and range of a table's numbers over trainings that differ in their seed.

    python -m experiments.table --table=1 --scale=seeds --only=clp,lsq --training_seed=1
    python -m experiments.seeds --table=1 --scale=seeds

Reads <runs_dir>/<scale>/seed<n>/tables/ and writes <runs_dir>/<scale>/tables/table<n>_seeds.md,
.csv and .json. Nothing is trained or attacked.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from alp_repro import files, runs
from alp_repro.errors import InputError
from alp_repro.reporting import spread, stored_tables
from alp_repro.reporting.spread import Spread, SpreadRow
from alp_repro.reporting.table_names import TableName, table_title
from alp_repro.reporting.tables import load_paper_table
from alp_repro.runs import RunDir

from .console import app
from .console.commands import table_command
from .flags import settings

if TYPE_CHECKING:
    from alp_repro.reporting.stored_tables import StoredTable

FLAGS = flags.FLAGS
flags.DEFINE_string("runs_dir", "runs", "Folder of all runs.")
settings.define_table()
flags.DEFINE_enum("scale", "seeds", settings.SCALES, "Scale of the results.")


def main(_: list[str]) -> None:
    """Write the summary and print it."""
    folder = Path(FLAGS.runs_dir) / FLAGS.scale
    tables = tables_by_seed(folder)
    if not tables:
        raise InputError(
            f"{folder} has no table {FLAGS.table} of any seed: make one for each seed with "
            f"{table_command(FLAGS.table, FLAGS.scale)} --training_seed=0 (then 1, 2, …)"
        )
    found = summary(folder, tables)
    file = spread.spread_file(folder, FLAGS.table)
    text = spread.to_markdown(found)
    content = dataclasses.asdict(found)
    if not runs.is_stored(file, content):
        files.write_text(file.with_suffix(".md"), text)
        files.write_text(file.with_suffix(".csv"), spread.to_csv(found))
        files.write_json(file, content)
    print(f"{text}\nwritten: {file.with_suffix('')}.md, .csv, .json")


def tables_by_seed(folder: Path) -> dict[int, StoredTable]:
    """Return the tables of --table in a scale's folder by their seed."""
    found = {}
    for place in folder.glob(f"{settings.SEED_FOLDER}*"):
        seed = place.name[len(settings.SEED_FOLDER) :]
        file = stored_tables.table_file(place, FLAGS.table)
        if seed.isdecimal() and file.exists():
            table = stored_tables.read_table(file)
            models = place / load_paper_table(table.table).dataset
            stored_tables.check_supported(table, models)
            found[int(seed)] = table
    return found


def summary(folder: Path, tables: dict[int, StoredTable]) -> Spread:
    """Return the mean and range of the tables' numbers over their seeds."""
    rows = spread.spread_rows(tables)
    one = tables[min(tables)]
    seeds, images = ", ".join(map(str, sorted(tables))), one.columns[0].images
    return Spread(
        table=one.table,
        scale=one.scale,
        heading=(
            f"{table_title(one.table)}, scale {one.scale}: trainings with seeds {seeds}, each "
            f"attacked on {images} images"
        ),
        columns=("clean", *(column.title for column in one.columns)),
        rows=tuple(
            dataclasses.replace(row, epochs=epochs_of(folder, one.table, row)) for row in rows
        ),
        **{key: runs.provenance()[key] for key in ("date", "revision")},
    )


def epochs_of(folder: Path, table: TableName, row: SpreadRow) -> int | None:
    """Return the epochs of a row's trainings, from the first one's recipe."""
    runs_dir = folder / f"{settings.SEED_FOLDER}{row.seeds[0]}" / load_paper_table(table).dataset
    description = runs.describe(RunDir(runs_dir / row.row))
    return (description.recipe or {}).get("epochs")


def cli() -> None:
    """Run the console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
