"""Forward passes of a batch: as a whole, in halves, or in the shares of virtual replicas."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from alp_repro.models.copies import LogitsFunction


class ShareLogits(NamedTuple):
    """Logits of one share of a batch, float32 [share, classes] each.

    Attributes:
      clean, adversarial: None if no pass was needed.
      penalty_logits: penalty -> logits of a separate pass, which replace the clean ones.
    """

    clean: tf.Tensor | None
    adversarial: tf.Tensor | None
    penalty_logits: dict[str, tf.Tensor]


def averages_of(model: keras.Model) -> list[keras.Variable]:
    """Return the variables that a pass in training mode updates besides seeds: batch norm's."""
    return [v for v in model.non_trainable_variables if "float" in v.dtype]


def halves(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the first and the second half of a batch; an odd last image is left out.

    Both halves of a single image are that image, since batch norm needs at least one.
    """
    count = tf.shape(images)[0]
    half = tf.maximum(count // 2, 1)
    second = tf.minimum(half, count - half)
    return images[:half], images[second : second + half]


def in_shares(
    forward: Callable[..., ShareLogits],
    batches: tuple[tf.Tensor | None, ...],
    *,
    shares: int,
    averages: list[keras.Variable],
) -> list[ShareLogits]:
    """Pass equal shares of a batch through the model separately, as on separate replicas.

    Args:
      forward: passes one share through the model; it may update `averages`.
      batches: its arguments, [batch, ...] each or None.
      shares: the number of shares, which divides the batch.
      averages: batch norm's moving averages. Each share updates them from their current values, and
        the mean of the results is stored (Keras on real replicas stores that of the first).
    """
    if shares == 1:
        return [forward(*batches)]
    split = [[None] * shares if each is None else tf.split(each, shares) for each in batches]
    before = [tf.identity(average.value) for average in averages]
    after, passed = [], []
    for share in zip(*split, strict=True):
        for average, value in zip(averages, before, strict=True):
            average.assign(value)
        passed.append(forward(*share))
        after.append([tf.identity(average.value) for average in averages])
    for average, *moved in zip(averages, *after, strict=True):
        average.assign(tf.add_n(moved) / shares)
    return passed


def logits_in_shares(logits: LogitsFunction, *, shares: int) -> LogitsFunction:
    """Return the same function of images, with separate passes for equal shares of a batch."""
    if shares == 1:
        return logits
    return lambda images: tf.concat([logits(part) for part in tf.split(images, shares)], axis=0)
