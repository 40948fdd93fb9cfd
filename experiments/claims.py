"""The paper's claims and what the tables of one or several scales say of each.

    python -m experiments.claims --scale=published
    python -m experiments.claims --scale=published,quick

Reads <runs_dir>/<scale>/tables/, of each table the first scale that has it, and writes claims.md
and claims.json to --out_dir. Nothing is computed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from absl import flags

from alp_repro import files, runs
from alp_repro.errors import InputError
from alp_repro.reporting import claims, stored_tables
from alp_repro.reporting.stored_tables import StoredTable
from alp_repro.reporting.tables import TABLES, load_paper_table

from . import app
from .commands import table_command

FLAGS = flags.FLAGS
flags.DEFINE_string("runs_dir", "runs", "Folder of all runs.")
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
    text = claims.to_markdown(judged, commands, costs(tables))
    described = [dataclasses.asdict(one) for one in judged]
    files.write_text(out / "claims.md", text)
    content = {"claims": described, **runs.provenance()}
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
