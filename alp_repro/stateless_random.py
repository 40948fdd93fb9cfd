"""Stateless random numbers that are the same bits with and without XLA.

The floats of `tf.random.stateless_uniform` are made from other bits of the same Philox stream
under XLA than in TensorFlow's own kernels, and `tf.random.split` and `fold_in` differ there for
negative seeds (both seen in TensorFlow 2.21 on the CPU). The raw unsigned integers agree, so
everything here is made from them.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

_MANTISSA_BITS = 24


def uniform(
    shape: tf.Tensor | Sequence[tf.Tensor | int],
    seed: tf.Tensor,
    *,
    low: float = 0.0,
    high: float = 1.0,
) -> tf.Tensor:
    """Uniform float32 of this shape in [low, high], a function of (shape, seed) alone.

    `seed` is an integer tensor [2]. Before scaling, the values are multiples of 2⁻²⁴ below 1.
    """
    return uniform_from_bits(bits(shape, seed), low=low, high=high)


def uniform_from_bits(words: tf.Tensor, *, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    """Uniform float32 in [low, high] from uniform uint32 words; see `uniform`."""
    leading = tf.bitwise.right_shift(words, 32 - _MANTISSA_BITS)
    return low + (high - low) * tf.cast(leading, tf.float32) * 2.0**-_MANTISSA_BITS


def split(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
    """`count` independent seeds, int32 [2] each; `seed` itself must then draw nothing else."""
    positive = tf.bitwise.right_shift(bits([count, 2], seed), 1)
    return tf.unstack(tf.cast(positive, tf.int32))


def bits(shape: tf.Tensor | Sequence[tf.Tensor | int], seed: tf.Tensor) -> tf.Tensor:
    """Uniform uint32 words of this shape, a function of (shape, seed) alone."""
    return tf.random.stateless_uniform(
        shape, seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
