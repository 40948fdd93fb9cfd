"""How a batch passes the model: as a whole, in halves, or in the shares of virtual replicas."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from alp_repro.models.copies import LogitsFunction


class Passed(NamedTuple):
    """Logits of one share of a batch, float32 [share, classes] each.

    Attributes:
      clean, adversarial: None where no pass was needed.
      alone: penalty -> logits of a pass of its own, in place of the clean ones.
    """

    clean: tf.Tensor | None
    adversarial: tf.Tensor | None
    alone: dict[str, tf.Tensor]


def averages_of(model: keras.Model) -> list[keras.Variable]:
    """What a pass in training mode moves besides seeds: batch norm's averages."""
    return [v for v in model.non_trainable_variables if "float" in v.dtype]


def halves(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The first and the second half of a batch; an odd last image is left out.

    Of a single image both halves are that image, since batch norm has no statistics of none.
    """
    count = tf.shape(images)[0]
    half = tf.maximum(count // 2, 1)
    second = tf.minimum(half, count - half)
    return images[:half], images[second : second + half]


def in_shares(
    forward: Callable[..., Passed],
    batches: tuple[tf.Tensor | None, ...],
    *,
    shares: int,
    averages: list[keras.Variable],
) -> list[Passed]:
    """Passes equal shares of a batch one after the other, as if each were on its own replica.

    Args:
      forward: what passes a share; it may move `averages`.
      batches: its arguments, [batch, ...] each or None.
      shares: divides the batch.
      averages: batch norm's moving ones. Each share moves them from where they are, and what is
        left is the mean of that (Keras on real replicas keeps what the first has made of them).
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
    """The same function of images, but equal shares of a batch pass the model by themselves."""
    if shares == 1:
        return logits
    return lambda images: tf.concat([logits(part) for part in tf.split(images, shares)], axis=0)
