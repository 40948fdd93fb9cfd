from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from alp_repro import stateless_random


@pytest.mark.parametrize("seed", [(1, 2), (-1, 2), (1, -2), (-7, -(2**31))])
def test_same_bits_with_and_without_xla(seed: tuple[int, int]):
    def draw(seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        children = stateless_random.split(seed, 3)
        grandchild = stateless_random.split(children[2], 2)[1]
        return (
            stateless_random.uniform([101, 3], seed, low=-0.3, high=0.3),
            *(stateless_random.uniform([7], child) for child in (*children, grandchild)),
        )

    given = tf.constant(seed)
    for plain, compiled in zip(
        draw(given), tf.function(draw, jit_compile=True)(given), strict=True
    ):
        np.testing.assert_array_equal(plain, compiled)


def test_uniform_over_the_interval():
    values = stateless_random.uniform([100_000], tf.constant([5, 6]), low=2.0, high=4.0).numpy()
    assert values.dtype == np.float32
    assert values.min() >= 2.0
    assert values.max() <= 4.0
    counts, _ = np.histogram(values, bins=20, range=(2.0, 4.0))
    # 5,000 expected a bin, standard deviation 69.
    assert np.abs(counts - 5000).max() < 350


def test_split_seeds_draw_different_numbers():
    seeds = [tf.constant([0, 1]), *stateless_random.split(tf.constant([0, 1]), 4)]
    draws = np.stack([stateless_random.uniform([5], seed).numpy() for seed in seeds])
    assert len(np.unique(draws)) == draws.size
