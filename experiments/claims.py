"""The paper's claims and what the tables of one or several scales say of each.

    python -m experiments.claims --scale=published
    python -m experiments.claims --scale=published,quick

Reads <runs_dir>/<scale>/tables/, of each table the first scale that has it, and writes claims.md
and claims.json to --out_dir. Nothing is computed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from alp_repro import files, runs
from alp_repro.errors import InputError
from alp_repro.reporting import claims, spread, stored_tables
from alp_repro.reporting.differences import Difference, Movement, differences, movement
from alp_repro.reporting.tables import TABLES, load_paper_table
from alp_repro.runs import RunDir

from . import app, settings
from .commands import table_command
from .deviations import training_changes

if TYPE_CHECKING:
    from alp_repro.reporting.stored_tables import StoredTable

FLAGS = flags.FLAGS
flags.DEFINE_string("runs_dir", "runs", "Folder of all runs.")
flags.DEFINE_string(
    "flags_dir", str(settings.default_flags_dir()), "Folder of the rows' flagfiles."
)
flags.DEFINE_list("scale", ["published"], "Scales whose tables are read, the best first.")
flags.DEFINE_string("out_dir", None, "Folder of the two files (default: --runs_dir).")


def main(_: list[str]) -> None:
    """Writes the verdicts and prints them."""
    if not FLAGS.scale:
        raise InputError("--scale: name one or more, as in --scale=published")
    tables = read_tables(Path(FLAGS.runs_dir), FLAGS.scale)
    judged = [claims.judge(claim, tables) for claim in claims.load_claims()]
    commands = {one.claim.name: commands_of(one.claim, FLAGS.scale[0]) for one in judged}
    out = Path(FLAGS.out_dir or FLAGS.runs_dir)
    differing = {
        number: found
        for number, table in tables.items()
        if (found := differing_of(table, Path(FLAGS.runs_dir)))
    }
    text = claims.to_markdown(judged, commands, costs(tables), differing)
    described = [dataclasses.asdict(one) for one in judged]
    files.write_text(out / "claims.md", text)
    content = {
        "claims": described,
        "differences": {
            str(number): [dataclasses.asdict(one) for one in found]
            for number, found in differing.items()
        },
        **runs.provenance(),
    }
    if not runs.is_kept(out / "claims.json", content):
        files.write_json(out / "claims.json", content)
    for one in judged:
        print(f"{one.claim.name}: {one.verdict}")
    print(f"written: {out}/claims.md, .json")


def read_tables(runs_dir: Path, scales: list[str]) -> dict[int, StoredTable]:
    """Of each table the first scale's that has it, without numbers of models that are gone."""
    found = {}
    for number in TABLES:
        for scale in scales:
            file = stored_tables.table_file(runs_dir / scale, number)
            if file.exists():
                models = runs_dir / scale / load_paper_table(number).dataset
                found[number] = stored_tables.current(stored_tables.read_table(file), models)
                break
    return found


def commands_of(claim: claims.Claim, scale: str) -> list[str]:
    """What makes the rows that a claim needs."""
    return [
        f"{table_command(table, scale)} --only={','.join(rows)}"
        for table, rows in claim.rows.items()
    ]


def differing_of(table: StoredTable, runs_dir: Path) -> list[Difference]:
    """Where a table differs from the paper's, with what its runs say that may explain it."""
    dataset = load_paper_table(table.table).dataset
    changes: dict[str, str] = {}
    movements: dict[tuple[str, int], Movement] = {}
    for row in table.rows:
        run = RunDir(runs_dir / table.scale / dataset / row.row)
        if not run.finished:
            continue
        changes[row.row] = training_changes(run, dataset, row.row, flags_dir=FLAGS.flags_dir)
        moved = movement(run.log) if run.log.exists() else None
        column = watched_column(table, row.row, dataset)
        if moved is not None and column is not None:
            movements[row.row, column] = moved
    beside = spread.spread_beside(runs_dir, table.table)
    return differences(table, changes=changes, movements=movements, spread=beside)


def watched_column(table: StoredTable, row: str, dataset: str) -> int | None:
    """The column, from 0, whose attack the trainings of a scale watch; None: no column's."""
    values = settings.row_flags(
        dataset=dataset, row=row, scale=table.scale, flags_dir=FLAGS.flags_dir
    )
    if values.watch_every is None:
        return None
    watched = settings.watch_attack(values)
    for i, column in enumerate(table.columns):
        if stored_tables.same_attack(watched.to_json(), column.attack):
            return i
    return None


def costs(tables: dict[int, StoredTable]) -> list[str]:
    """What the rows of the tables cost, a line each."""
    return [
        f"Table {number}, {row.label}, scale {table.scale}: {row.cost}"
        for number, table in tables.items()
        for row in table.rows
        if row.cost is not None
    ]


def cli() -> None:
    """Console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
