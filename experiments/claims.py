"""Judges the paper's claims by the tables of one or several scales.

    python -m experiments.claims --scale=published
    python -m experiments.claims --scale=published,quick

Reads each table from <runs_dir>/<scale>/tables/ of the first scale that has it, and writes
claims.md and claims.json to --out_dir. Nothing is trained or attacked.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from alp_repro import files, runs
from alp_repro.errors import InputError
from alp_repro.reporting import claims, conditions, spread, stored_tables
from alp_repro.reporting.differences import Difference, Movement, differences, movement
from alp_repro.reporting.tables import load_paper_table

from .console import app
from .console.commands import table_command
from .evidence import figure_list
from .evidence.claim_evidence import column_records, finished_rows, judge_all
from .evidence.deviations import ARITHMETIC, in_words, training_changes
from .flags import settings

if TYPE_CHECKING:
    from alp_repro.evaluation import AttackRecord
    from alp_repro.reporting.stored_tables import StoredTable
    from alp_repro.reporting.table_names import TableName

FLAGS = flags.FLAGS
flags.DEFINE_string("runs_dir", "runs", "Folder of all runs.")
flags.DEFINE_string("flags_dir", str(settings.default_flags_dir()), "Folder of the flagfiles.")
flags.DEFINE_list("scale", ["published"], "Scales to read tables from, the best first.")
flags.DEFINE_string("out_dir", None, "Folder of the two files (default: --runs_dir).")


def main(_: list[str]) -> None:
    """Write the verdicts and print them."""
    if not FLAGS.scale:
        raise InputError("--scale: expected at least one scale, as in --scale=published")
    runs_dir = Path(FLAGS.runs_dir)
    judged, tables = judge_all(runs_dir, FLAGS.scale, flags_dir=FLAGS.flags_dir)
    commands = {one.claim.name: commands_of(one.claim, FLAGS.scale[0]) for one in judged}
    out = Path(FLAGS.out_dir or FLAGS.runs_dir)
    differing = {
        number: found
        for number, table in tables.items()
        if (found := differing_of(table, runs_dir))
    }
    text = claims.to_markdown(judged, commands, costs(tables), differing)
    text += changed_code(tables, runs_dir)
    described = [
        {**dataclasses.asdict(one), "at_papers_training": one.at_papers_training} for one in judged
    ]
    content = {
        "claims": described,
        "differences": {
            str(number): [dataclasses.asdict(one) for one in found]
            for number, found in differing.items()
        },
        **runs.provenance(),  # before a file of the checkout changes
    }
    files.write_text(out / "claims.md", text)
    if not runs.is_stored(out / "claims.json", content):
        files.write_json(out / "claims.json", content)
    for one in judged:
        print(f"{one.claim.name}: {one.verdict}")
    print(f"written: {out}/claims.md, .json")


def commands_of(claim: conditions.Claim, scale: str) -> list[str]:
    """Return the commands that make the rows and the figure that a claim needs."""
    figures = [spec for spec in figure_list.FIGURES if spec.name == claim.figure]
    tables = [
        f"{table_command(table, scale)} --only={','.join(rows)}"
        for table, rows in claim.rows.items()
    ]
    return tables + [spec.command(scale) for spec in figures]


def differing_of(table: StoredTable, runs_dir: Path) -> list[Difference]:
    """Return where a table differs from the paper's, with facts that may explain it."""
    dataset = load_paper_table(table.table).dataset
    changes: dict[str, str] = {}
    movements: dict[tuple[str, int], Movement] = {}
    records: dict[tuple[str, int], AttackRecord] = {}
    for row, run in finished_rows(table, runs_dir):
        changed = training_changes(run, dataset, row.row, flags_dir=FLAGS.flags_dir)
        # The arithmetic, which may change a number either way, is described above all of them.
        changes[row.row] = in_words(changed, leaving_out=ARITHMETIC)
        for i, record in column_records(table, row, run).items():
            records[row.row, i] = record
        moved = movement(run.log) if run.log.exists() else None
        column = watched_column(table, row.row, dataset)
        if moved is not None and column is not None:
            movements[row.row, column] = moved
    beside = spread.spread_beside(runs_dir, table.table)
    return differences(table, changes=changes, movements=movements, records=records, spread=beside)


def watched_column(table: StoredTable, row: str, dataset: str) -> int | None:
    """Return the column, from 0, of the attack that a scale's trainings watch; None: no column."""
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


def costs(tables: dict[TableName, StoredTable]) -> list[str]:
    """Return a line for each row of the tables with its cost."""
    return [
        f"Table {number}, {row.label}, scale {table.scale}: {row.cost}"
        for number, table in tables.items()
        for row in table.rows
        if row.cost is not None
    ]


def changed_code(tables: dict[TableName, StoredTable], runs_dir: Path) -> str:
    """Describe which models were trained with uncommitted code; "" for none."""
    found = []
    for number, table in tables.items():
        for row, run in finished_rows(table, runs_dir):
            revision = str(files.read_json(run.recipe).get("revision", ""))
            if revision.endswith("+changes"):
                found.append(f"- {load_paper_table(number).dataset}/{row.row}: {revision}")
    if not found:
        return ""
    title = f"\n## Provenance\n\n{len(found)} models were trained with uncommitted changes:\n\n"
    return title + "\n".join(found) + "\n"


def cli() -> None:
    """Run the console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
