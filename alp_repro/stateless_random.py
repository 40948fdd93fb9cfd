"""Stateless random numbers that are the same, bit for bit, with and without XLA.

The floats of `tf.random.stateless_uniform` are made from other bits of the same Philox stream
under XLA than in TensorFlow's own kernels, and `tf.random.split` and `fold_in` differ there for
negative seeds (both seen in TensorFlow 2.21 on the CPU). The raw unsigned integers agree, so
everything here is made from them. For many seeds at once the same integers are computed here, as
elementwise arithmetic: a loop over seeds is thousands of tiny kernels on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf
else:
    from alp_repro.lazy_tensorflow import tf

_MANTISSA_BITS = 24

# Philox4x32-10 of Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF
# TensorFlow makes key and counter of a seed by Philox under this key (`StatelessRandomGetKey`).
_SCRAMBLING_KEY = (0x3EC8F720, 0x02461E29)


def uniform(
    shape: tf.Tensor | Sequence[tf.Tensor | int],
    seed: tf.Tensor,
    *,
    low: float = 0.0,
    high: float = 1.0,
) -> tf.Tensor:
    """Return uniform float32 of this shape in [low, high], a function of (shape, seed) alone.

    `seed` is an integer tensor [2]. Before scaling, the values are multiples of 2⁻²⁴ below 1.
    """
    return uniform_from_bits(bits(shape, seed), low=low, high=high)


def uniform_from_bits(words: tf.Tensor, *, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    """Convert uniform uint32 words to uniform float32 in [low, high]; see `uniform`."""
    leading = tf.bitwise.right_shift(words, 32 - _MANTISSA_BITS)
    return low + (high - low) * tf.cast(leading, tf.float32) * 2.0**-_MANTISSA_BITS


def split(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Return `count` independent seeds, int32 [2] each; do not use `seed` for anything else."""
    positive = tf.bitwise.right_shift(bits([count, 2], seed), 1)
    return tf.unstack(tf.cast(positive, tf.int32))


def bits(shape: tf.Tensor | Sequence[tf.Tensor | int], seed: tf.Tensor) -> tf.Tensor:
    """Return uniform uint32 words of this shape, a function of (shape, seed) alone."""
    return tf.random.stateless_uniform(
        shape, seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )


def bits_of_each(seeds: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Return `bits` of each of many seeds, in one computation over all of them.

    Args:
      seeds: int64 [n, 2].
      shape: of one seed's words; static.

    Returns:
      uint32 [n, *shape].
    """
    wide = tf.bitcast(seeds, tf.uint64)
    words = [wide[:, :1], wide[:, 1:]]
    counter = [part for word in words for part in (_low(word), _high(word))]
    scrambled = _philox(tuple(_number(key) for key in _SCRAMBLING_KEY), counter)
    key, upper = scrambled[:2], scrambled[2:]
    count = math.prod(shape)
    blocks = tf.cast(tf.range(-(-count // 4), dtype=tf.int64), tf.uint64)[None, :]
    zeros = tf.zeros_like(blocks + upper[0])
    found = _philox((key[0], key[1]), [blocks + zeros, zeros, upper[0] + zeros, upper[1] + zeros])
    every = tf.reshape(tf.cast(tf.stack(found, axis=-1), tf.uint32), [-1, 4 * blocks.shape[1]])
    return tf.reshape(every[:, :count], [-1, *shape])


def _philox(key: tuple[tf.Tensor, ...], counter: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Return four words for each counter; all are 32-bit numbers in uint64."""
    c0, c1, c2, c3 = counter
    for _ in range(_ROUNDS):
        first, second = _number(_MULTIPLIERS[0]) * c0, _number(_MULTIPLIERS[1]) * c2
        c0, c1, c2, c3 = (
            tf.bitwise.bitwise_xor(_high(second), tf.bitwise.bitwise_xor(c1, key[0])),
            _low(second),
            tf.bitwise.bitwise_xor(_high(first), tf.bitwise.bitwise_xor(c3, key[1])),
            _low(first),
        )
        key = tuple(_low(k + _number(step)) for k, step in zip(key, _WEYL, strict=True))
    return [c0, c1, c2, c3]


def _number(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint64)


def _high(wide: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.right_shift(wide, _number(32))


def _low(wide: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.bitwise_and(wide, _number(_LOW))
