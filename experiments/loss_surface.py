"""Draws loss surfaces around test images (Figures 1 and 3-6): a panel for each image, or model.

    python -m experiments.loss_surface --flagfile=flags/tables/table1.cfg --rows=clp
    python -m experiments.loss_surface --flagfile=flags/tables/table1.cfg \
        --rows=at100,lsq,clp,plain_alp --images=0 --name=figure1

The figure is written to <runs_dir>/<scale>/figures/. Its numbers are stored with each model, and
not computed again. Sizes are on the 0-255 scale.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from absl import flags
from tqdm import tqdm

from alp_repro import runs
from alp_repro.data import Images, dataset_spec
from alp_repro.errors import InputError
from alp_repro.evaluation.landscape import (
    Plane,
    Surfaces,
    local_maxima,
    loss_surfaces,
    maximum_at_image,
    surfaces_of_run,
)
from alp_repro.reporting import figures

from .console import app
from .flags import settings
from .running import devices, figure_run

if TYPE_CHECKING:
    from alp_repro.runs import RunDir

FLAGS = flags.FLAGS
figure_run.define_flags()
_IMAGES = flags.DEFINE_string(
    "images", "0-7", "Positions of the images in the test set, as in 0-7 or 0,4,9."
)
_RESOLUTION = flags.DEFINE_integer("resolution", 101, "Grid points along each side.")
_EPS = flags.DEFINE_float(
    "eps", None, "The grid extends from -eps to eps (default: 38.25 on MNIST, else 16)."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the two random sign vectors.")
_CLIP = flags.DEFINE_boolean("clip", True, "Clip the points to valid pixels in [0, 1].")
_SHARE = flags.DEFINE_boolean("share_loss_axis", False, "Use the same loss axis in all panels.")


def main(_: list[str]) -> None:
    """Draw the surfaces of --rows around --images."""
    settings.fill_in_table()
    positions = figures.parse_positions(_IMAGES.value)
    eps = dataset_spec(FLAGS.dataset).surface_eps if _EPS.value is None else _EPS.value
    plane = Plane(
        radius=eps / 255, resolution=_RESOLUTION.value, seed=_SEED.value, clip=_CLIP.value
    )
    devices.choose()  # before a device is used
    found, missing = figure_run.finished_runs(FLAGS.rows)
    if len(FLAGS.rows) > 1 and len(positions) > 1:
        raise InputError(
            f"{len(FLAGS.rows)} rows and {len(positions)} images: expected a single row or a "
            "single image"
        )
    data = figure_run.test_images(positions)
    shown = {figure_run.title(row): _shown(run, data, plane) for row, run in found.items()}
    losses = np.concatenate([one.surfaces.losses for one in shown.values()])
    taken_for = np.concatenate([one.taken_for for one in shown.values()])
    labels = np.tile(data.labels, len(shown))
    titles = list(shown)
    if len(positions) > 1:
        titles = [f"image {i}, class {c}" for i, c in zip(data.indices, data.labels, strict=True)]
    titles = [
        title if taken == label else f"{title}, predicted {taken}"
        for title, taken, label in zip(titles, taken_for, labels, strict=True)
    ]
    figure = figures.surface_panels(
        losses,
        plane.offsets,
        titles,
        share_loss_axis=_SHARE.value,
        marked=list(taken_for != labels),
    )
    figure_run.finish(
        figure,
        name=f"loss_surface_{FLAGS.dataset}_{'_'.join(found)}",
        caption=_caption(shown, data, plane),
        drawn=found,
        missing=missing,
    )


@dataclasses.dataclass(frozen=True)
class _Shown:
    """The content of one model's panels.

    taken_for: the predicted class of each image; peaks: how many images are local maxima, with
    the figure's points and with points that are not clipped.
    """

    surfaces: Surfaces
    taken_for: np.ndarray
    peaks: tuple[int, int]


def _shown(run: RunDir, data: Images, plane: Plane) -> _Shown:
    from alp_repro.evaluation.clean import predictions

    surfaces = _surfaces(run, data, plane)
    model = runs.load_model(run.model)
    unit = data.unit_scale
    # Five grid points a side around each image, as `maximum_at_image` looks at.
    near = dataclasses.replace(
        plane, radius=4 * plane.radius / (plane.resolution - 1), resolution=5
    )
    bare = loss_surfaces(
        model,
        data.images,
        data.labels,
        plane=dataclasses.replace(near, clip=False),
        indices=data.indices,
    )
    peaks = [sum(map(maximum_at_image, found.losses)) for found in (surfaces, bare)]
    return _Shown(surfaces, predictions(model, unit, batch_size=len(unit)), (peaks[0], peaks[1]))


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


def _caption(shown: dict[str, _Shown], data: Images, plane: Plane) -> str:
    images = ", ".join(map(str, data.indices))
    noun = f"test image {images}" if len(data.indices) == 1 else f"test images {images}"
    bound = f"{plane.radius * 255:g}"
    losses = np.concatenate([one.surfaces.losses for one in shown.values()])
    maxima = ", ".join(str(int(local_maxima(surface).sum())) for surface in losses)
    ranges = ", ".join(f"{np.ptp(surface):.2g}" for surface in losses)
    wrong = sum(int(np.sum(one.taken_for != data.labels)) for one in shown.values())
    red = "A red title names the predicted class of a misclassified image. " if wrong else ""
    return (
        f"{', '.join(shown)} on {figure_run.data_and_scale()}: cross-entropy around {noun} "
        f"on the plane x + a·u + b·v of two random sign vectors (seed {plane.seed}), a and b in "
        f"[−{bound}, {bound}] on the 0–255 scale, "
        f"{'clipped' if plane.clip else 'not clipped'} to valid pixels, "
        f"{plane.resolution}×{plane.resolution} points. The cross marks the image; each panel has "
        "its own loss axis, and is seen from the corner where the loss is lowest. "
        f"{red}From the lowest to the highest loss of each panel: {ranges} nats; local maxima: "
        f"{maxima}.{_of_peaks(shown, plane)}"
    )


def _of_peaks(shown: dict[str, _Shown], plane: Plane) -> str:
    """Describe how many images are local maxima, and how many of them are due to clipping."""
    here, bare = (sum(one.peaks[i] for one in shown.values()) for i in (0, 1))
    count = sum(len(one.taken_for) for one in shown.values())
    if not here:
        return ""
    text = f" The image itself is a local maximum in {here} of {count} panels"
    if plane.clip and plane.resolution % 2:
        text += f", and in {bare} if the points are not clipped"
        if bare < here:
            text += (
                ": such a peak comes from clipping, which takes most of a step away where pixels "
                "are black or white already"
            )
    return text + "."


def cli() -> None:
    """Run the console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
