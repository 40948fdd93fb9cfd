"""Judges a table of ours of what came after the paper, as `claims` judges the paper's tables.

    python -m experiments.table --table=followups --scale=followups
    python -m experiments.followups --scale=followups

Reads <runs_dir>/<scale>/tables/<table>.json, checks it against the results of its rows, prints it,
and writes <table>_verdicts.md and .json beside it; --table=followups_cifar10 is that of CIFAR-10.
Further seeds lie in <runs_dir>/<scale>/seed<n>/, n from 1. Nothing is computed, and no model is
needed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from absl import flags

from alp_repro import files, runs
from alp_repro.data import dataset_spec
from alp_repro.errors import InputError
from alp_repro.reporting import claims, stored_tables
from alp_repro.reporting.conditions import Evidence, Number
from alp_repro.reporting.table_names import FOLLOWUPS, OURS, TableName
from alp_repro.reporting.tables import load_paper_table

from .console import app
from .console.commands import table_command
from .evidence.claim_evidence import outcomes_of
from .flags import settings

FLAGS = flags.FLAGS
flags.DEFINE_string("runs_dir", "runs", "Folder of all runs.")
flags.DEFINE_enum("table", FOLLOWUPS, OURS, "Which table.")
flags.DEFINE_enum("scale", FOLLOWUPS, settings.SCALES, "Which scale's results.")

# The rule's words are those of a paper's claim; here nothing is reproduced.
_WORDS = {"reproduced": "holds", "not": "does not hold"}
_RULE = (
    "Each row has had the same CPU time of training, unless its name says otherwise. Verdicts "
    "follow from the conditions by a rule; none is written by hand. holds: every condition does; "
    "does not hold: none does and one or more fail; partly: some hold, "
    "others fail, are undecided or are not tested; undecided: none holds, none fails, and more "
    "images would tell; not yet tested: nothing is there that bears on it. Numbers of the same "
    "images are compared image by image."
)


def main(_: list[str]) -> None:
    """Write the verdicts, and print the table and the verdicts."""
    folder = Path(FLAGS.runs_dir) / FLAGS.scale
    places = [folder, *sorted(folder.glob(f"{settings.SEED_FOLDER}[1-9]*"))]
    name = FLAGS.table
    stored = [place for place in places if stored_tables.table_file(place, name).exists()]
    found = [evidence_of(place, name) for place in stored]
    if not found:
        raise InputError(
            f"{folder} has no table {name}: make it with {table_command(name, FLAGS.scale)}"
        )
    judged = [claims.judge(claim, found) for claim in claims.load_claims(name)]
    print(stored_tables.table_file(folder, name).with_suffix(".md").read_text(encoding="utf-8"))
    for one in judged:
        print(f"{one.claim.name}: {in_words(one)}")
    out = folder / "tables" / f"{name}_verdicts"
    # The revision is that of before its files are written.
    content = {"claims": [dataclasses.asdict(one) for one in judged], **runs.provenance()}
    files.write_text(out.with_suffix(".md"), to_markdown(judged, name))
    if not runs.is_stored(out.with_suffix(".json"), content):
        files.write_json(out.with_suffix(".json"), content)
    print(f"written: {out}.md, .json")


def evidence_of(folder: Path, name: TableName) -> Evidence:
    """Return a table's evidence of the trainings of one seed.

    Raises:
      InputError: a number of the table is not that of its results.
    """
    table = stored_tables.read_table(stored_tables.table_file(folder, name))
    models = folder / load_paper_table(name).dataset
    stored_tables.check_supported(table, models)
    table = stored_tables.in_papers_order(table)
    outcomes: dict[Number, np.ndarray] = {}
    for row, run in stored_tables.described_rows(table, models):
        outcomes |= outcomes_of(table, row, run)
    return Evidence({name: table}, outcomes)


def in_words(one: claims.Judged) -> str:
    """Return the verdict in words."""
    return _WORDS.get(one.verdict, one.verdict)


def to_markdown(judged: list[claims.Judged], name: TableName) -> str:
    """Return all verdicts on a table with what they rest on."""
    dataset = dataset_spec(load_paper_table(name).dataset).title
    lines = [f"# What came after the paper, at equal CPU time, on {dataset}: verdicts"]
    lines += ["", _RULE, ""]
    lines += ["| claim | verdict |", "| --- | --- |"]
    lines += [f"| {one.claim.claim} | **{in_words(one)}** |" for one in judged]
    for one in judged:
        lines += ["", f"## {one.claim.name}: {in_words(one)}", "", one.claim.claim, ""]
        lines += [f"Source: {one.claim.source}. Refuted if: {one.claim.refuted}", ""]
        lines += claims.tested_lines(one)
    return "\n".join(lines) + "\n"


def cli() -> None:
    """Run the console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
