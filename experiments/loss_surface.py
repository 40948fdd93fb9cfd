"""Loss surfaces around test images (Figures 1 and 3-6): one panel an image, or a model.

    python -m experiments.loss_surface --flagfile=flags/tables/table1.cfg --rows=clp
    python -m experiments.loss_surface --flagfile=flags/tables/table1.cfg \
        --rows=at100,lsq,clp,plain_alp --images=0 --name=figure1

Written to <runs_dir>/<scale>/figures/; the numbers are kept beside each model and read from there
the next time. Sizes are on the 0-255 scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from absl import flags
from tqdm import tqdm

from alp_repro.data import Images, dataset_spec, load
from alp_repro.errors import InputError
from alp_repro.evaluation.landscape import Plane, Surfaces, local_maxima, surfaces_of_run
from alp_repro.reporting import figures

from . import app, devices, figure_run, settings

if TYPE_CHECKING:
    from alp_repro.runs import RunDir

FLAGS = flags.FLAGS
figure_run.define_flags()
_IMAGES = flags.DEFINE_string("images", "0-7", "Positions in the test set, as in 0-7 or 0,4,9.")
_RESOLUTION = flags.DEFINE_integer("resolution", 101, "Grid points a side.")
_EPS = flags.DEFINE_float(
    "eps", None, "The grid's a and b go from -eps to eps (default: 38.25 on MNIST, else 16)."
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the two sign vectors.")
_CLIP = flags.DEFINE_boolean("clip", True, "Clip the points to [0, 1], so that they are images.")
_SHARE = flags.DEFINE_boolean("share_loss_axis", False, "One loss axis for all panels.")


def main(_: list[str]) -> None:
    """Draws the surfaces of --rows around --images."""
    settings.fill_in_table()
    positions = figures.parse_positions(_IMAGES.value)
    eps = dataset_spec(FLAGS.dataset).surface_eps if _EPS.value is None else _EPS.value
    plane = Plane(
        radius=eps / 255, resolution=_RESOLUTION.value, seed=_SEED.value, clip=_CLIP.value
    )
    devices.choose()  # before anything touches a device
    found, missing = figure_run.finished_runs(FLAGS.rows)
    if len(FLAGS.rows) > 1 and len(positions) > 1:
        raise InputError(
            f"{len(FLAGS.rows)} rows and {len(positions)} images: one of either is needed"
        )
    data = figures.pick_images(
        load.load_split(FLAGS.dataset, "test", data_dir=FLAGS.data_dir, limit=max(positions) + 1),
        positions,
    )
    surfaces = {figure_run.title(row): _surfaces(run, data, plane) for row, run in found.items()}
    losses = np.concatenate([found.losses for found in surfaces.values()])
    titles = list(surfaces)
    if len(positions) > 1:
        titles = [f"image {i}, class {c}" for i, c in zip(data.indices, data.labels, strict=True)]
    figure = figures.surface_panels(losses, plane.offsets, titles, share_loss_axis=_SHARE.value)
    figure_run.finish(
        figure,
        name=f"loss_surface_{FLAGS.dataset}_{'_'.join(found)}",
        caption=_caption(list(surfaces), data, plane, losses),
        drawn=found,
        missing=missing,
    )


def _surfaces(run: RunDir, data: Images, plane: Plane) -> Surfaces:
    with tqdm(total=len(data.labels), desc=run.path.name, unit="image", disable=None) as bar:
        return surfaces_of_run(
            run,
            data.images,
            data.labels,
            data.indices,
            plane=plane,
            report=lambda done, _: bar.update(done - bar.n),
        )


def _caption(labels: list[str], data: Images, plane: Plane, losses: np.ndarray) -> str:
    images = ", ".join(map(str, data.indices))
    noun = f"test image {images}" if len(data.indices) == 1 else f"test images {images}"
    bound = f"{plane.radius * 255:g}"
    maxima = ", ".join(str(int(local_maxima(surface).sum())) for surface in losses)
    return (
        f"{', '.join(labels)} on {figure_run.data_and_scale()}: cross-entropy around {noun} "
        f"on the plane x + a·u + b·v of two random sign vectors (seed {plane.seed}), a and b in "
        f"[−{bound}, {bound}] on the 0–255 scale, "
        f"{'clipped' if plane.clip else 'not clipped'} to valid pixels, "
        f"{plane.resolution}×{plane.resolution} points. The cross marks the image. "
        f"Local maxima, panel by panel: {maxima}."
    )


def cli() -> None:
    """Console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
