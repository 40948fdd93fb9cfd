"""Draws heat maps: adversarial accuracy by step size and iterations, one panel for each model.

    python -m experiments.heat_maps --flagfile=flags/tables/table1.cfg --rows=at100,lsq,clp

A map is stored with its model, column by column, and not computed again; Ctrl-C loses at most one
column. Sizes are on the 0-255 scale.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from alp_repro import runs
from alp_repro.attacks import PGD
from alp_repro.errors import InputError
from alp_repro.reporting import figures

from .console import app
from .console.display import duration
from .flags import settings
from .flags.definitions import define_num_images
from .running import cluster_run, figure_run
from .running.cluster_run import Compute, computing
from .running.evaluation_run import evaluation_set
from .running.rows import Job, make_job

if TYPE_CHECKING:
    from alp_repro.evaluation.heat_maps import HeatMap
    from alp_repro.runs import RunDir

FLAGS = flags.FLAGS
figure_run.define_flags()
cluster_run.define_flags()
flags.DEFINE_integer("restarts", 1, "Restarts of each attack.")


def define_scale_flags(values: flags.FlagValues = FLAGS) -> None:
    """Define the flags that flags/scale/<scale>/figures/heat_maps.cfg sets."""
    flags.DEFINE_list("eps_iters", [], "Step sizes, instead of --num_steps.", flag_values=values)
    flags.DEFINE_integer(
        "num_steps",
        None,
        "Number of step sizes, from ε/30.6 (2.5 on MNIST) to ε.",
        flag_values=values,
    )
    flags.DEFINE_list("nb_iters", [], "Numbers of iterations, ascending.", flag_values=values)
    define_num_images(values, None)


define_scale_flags()


def main(_: list[str]) -> None:
    """Compute the maps of --rows, where they are not on disk, and draw them."""
    settings.fill_in_table()
    figure_run.fill_in_scale("heat_maps", define_scale_flags)
    with computing(FLAGS) as compute:  # before anything touches a device
        found, missing = figure_run.finished_runs(FLAGS.rows)
        maps = {
            figure_run.title(row): _map(make_job(FLAGS, row), run, compute)
            for row, run in found.items()
        }
    made = next(iter(maps.values())).settings
    caption = (
        f"{', '.join(maps)} on {figure_run.data_and_scale()}: adversarial accuracy of "
        f"{made['num_images']} evaluation images after PGD with "
        f"ε = {made['attack']['eps'] * 255:g}, {_restarts(made)}, crafted in "
        f"{made['attack']['dtype']}, by step size and iterations. An image is attacked from the "
        "same start in every cell: the cells of a column show one run after more and more steps, "
        "and no cell shows how much the start matters, so differences of a few images between "
        "neighbours are chance. Crosses: the lowest accuracy, in all cells that share it. Each "
        "panel has its own colour scale."
    )
    figure_run.finish(
        figures.heat_map_panels(maps),
        name=f"heat_maps_{FLAGS.dataset}",
        caption=caption,
        drawn=found,
        missing=missing,
    )


def _restarts(settings_of_map: dict) -> str:
    count = settings_of_map["attack"]["restarts"]
    return "1 restart" if count == 1 else f"{count} restarts"


def _map(job: Job, run: RunDir, compute: Compute) -> HeatMap:
    from alp_repro.evaluation.heat_maps import heat_map

    chosen = compute.devices
    attack = dataclasses.replace(job.columns[-1].attack, restarts=FLAGS.restarts)
    if not isinstance(attack, PGD):
        raise InputError(f"the grid's last attack is {attack}: expected pgd, for its step size")
    eps_iters, nb_iters = _grid(attack.eps)
    data = evaluation_set(FLAGS.dataset, FLAGS.num_images, FLAGS.data_dir)
    batch_size = settings.eval_batch_size(job.values, gpu=chosen.gpu)

    started, new = time.monotonic(), itertools.count(1)

    def report(done: int, columns: int) -> None:
        left = (time.monotonic() - started) / next(new) * (columns - done)
        about = f", about {duration(left)} left" if left else ""
        print(f"{job.row}: {done} of {columns} step sizes{about}", flush=True)

    return heat_map(
        runs.load_model(run.model),
        data.unit_scale,
        data.labels,
        attack=attack,
        eps_iters=eps_iters,
        nb_iters=nb_iters,
        seed=job.values.seed,
        batch_size=min(
            batch_size, len(data.labels) * attack.restarts
        ),  # a larger one is only filled up
        folder=run.path / "heat_maps",
        jit_compile=chosen.jit_compile,
        report=report,
        run_columns=compute.run_columns(),
        details={"device": chosen.description, "scale": FLAGS.scale},
    )


def _grid(eps: float) -> tuple[list[float], list[int]]:
    """Return step sizes on the [0, 1] scale, and numbers of iterations."""
    try:
        eps_iters = [float(value) / 255 for value in FLAGS.eps_iters]
        nb_iters = [int(value) for value in FLAGS.nb_iters]
    except ValueError as error:
        raise InputError(f"--eps_iters and --nb_iters: expected numbers ({error})") from None
    if not eps_iters and FLAGS.num_steps < 1:
        raise InputError(f"--num_steps={FLAGS.num_steps}: expected at least 1")
    return eps_iters or np.linspace(eps / 30.6, eps, FLAGS.num_steps).tolist(), nb_iters


def cli() -> None:
    """Run the console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
