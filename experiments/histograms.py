"""Draws histograms of the final losses of PGD's restarts (Figures 2 and 7).

    python -m experiments.histograms --flagfile=flags/tables/table1.cfg --rows=clp
    python -m experiments.histograms --flagfile=flags/tables/table1.cfg --rows=clp --cases

The attack is the last column of --grid, with the loss of every restart recorded; only what is not
on disk is computed. Both figures use the same result.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from absl import flags

from alp_repro import runs
from alp_repro.errors import InputError
from alp_repro.reporting import figures

from .console import app
from .flags import settings
from .running import devices, figure_run
from .running.evaluation_run import attack_run
from .running.rows import make_job

if TYPE_CHECKING:
    from alp_repro.attacks import Attack, Ensemble
    from alp_repro.evaluation import AttackRecord
    from alp_repro.runs import RunDir

FLAGS = flags.FLAGS
figure_run.define_flags()
flags.DEFINE_integer("panels", 16, "Number of images to show, from the first.")
flags.DEFINE_boolean("cases", False, "Show four typical images instead (Figure 2).")


def define_scale_flags(values: flags.FlagValues = FLAGS) -> None:
    """Define the flags that flags/scale/<scale>/figures/histograms.cfg sets."""
    flags.DEFINE_string(
        "images",
        None,
        "Positions in the test set of the images to attack, as in 0-31.",
        flag_values=values,
    )
    flags.DEFINE_integer("restarts", None, "Restarts for each image.", flag_values=values)


define_scale_flags()


def main(_: list[str]) -> None:
    """Attack the model of --rows, as far as needed, and draw the figure."""
    settings.fill_in_table()
    figure_run.fill_in_scale("histograms", define_scale_flags)
    if len(FLAGS.rows) != 1:
        raise InputError(f"--rows={','.join(FLAGS.rows)}: expected one row, as in --rows=clp")
    (row,) = FLAGS.rows
    positions = figures.parse_positions(FLAGS.images)
    if FLAGS.panels < 1:
        raise InputError(f"--panels={FLAGS.panels}: expected at least 1")
    job = make_job(FLAGS, row)
    chosen = devices.choose()  # before anything touches a device
    run = figure_run.finished_runs([row])[0][row]
    attack = dataclasses.replace(job.columns[-1].attack, restarts=FLAGS.restarts)
    data = figure_run.test_images(positions)
    record = attack_run(
        job.values,
        run,
        runs.load_model(run.model),
        attack,
        chosen,
        data=data,
        record_losses=True,
        details={"scale": FLAGS.scale},
    )
    _draw(row, run, record, attack)


def _draw(row: str, run: RunDir, record: AttackRecord, attack: Attack | Ensemble) -> None:
    losses, broken = figures.recorded_losses(record, attack.restarts)
    names = [f"image {i}, class {c}" for i, c in zip(record.indices, record.labels, strict=True)]
    if FLAGS.cases:
        cases = figures.typical_cases(losses, broken)
        chosen, kind, rule = list(cases.values()), "cases", _rule(set(cases), record)
        of = f"of {attack.restarts}"
        titles = [f"{case} ({of}):\n{names[i]}" for case, i in cases.items()]
    else:
        chosen, kind, rule = list(range(min(FLAGS.panels, len(losses)))), "histograms", ""
        titles = [names[i] for i in chosen]
    worst = record.accuracy_at(attack.restarts)
    mean = record.mean_accuracy(attack.restarts)
    caption = (
        f"{figure_run.title(row)} on {figure_run.data_and_scale()}: the cross-entropy "
        f"at which restarts of {figure_run.in_words(attack)} end, for each of {len(chosen)} "
        "test images. Red line: −ln 0.1, where the true class has probability 0.1, so that right "
        "of it another class is ahead. Above each panel: the shares of the restarts that end right "
        f"of the line and that break the image.{rule} Adversarial accuracy on all "
        f"{len(record.labels)} images attacked: {mean:.1%} in the mean over restarts, {worst:.1%} "
        "in the worst case."
    )
    figure_run.finish(
        figures.loss_histograms(losses[chosen], titles, broken=broken[chosen]),
        name=f"{kind}_{FLAGS.dataset}_{row}",
        caption=caption,
        drawn={row: run},
        missing=[],
    )


def _rule(found: set[str], record: AttackRecord) -> str:
    """Describe how the typical cases were chosen, and which of them no image shows."""
    kinds = "; ".join(f"{case}: {what}" for case, what in figures.CASES.items())
    absent = [case for case in figures.CASES if case not in found]
    return (
        f" Each panel shows the first of images {record.indices[0]}–{record.indices[-1]} of its "
        f"kind that has restarts on both sides of the line, or else the first of its kind; {kinds}."
        + (f" No image is of the kind: {', '.join(absent)}." if absent else "")
    )


def cli() -> None:
    """Run the console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
