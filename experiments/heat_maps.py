"""Heat maps: adversarial accuracy over step size × iterations, one panel a model.

    python -m experiments.heat_maps --flagfile=flags/tables/table1.cfg --rows=at100,lsq,clp

A map is kept beside its model, column by column, and is not computed again; Ctrl-C loses one column
at the most. Sizes are on the 0-255 scale.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
from absl import flags

from alp_repro import runs
from alp_repro.errors import InputError
from alp_repro.evaluation.heat_maps import HeatMap, heat_map
from alp_repro.reporting import figures, report, tables
from alp_repro.runs import RunDir

from . import app, devices, settings
from .devices import Devices
from .evaluation_run import data_and_scale, evaluation_set
from .table import Job, make_job

FLAGS = flags.FLAGS
_EPS_ITERS = flags.DEFINE_list("eps_iters", None, "Step sizes (default: by scale).")
_NB_ITERS = flags.DEFINE_list("nb_iters", None, "Iteration counts (default: by scale).")
_NUM_IMAGES = flags.DEFINE_integer("num_images", None, "Evaluation images (default: by scale).")
_RESTARTS = flags.DEFINE_integer("restarts", 1, "Restarts of each attack.")
_NAME = flags.DEFINE_string("name", None, "Name of the figure (default: from what it shows).")


@dataclasses.dataclass(frozen=True)
class Grid:
    """How fine a scale's maps are: step sizes from ε/30.6 (2.5 on MNIST) to ε, and counts."""

    steps: int
    counts: tuple[int, ...]
    num_images: int


_SCALES = {
    "smoke": Grid(2, (2, 4), 20),
    "quick": Grid(6, tuple(range(40, 401, 40)), 50),
    "paper": Grid(38, tuple(range(40, 401, 10)), 1000),
}


def main(_: list[str]) -> None:
    """Computes the maps of --rows, as far as they are not on disk, and draws them."""
    settings.fill_in_table()
    found, missing = report.finished_runs(
        Path(FLAGS.runs_dir) / FLAGS.scale / FLAGS.dataset, FLAGS.rows
    )
    chosen = devices.choose()
    labels = {row.row: row.label for row in tables.load_paper_table(FLAGS.table).rows}
    maps = {
        report.short_label(labels.get(row, row)): _map(make_job(row), run, chosen)
        for row, run in found.items()
    }
    first = next(iter(maps.values()))
    settings_of_map = first.settings
    where = data_and_scale(FLAGS)
    caption = (
        f"{', '.join(maps)} on {where}: adversarial accuracy of "
        f"{settings_of_map['num_images']} evaluation images after PGD with "
        f"ε = {settings_of_map['attack']['eps'] * 255:g}, {_restarts(settings_of_map)}, crafted in "
        f"{settings_of_map['attack']['dtype']}, by step size and iterations. All panels share the "
        "colour scale."
    )
    path = figures.save_figure(
        figures.heat_map_panels(maps),
        Path(FLAGS.runs_dir) / FLAGS.scale / "figures",
        _NAME.value or f"heat_maps_{FLAGS.dataset}",
        caption=caption,
        details={"scale": FLAGS.scale, "missing": [dataclasses.asdict(part) for part in missing]},
    )
    for part in missing:
        print(part, file=sys.stderr)
    print(f"written: {path} and .pdf")


def _restarts(settings_of_map: dict) -> str:
    count = settings_of_map["attack"]["restarts"]
    return "1 restart" if count == 1 else f"{count} restarts"


def _map(job: Job, run: RunDir, chosen: Devices) -> HeatMap:
    attack = dataclasses.replace(job.columns[-1].attack, restarts=_RESTARTS.value)
    eps_iters, nb_iters, num_images = _grid(attack.eps)
    data = evaluation_set(FLAGS.dataset, num_images, FLAGS.data_dir)
    batch_size = settings.eval_batch_size(job.values, gpu=chosen.gpu)

    def told(done: int, columns: int) -> None:
        print(f"{job.row}: {done} of {columns} step sizes", flush=True)

    return heat_map(
        runs.load_model(run.model),
        data.unit_scale,
        data.labels,
        attack=attack,
        eps_iters=eps_iters,
        nb_iters=nb_iters,
        seed=job.values.seed,
        batch_size=min(batch_size, num_images * attack.restarts),  # a larger one is only filled up
        folder=run.path / "heat_maps",
        jit_compile=chosen.jit_compile,
        report=told,
        details={"device": chosen.description, "scale": FLAGS.scale},
    )


def _grid(eps: float) -> tuple[list[float], list[int], int]:
    """Step sizes on the [0, 1] scale, iteration counts, images: the flags', or the scale's."""
    scale = _SCALES[FLAGS.scale]
    try:
        eps_iters = [float(value) / 255 for value in _EPS_ITERS.value or []]
        nb_iters = [int(value) for value in _NB_ITERS.value or scale.counts]
    except ValueError as error:
        raise InputError(f"--eps_iters and --nb_iters: numbers are needed ({error})") from None
    return (
        eps_iters or np.linspace(eps / 30.6, eps, scale.steps).tolist(),
        nb_iters,
        scale.num_images if _NUM_IMAGES.value is None else _NUM_IMAGES.value,
    )


def cli() -> None:
    """Console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
