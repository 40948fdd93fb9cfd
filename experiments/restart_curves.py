"""Adversarial accuracy against restarts for all rows of a table; with --training, their training.

    python -m experiments.restart_curves --flagfile=flags/tables/table1.cfg --scale=quick
    python -m experiments.restart_curves --flagfile=flags/tables/table1.cfg --training

Nothing is attacked or trained: the results of `experiments.table` are drawn, as far as they go.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from absl import flags
from matplotlib.figure import Figure

from alp_repro.errors import InputError
from alp_repro.evaluation import AttackRecord
from alp_repro.reporting import figures, report, results, tables
from alp_repro.training.log import read_log

from . import app, settings
from .evaluation_run import data_and_scale
from .table import make_job, wanted_of

FLAGS = flags.FLAGS
_TRAINING = flags.DEFINE_boolean("training", False, "Draw the training curves.")
_NAME = flags.DEFINE_string("name", None, "Name of the figure (default: from what it shows).")


def main(_: list[str]) -> None:
    """Draws what is there of --rows."""
    settings.fill_in_table()
    found, missing = report.finished_runs(
        Path(FLAGS.runs_dir) / FLAGS.scale / FLAGS.dataset, FLAGS.rows
    )
    labels = {row.row: row.label for row in tables.load_paper_table(FLAGS.table).rows}
    titles = {row: report.short_label(labels.get(row, row)) for row in found}
    if _TRAINING.value:
        logs = {titles[r]: read_log(run.log) for r, run in found.items()}
        figure: Figure = figures.training_curves(logs)
        where = data_and_scale(FLAGS)
        caption = (
            f"{', '.join(logs)} on {where}: accuracy on the training "
            "batches (clean, and on the adversarial images of the training attack) and the "
            "weighted terms of the loss, means over each epoch."
        )
    else:
        figure, caption = _restarts(titles, missing)
    kind = "training" if _TRAINING.value else "restarts"
    path = figures.save_figure(
        figure, Path(FLAGS.runs_dir) / FLAGS.scale / "figures",
        _NAME.value or f"{kind}_{FLAGS.dataset}", caption=caption,
        details={"scale": FLAGS.scale, "missing": [dataclasses.asdict(part) for part in missing]},
    )  # fmt: skip
    for part in missing:
        print(part, file=sys.stderr)
    print(f"written: {path} and .pdf")


def _restarts(titles: dict[str, str], missing: list[report.Missing]) -> tuple[Figure, str]:
    """The curves of the last column's attack; rows without its result are added to `missing`."""
    records: dict[str, AttackRecord] = {}
    for row, title in titles.items():
        job = make_job(row)
        attack = [column for column in job.columns if not column.ours_only][-1].attack
        found = results.find_result(job.run, attack, wanted_of(job))
        problem = results.run_problem(job.run, settings.recipe(job.values)) or found.problem
        if problem or found.record is None:
            what = "the attack's result" + (f" ({problem})" if problem else "")
            missing.append(report.missing_row(job.run, what))
        else:
            records[title] = found.record
    if not records:
        raise InputError("; ".join(map(str, missing)))
    n = len(next(iter(records.values())).labels)
    where = data_and_scale(FLAGS)
    caption = (
        f"{', '.join(records)} on {where}: adversarial accuracy of "
        f"{n} evaluation images after the first r of {attack.restarts} restarts of "
        f"{attack} (0–255 scale); bands: 95% Wilson intervals."
    )
    return figures.restart_curves(records, restarts=attack.restarts), caption


def cli() -> None:
    """Console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
