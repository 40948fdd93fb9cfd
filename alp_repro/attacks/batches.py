"""A batch of work items, how it is computed, and what came of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

    from alp_repro.models.copies import LogitsFunction

DEFAULT_BATCH = 200


class WorkItems(NamedTuple):
    """A batch of (image, restart) pairs, as a program takes them.

    images: float32 [b, height, width, channels] in [0, 1]; labels: int32 [b]; image_index: int64
    [b], what an image's random numbers depend on; restart: int32 [b]; lower, upper: like the
    images, the pixels that a final image may have (`exact_bounds`).
    """

    images: Any
    labels: Any
    image_index: Any
    restart: Any
    lower: Any
    upper: Any


class CraftItems(NamedTuple):
    """A batch of work items, as an attack crafts them: see `WorkItems`.

    seed: int scalar below 2³¹; clean_logits: the model that judges, of which targets are chosen.
    """

    images: tf.Tensor
    labels: tf.Tensor
    image_index: tf.Tensor
    restart: tf.Tensor
    seed: tf.Tensor
    clean_logits: LogitsFunction

    @property
    def what_draws_depend_on(self) -> dict[str, tf.Tensor]:
        """An item's own numbers, as `draws` takes them."""
        return {"image_index": self.image_index, "restart": self.restart, "seed": self.seed}


class BatchOutcome(NamedTuple):
    """What an attack did to one batch: NumPy arrays, one entry an item.

    broken: bool, the final image is not predicted as its label; losses: float32, its
    cross-entropy; adversarial: float32 like the images, inside the given bounds; finite: bool, the
    crafted image and its logits are, and otherwise there is no verdict; nonfinite_gradients: int32,
    steps whose gradient had entries that are not finite, which counted as 0.
    """

    broken: np.ndarray
    losses: np.ndarray
    adversarial: np.ndarray
    finite: np.ndarray
    nonfinite_gradients: np.ndarray


class GridOutcome(NamedTuple):
    """The verdicts on one batch after several iteration counts: NumPy arrays.

    broken, finite: bool [b, counts]; nonfinite_gradients: int32 [b]; see `BatchOutcome`.
    """

    broken: np.ndarray
    finite: np.ndarray
    nonfinite_gradients: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """How batches are computed; results depend on it only as far as float32 kernels do.

    Attributes:
      batch_size: items in a batch of one replica.
      strategy: of `tf.distribute`: each replica takes a share of the items.
      jit_compile: XLA; None: where there is a GPU (its kernels are slower on a CPU).
    """

    batch_size: int = DEFAULT_BATCH
    strategy: tf.distribute.Strategy | None = None
    jit_compile: bool | None = None

    @property
    def xla(self) -> bool:
        """Whether XLA compiles: this is decided here alone."""
        import tensorflow as tf

        if self.jit_compile is None:
            return bool(tf.config.list_physical_devices("GPU"))
        return self.jit_compile

    @property
    def replicas(self) -> int:
        """How many share a batch."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1

    @property
    def items(self) -> int:
        """Items in a batch of all replicas."""
        return self.batch_size * self.replicas

    def no_larger_than(self, work: int) -> Execution:
        """The same with batches that so many items fill."""
        enough = max(1, -(-work // self.replicas))
        return dataclasses.replace(self, batch_size=min(self.batch_size, enough))


def work_items(
    images: np.ndarray,
    labels: np.ndarray,
    image: np.ndarray,
    restart: np.ndarray,
    *,
    eps: float,
    image_index: np.ndarray | None = None,
) -> WorkItems:
    """Return a batch of items.

    Args:
      images: float32 [n, height, width, channels], all that there are.
      labels: int32 [n].
      image, restart: int [batch], of each item.
      eps: radius of the ball.
      image_index: int [n], what an image's random numbers depend on; None: its place.
    """
    chosen = images[image]
    index = image if image_index is None else image_index[image]
    return WorkItems(
        chosen,
        labels[image],
        index.astype(np.int64),
        restart.astype(np.int32),
        *exact_bounds(chosen, eps),
    )


def exact_bounds(images: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest float32 pixels in the ε-ball and in [0, 1], exactly.

    "Exactly": the difference to the image, computed without rounding, is at most eps.
    """
    wide = images.astype(np.float64)
    lower = np.maximum(wide - eps, 0.0).astype(np.float32)
    upper = np.minimum(wide + eps, 1.0).astype(np.float32)
    # Rounding to float32 may have gone outwards by one step at the most.
    lower = np.where(wide - lower > eps, np.nextafter(lower, np.float32(2)), lower)
    upper = np.where(upper - wide > eps, np.nextafter(upper, np.float32(-1)), upper)
    return lower, upper
