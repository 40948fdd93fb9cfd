"""Stateless seeds of a training, one for each purpose at each step."""

from __future__ import annotations

import tensorflow as tf

# The purposes of the stateless random numbers of one step.
NOISE, START, ORDER, AUGMENT = range(4)


def step_seed(seed: int, purpose: int, step: tf.Tensor) -> tf.Tensor:
    """Return the stateless seed, int64 [2], of one purpose at one step."""
    return tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64) * 8 + purpose])
