"""Stateless random numbers that are the same, bit for bit, with and without XLA.

The floats of `tf.random.stateless_uniform` are made from other bits of the same Philox stream
under XLA than in TensorFlow's own kernels, and `tf.random.split` and `fold_in` differ there for
negative seeds (both seen in TensorFlow 2.21 on the CPU). The raw unsigned integers agree, so
everything here is made from them. For many seeds at once the same integers are computed here, as
elementwise arithmetic: a loop over seeds is thousands of tiny kernels on a GPU.
"""

from __future__ import annotations

import functools
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

    All programs that need as many share one trace: these are hundreds of operations, and the time
    that a program takes to be compiled grows with their number.

    Args:
      seeds: int64 [n, 2].
      shape: of one seed's words; static.

    Returns:
      uint32 [n, *shape].
    """
    return _bits_program(seeds.shape[0], tuple(shape))(seeds)


@functools.lru_cache(maxsize=16)
def _bits_program(
    count: int | None, shape: tuple[int, ...]
) -> tf.types.experimental.PolymorphicFunction:
    return tf.function(
        lambda seeds: _bits_of_each(seeds, shape),
        autograph=False,
        input_signature=[tf.TensorSpec([count, 2], tf.int64)],
    )


def _bits_of_each(seeds: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    wide = tf.stack(tf.unstack(tf.bitcast(seeds, tf.uint64), axis=1))[:, :, None]
    scrambling_key = tf.constant(_SCRAMBLING_KEY, tf.uint64)[:, None, None]
    even, odd = _philox(scrambling_key, _low(wide), _high(wide))
    key, upper = tf.stack([even[0], odd[0]]), tf.stack([even[1], odd[1]])
    count = math.prod(shape)
    blocks = tf.cast(tf.range(-(-count // 4), dtype=tf.int64), tf.uint64)[None, :]
    blocks += tf.zeros_like(upper[0])
    zeros = tf.zeros_like(blocks)
    even, odd = _philox(
        key, tf.stack([blocks, upper[0] + zeros]), tf.stack([zeros, upper[1] + zeros])
    )
    words = tf.cast(tf.stack([even[0], odd[0], even[1], odd[1]], axis=-1), tf.uint32)
    words = tf.reshape(words, [-1, 4 * blocks.shape[1]])
    return tf.reshape(words[:, :count], [-1, *shape])


def _philox(key: tf.Tensor, even: tf.Tensor, odd: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return four words for each counter; all are 32-bit numbers in uint64.

    The two halves of a round are one operation each, which halves the number of operations.

    Args:
      key: [2, n or 1, 1].
      even: a counter's words 0 and 2, [2, n, blocks].
      odd: its words 1 and 3.

    Returns:
      The same of the results.
    """
    multipliers = tf.constant(_MULTIPLIERS, tf.uint64)[:, None, None]
    steps = [[round_ * step for step in _WEYL] for round_ in range(_ROUNDS)]
    keys = tf.unstack(_low(key + tf.constant(steps, tf.uint64)[:, :, None, None]))
    for of_round in keys:
        products = tf.reverse(multipliers * even, axis=[0])
        mixed = tf.bitwise.bitwise_xor(odd, of_round)
        even, odd = tf.bitwise.bitwise_xor(_high(products), mixed), _low(products)
    return even, odd


def _high(wide: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.right_shift(wide, tf.constant(32, tf.uint64))


def _low(wide: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.bitwise_and(wide, tf.constant(_LOW, tf.uint64))
