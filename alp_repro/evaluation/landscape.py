"""Loss surfaces (paper, Figures 1 and 3–6): the cross-entropy on a plane through an image.

The plane is spanned by two random sign vectors; results are stored in the run's folder.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro import files, runs
from alp_repro.attacks import Execution
from alp_repro.data.images import images_digest
from alp_repro.errors import InputError
from alp_repro.evaluation.input_check import (
    check_is_keras,
    checked_batch_size,
    checked_images,
    checked_indices,
    checked_labels,
)
from alp_repro.evaluation.model_check import restoring_weights, validate_model
from alp_repro.evaluation.store import ResultFormat, load_or_compute, result_file_name
from alp_repro.models.copies import logits_function
from alp_repro.validation.plain_numbers import LARGEST_SEED, quoted, whole_number

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

DEFAULT_BATCH = 500
# Nats. A surface that varies by less changes the true class's probability by less than a hundredth
# of a percent: it is flat, and its maxima are rounding.
FLAT = 1e-4
REACH = 2  # grid points to each side of one that are compared with it
_MAX_POINTS = 10_000  # a side: far more than any real call needs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plane:
    """The plane of a loss surface: x + a·u + b·v with a, b in [-radius, radius].

    u and v are random sign vectors, so that a pixel moves by up to 2·radius (the paper's 38.25 on
    MNIST is half of its ε).

    Attributes:
      radius: on the [0, 1] scale; the figures' ε.
      resolution: grid points per side; with an odd number the image itself is in the middle.
      seed: seeds u and v, which depend only on it and on the image's index: every model gets the
        same plane.
      clip: clip points to [0, 1], so that they are valid images. The paper does not say whether it
        clips. Its captions (a local maximum at the input for Plain + ALP, many maxima for CLP) fit
        only with clipping: without it, MNIST's black background becomes negative, which no model
        was trained on, and Plain + ALP has a minimum at the input.

    Raises:
      InputError: a value out of range.
    """

    radius: float
    resolution: int = 101
    seed: int = 0
    clip: bool = True

    def __post_init__(self) -> None:
        """Convert NumPy numbers to Python's and check every setting."""
        if not (isinstance(self.radius, numbers.Real) and 0 < self.radius <= 1):
            raise InputError(
                f"loss surface radius {quoted(self.radius)}: expected a size in (0, 1], which is "
                "(0, 255] on the 0-255 scale"
            )
        object.__setattr__(self, "radius", float(self.radius))
        for name, low, high in (("resolution", 2, _MAX_POINTS), ("seed", 0, LARGEST_SEED)):
            value = getattr(self, name)
            whole = whole_number(value, name=f"loss surface {name}", low=low, high=high)
            object.__setattr__(self, name, whole)

    @property
    def offsets(self) -> np.ndarray:
        """The values of a and of b, float64 [resolution], on the [0, 1] scale."""
        return np.linspace(-self.radius, self.radius, self.resolution)

    def directions(self, image_shape: tuple[int, ...], index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the sign vectors u and v of an image, float32, each like the image."""
        generator = np.random.default_rng([self.seed, index])
        signs = generator.integers(0, 2, (2, *image_shape)) * 2 - 1
        return signs[0].astype(np.float32), signs[1].astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Surfaces:
    """Losses of one model around some images.

    Attributes:
      losses: float32 [n, resolution, resolution], cross-entropy of the true label in nats;
        [i, j, k] belongs to a = offsets[j], b = offsets[k].
      labels: int32 [n].
      indices: int64 [n], positions of the images in their split.
      plane: the plane.
      settings: the settings of this result; empty if it is not stored.
      sessions: provenance of every process that worked on them.
    """

    losses: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    plane: Plane
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    sessions: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def complete(self) -> bool:
        """True if every loss is known."""
        return bool(np.isfinite(self.losses).all())


def loss_surfaces(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    plane: Plane,
    indices: np.ndarray | None = None,
    batch_size: int = DEFAULT_BATCH,
    jit_compile: bool | None = None,
    report: Callable[[int, int], None] = lambda done, images: None,
) -> Surfaces:
    """Compute the loss on a grid around each image, in float32.

    Args:
      model: float32 images in [0, 1] to logits.
      images: uint8, or float in [0, 1], [n, height, width, channels].
      labels: int [n].
      plane: the grid.
      indices: int [n], positions of the images in their split (default 0 … n - 1).
      batch_size: the most grid points in a batch; all batches have one shape.
      jit_compile: compile with XLA; None: only with a GPU.
      report: called with (images done, images) after each image.

    Raises:
      InputError: images, labels or a model that `evaluate` refuses.
    """
    images = checked_images(images)
    labels = checked_labels(labels, len(images))
    indices, batch_size = checked_indices(indices, len(images)), checked_batch_size(batch_size)
    check_is_keras(model)
    with restoring_weights(model, images.shape[1:]):
        verdict_model, _ = validate_model(model, images, labels)
        xla = Execution(jit_compile=jit_compile).xla
        points = plane.resolution**2
        batch = -(-points // -(-points // batch_size))  # equal parts need the least padding
        program = _program(verdict_model, images.shape[1:], batch, clip=plane.clip, jit_compile=xla)
        losses = np.empty((len(images), points), np.float32)
        for i, (image, label, index) in enumerate(zip(images, labels, indices, strict=True)):
            directions = plane.directions(image.shape, int(index))
            for start in range(0, points, batch):
                chosen = np.arange(start, start + batch) % points
                row, column = np.divmod(chosen, plane.resolution)
                offsets = np.stack([plane.offsets[row], plane.offsets[column]], axis=1)
                values = program(image, *directions, offsets.astype(np.float32), label).numpy()
                losses[i, start : start + batch] = values[: points - start]
            if not np.isfinite(losses[i]).all():
                raise InputError(
                    f"image {index}: the losses of the model {model.name!r} are not finite on the "
                    "plane"
                )
            report(i + 1, len(images))
    shape = (len(images), plane.resolution, plane.resolution)
    return Surfaces(losses.reshape(shape), labels, indices, plane)


def _program(
    model: keras.Model, image_shape: tuple[int, ...], batch: int, *, clip: bool, jit_compile: bool
) -> Callable[..., tf.Tensor]:
    import tensorflow as tf

    logits = logits_function(model)
    like_image = tf.TensorSpec(image_shape, tf.float32)
    signature = [
        *(like_image, like_image, like_image),
        tf.TensorSpec([batch, 2], tf.float32),
        tf.TensorSpec([], tf.int32),
    ]

    @tf.function(autograph=False, input_signature=signature, jit_compile=jit_compile)
    def program(
        image: tf.Tensor, u: tf.Tensor, v: tf.Tensor, offsets: tf.Tensor, label: tf.Tensor
    ) -> tf.Tensor:
        a, b = tf.unstack(offsets[:, :, None, None, None], axis=1)
        points = image + a * u + b * v
        if clip:
            points = tf.clip_by_value(points, 0.0, 1.0)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=tf.fill([batch], label), logits=logits(points)
        )

    return program


def surfaces_of_run(
    run: runs.RunDir,
    images: np.ndarray,
    labels: np.ndarray,
    indices: np.ndarray,
    *,
    plane: Plane,
    batch_size: int = DEFAULT_BATCH,
    report: Callable[[int, int], None] = lambda done, images: None,
) -> Surfaces:
    """Return the surfaces of a run's model, read from its folder or computed and stored there.

    Args:
      run: a finished run.
      images, labels, indices, plane, batch_size, report: see `loss_surfaces`.

    Raises:
      InputError: the run has no model, stored surfaces are damaged, or images or labels are not
        valid.
    """
    images = checked_images(images)
    labels = checked_labels(labels, len(images))
    indices = checked_indices(indices, len(images))
    model = runs.load_model(run.model)
    settings = files.as_json_data(
        {
            **dataclasses.asdict(plane),
            "images": images_digest(images, labels),
            "indices": indices.tolist(),
            "model": runs.weights_hash(model),
        }
    )
    side, count = plane.resolution, len(labels)
    parts = [f"eps{plane.radius * 255:g}", f"{side}x{side}", f"images{count}"]

    def compute(nothing: Surfaces, save: Callable[[Surfaces], None]) -> Surfaces:
        found = loss_surfaces(
            model,
            images,
            labels,
            plane=plane,
            indices=indices,
            batch_size=batch_size,
            report=report,
        )
        found = dataclasses.replace(found, settings=nothing.settings)
        save(found)
        return found

    return load_or_compute(
        # The name includes the model: surfaces of several models may be in one folder.
        run.path / "surfaces" / result_file_name(parts, settings, leaving_out=()),
        ResultFormat(
            lambda path: load_surfaces(path, plane), save_surfaces, lambda found: found.complete
        ),
        settings=settings,
        fresh=lambda: Surfaces(
            losses=np.full((count, side, side), np.nan, np.float32),
            labels=labels,
            indices=indices,
            plane=plane,
            settings=settings,
        ),
        work=compute,
    )


def save_surfaces(path: Path, surfaces: Surfaces) -> None:
    """Write surfaces as `.npz`, atomically."""
    arrays = {name: getattr(surfaces, name) for name in ("losses", "labels", "indices")}
    files.write_arrays(path, arrays, settings=surfaces.settings, sessions=surfaces.sessions)


def load_surfaces(path: Path, plane: Plane) -> Surfaces:
    """Read surfaces on this plane.

    Raises:
      InputError: the file is truncated or not a loss surface, or its parts contradict each other.
    """
    with files.open_arrays(path, what="loss surface") as file:
        losses = files.read_array(file, "losses", np.float32, (None, *2 * (plane.resolution,)))
        sessions: list[dict[str, Any]] = []
        if "sessions" in file.files:  # version 0.1 did not record sessions
            sessions = files.read_note(file, "sessions", list[dict[str, Any]])
        found = Surfaces(
            losses=losses,
            labels=files.read_array(file, "labels", np.int32, (len(losses),)),
            indices=files.read_array(file, "indices", np.int64, (len(losses),)),
            plane=plane,
            settings=files.read_note(file, "settings"),
            sessions=sessions,
        )
        if not found.complete:
            raise InputError("losses has values that are not finite")
        if found.settings.get("indices") != found.indices.tolist():
            raise InputError("its settings and its arrays have different indices")
        return found


def local_maxima(losses: np.ndarray) -> np.ndarray:
    """Return which points of a surface are higher than all others around them.

    A surface that varies by less than FLAT has none.

    Args:
      losses: float [resolution, resolution]; points nearer than REACH to the edge are not marked.

    Returns:
      Bool like `losses`.
    """
    if min(losses.shape) <= 2 * REACH or np.ptp(losses) < FLAT:
        return np.zeros(losses.shape, bool)
    side = 2 * REACH + 1
    windows = np.lib.stride_tricks.sliding_window_view(losses, (side, side))
    middle = windows[:, :, REACH, REACH]
    # Strictly higher than the rest: exactly one value of the window, the middle, reaches it.
    highest = (windows >= middle[:, :, None, None]).sum(axis=(2, 3)) == 1
    return np.pad(highest, REACH)


def maximum_at_image(losses: np.ndarray) -> bool:
    """Return whether the image in the middle is higher than the points around it.

    Args:
      losses: float [resolution, resolution], an odd number a side.
    """
    middle, rest = divmod(len(losses), 2)
    if not rest or middle < REACH:
        return False
    around = losses[middle - REACH : middle + REACH + 1, middle - REACH : middle + REACH + 1]
    return int((around >= losses[middle, middle]).sum()) == 1
