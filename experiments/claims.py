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

import numpy as np
from absl import flags

from alp_repro import files, runs
from alp_repro.errors import InputError
from alp_repro.evaluation.published import records_of
from alp_repro.reporting import claims, conditions, spread, stored_tables
from alp_repro.reporting.differences import Difference, Movement, differences, movement
from alp_repro.reporting.tables import TABLES, load_paper_table
from alp_repro.runs import RunDir

from . import app, settings
from .commands import table_command
from .deviations import training_changes

if TYPE_CHECKING:
    from alp_repro.reporting.stored_tables import StoredTable

# Settings of a training that make it another one than the paper's, not the same in other numbers.
LESS = (
    "epochs",
    "model_width",
    "train_nb_iter",
    "train_eps_iter",
    "attack_warmup_steps",
    "attack_warmup_nb_iter",
)

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
    seen = [evidence_of(tables, Path(FLAGS.runs_dir))]
    seen += further_seeds(Path(FLAGS.runs_dir), FLAGS.scale)
    less = reduced(tables, Path(FLAGS.runs_dir))
    judged = [claims.judge(claim, seen, less) for claim in claims.load_claims()]
    commands = {one.claim.name: commands_of(one.claim, FLAGS.scale[0]) for one in judged}
    out = Path(FLAGS.out_dir or FLAGS.runs_dir)
    differing = {
        number: found
        for number, table in tables.items()
        if (found := differing_of(table, Path(FLAGS.runs_dir)))
    }
    text = claims.to_markdown(judged, commands, costs(tables), differing)
    text += changed_code(tables, Path(FLAGS.runs_dir))
    described = [
        {**dataclasses.asdict(one), "at_papers_training": one.at_papers_training} for one in judged
    ]
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
    """Of each table the first scale's that has it, without numbers of models that are gone.

    Its columns are in the paper's order, by which claims name them, whatever grid it was made with.
    """
    found = {}
    for number in TABLES:
        for scale in scales:
            file = stored_tables.table_file(runs_dir / scale, number)
            if file.exists():
                models = runs_dir / scale / load_paper_table(number).dataset
                table = stored_tables.current(stored_tables.read_table(file), models)
                found[number] = stored_tables.in_papers_order(table)
                break
    return found


def evidence_of(tables: dict[int, StoredTable], runs_dir: Path) -> conditions.Evidence:
    """The tables with what stands, image by image, of each number whose result is there."""
    outcomes: dict[conditions.Number, np.ndarray] = {}
    for number, table in tables.items():
        models = runs_dir / table.scale / load_paper_table(number).dataset
        for row in table.rows:
            if row.clean.ours is not None and RunDir(models / row.row).finished:
                records = records_of(RunDir(models / row.row))
                for i, standing in stored_tables.outcomes(table, row, records).items():
                    outcomes[conditions.Number(table=number, row=row.row, column=i + 1)] = standing
    return conditions.Evidence(tables, outcomes)


def further_seeds(runs_dir: Path, scales: list[str]) -> list[conditions.Evidence]:
    """What trainings with other seeds say: <runs_dir>/<scale>/seed<n>/, n from 1."""
    found = []
    for scale in scales:
        for folder in sorted((runs_dir / scale).glob("seed[1-9]*")):
            tables = read_tables(runs_dir, [f"{scale}/{folder.name}"])
            tables = {
                number: dataclasses.replace(table, scale=f"{scale}/{folder.name}")
                for number, table in tables.items()
            }
            if tables:
                found.append(evidence_of(tables, runs_dir))
    return found


def reduced(tables: dict[int, StoredTable], runs_dir: Path) -> dict[tuple[int, str], str]:
    """What is less in the trainings of the tables' rows than in the paper's."""
    found = {}
    for number, table in tables.items():
        dataset = load_paper_table(number).dataset
        for row in table.rows:
            run = RunDir(runs_dir / table.scale / dataset / row.row)
            if run.finished:
                changes = training_changes(run, dataset, row.row, flags_dir=FLAGS.flags_dir)
                if any(f"{key} " in changes for key in LESS):
                    found[number, row.row] = changes
    return found


def commands_of(claim: conditions.Claim, scale: str) -> list[str]:
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


def changed_code(tables: dict[int, StoredTable], runs_dir: Path) -> str:
    """Which models were trained with code that no revision has, in words; "" for none."""
    found = []
    for number, table in tables.items():
        dataset = load_paper_table(number).dataset
        for row in table.rows:
            run = RunDir(runs_dir / table.scale / dataset / row.row)
            if run.finished:
                revision = str(files.read_json(run.recipe).get("revision", ""))
                if revision.endswith("+changes"):
                    found.append(f"- {dataset}/{row.row}: {revision}")
    if not found:
        return ""
    title = (
        f"\n## Provenance\n\n{len(found)} models were trained from a checkout with changes that "
    )
    return title + "were not committed:\n\n" + "\n".join(found) + "\n"


def cli() -> None:
    """Console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
