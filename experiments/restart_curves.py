"""Draws adversarial accuracy by restarts for all rows of a table, or their training curves.

    python -m experiments.restart_curves --flagfile=flags/tables/table1.cfg --scale=quick
    python -m experiments.restart_curves --flagfile=flags/tables/table1.cfg --training

Nothing is attacked or trained: the figure shows the results of `experiments.table`, where they
exist.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from absl import flags

from alp_repro.data import dataset_spec
from alp_repro.errors import InputError
from alp_repro.reporting import figures, results
from alp_repro.training.log import read_log

from .console import app
from .evidence.figure_list import missing_row
from .flags import settings
from .running import figure_run
from .running.rows import make_job, result_query

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from alp_repro.evaluation import AttackRecord
    from alp_repro.reporting.report import Missing
    from alp_repro.runs import RunDir

FLAGS = flags.FLAGS
figure_run.define_flags()
flags.DEFINE_boolean("training", False, "Draw training curves instead.")


def main(_: list[str]) -> None:
    """Draw the existing results of --rows."""
    settings.fill_in_table()
    found, missing = figure_run.finished_runs(FLAGS.rows)
    if FLAGS.training:
        logs = {figure_run.title(row): read_log(run.log) for row, run in found.items()}
        figure: Figure = figures.training_curves(logs)
        caption = (
            f"{', '.join(logs)} on {figure_run.data_and_scale()}: accuracy on the training batches "
            "(clean, and on the adversarial images of the training attack) and the weighted terms "
            "of the loss, means over each epoch; accuracy on test images, clean and attacked, "
            f"where the training measured them.{_of_averages()}"
        )
    else:
        figure, caption = _restarts(found, missing)
    kind = "training" if FLAGS.training else "restarts"
    figure_run.finish(
        figure, name=f"{kind}_{FLAGS.dataset}", caption=caption, drawn=found, missing=missing
    )


def _of_averages() -> str:
    """Explain the distance of the two clean accuracies by batch norm; "" if there is none."""
    if dataset_spec(FLAGS.dataset).model == "lenet":  # it has no batch norm
        return ""
    return (
        " In training accuracies, batch norm uses the statistics of each batch; in test "
        "accuracies, its moving averages, which lag behind the weights by some thousand steps."
    )


def _restarts(found: dict[str, RunDir], missing: list[Missing]) -> tuple[Figure, str]:
    """Draw the curves of the last column's attack; rows without its result move to `missing`."""
    records: dict[str, AttackRecord] = {}
    most = 1
    for row in list(found):
        job = make_job(FLAGS, row)
        attack = [column for column in job.columns if not column.ours_only][-1].attack
        result = results.find_result(job.run, attack, result_query(job))
        problem = results.run_problem(job.run, settings.recipe(job.values)) or result.problem
        if problem or result.record is None:
            what = "the attack's result" + (f" ({problem})" if problem else "")
            missing.append(missing_row(job.run, what))
            del found[row]
        else:
            records[figure_run.title(row)] = result.record
            most = max(most, attack.restarts)
    if not records:
        raise InputError("; ".join(map(str, missing)))
    n = len(next(iter(records.values())).labels)
    caption = (
        f"{', '.join(records)} on {figure_run.data_and_scale()}: adversarial accuracy of "
        f"{n} evaluation images after the first r restarts of "
        f"{figure_run.in_words(dataclasses.replace(attack, restarts=most))}; each curve ends with "
        "its row's restarts; bands: 95% Wilson intervals."
    )
    return figures.restart_curves(records, restarts=most), caption


def cli() -> None:
    """Run the console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
