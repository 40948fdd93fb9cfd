"""A batch of work items, how it is computed, and its outcome."""

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
    [b], which seeds an image's random numbers; restart: int32 [b]; lower, upper: like the images,
    the smallest and largest pixels of the final image (`exact_bounds`).
    """

    images: Any
    labels: Any
    image_index: Any
    restart: Any
    lower: Any
    upper: Any


class CraftItems(NamedTuple):
    """A batch of work items, as an attack crafts them: see `WorkItems`.

    seed: int scalar below 2³¹; clean_logits: the model under attack, which ranks the targets.
    """

    images: tf.Tensor
    labels: tf.Tensor
    image_index: tf.Tensor
    restart: tf.Tensor
    seed: tf.Tensor
    clean_logits: LogitsFunction

    @property
    def random_keys(self) -> dict[str, tf.Tensor]:
        """The arguments of the functions in `draws` that seed an item's random numbers."""
        return {"image_index": self.image_index, "restart": self.restart, "seed": self.seed}


class BatchOutcome(NamedTuple):
    """The outcome of an attack on one batch: NumPy arrays, one entry per item.

    broken: bool, the final image is not predicted as its label; losses: float32, its
    cross-entropy; adversarial: float32 like the images, inside the given bounds; finite: bool, the
    crafted image and its logits are finite, otherwise there is no verdict; nonfinite_gradients:
    int32, steps whose gradient had entries that are not finite, which counted as 0.
    """

    broken: np.ndarray
    losses: np.ndarray
    adversarial: np.ndarray
    finite: np.ndarray
    nonfinite_gradients: np.ndarray


class GridOutcome(NamedTuple):
    """The verdicts on one batch after several iteration counts: NumPy arrays.

    broken, finite: bool [b, counts]; see `BatchOutcome`.
    """

    broken: np.ndarray
    finite: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """Settings for computing batches; results depend on them only as far as float32 kernels do.

    Attributes:
      batch_size: items in a batch of one replica.
      strategy: a `tf.distribute.Strategy`; each replica takes a share of the items.
      jit_compile: compile with XLA; None: only with a GPU, since it is slower on a CPU.
    """

    batch_size: int = DEFAULT_BATCH
    strategy: tf.distribute.Strategy | None = None
    jit_compile: bool | None = None

    @property
    def xla(self) -> bool:
        """True if XLA compiles the batches; nothing else decides this."""
        import tensorflow as tf

        if self.jit_compile is None:
            return bool(tf.config.list_physical_devices("GPU"))
        return self.jit_compile

    @property
    def replicas(self) -> int:
        """The number of replicas that share a batch."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1

    @property
    def items(self) -> int:
        """Items in a batch of all replicas."""
        return self.batch_size * self.replicas

    def capped_at(self, work: int) -> Execution:
        """Return the same with batches no larger than this many items of work."""
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
      images: float32 [n, height, width, channels], all images.
      labels: int32 [n].
      image, restart: int [batch], of each item.
      eps: radius of the ball.
      image_index: int [n], which seeds an image's random numbers; None: its position.
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
    """Return the smallest and largest float32 pixels in the ε-ball and in [0, 1], exactly.

    "Exactly": the difference to the image, computed without rounding, is at most eps.
    """
    wide = images.astype(np.float64)
    lower = np.maximum(wide - eps, 0.0).astype(np.float32)
    upper = np.minimum(wide + eps, 1.0).astype(np.float32)
    # Rounding to float32 may have moved a bound outwards, by one step at most.
    lower = np.where(wide - lower > eps, np.nextafter(lower, np.float32(2)), lower)
    upper = np.where(upper - wide > eps, np.nextafter(upper, np.float32(-1)), upper)
    return lower, upper
