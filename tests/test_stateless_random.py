from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from alp_repro import stateless_random
from tests.marks import slow_unless


def test_same_bits_with_and_without_xla():
    def draw(seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        children = stateless_random.split(seed, 3)
        grandchild = stateless_random.split(children[2], 2)[1]
        return (
            stateless_random.uniform([101, 3], seed, low=-0.3, high=0.3),
            *(stateless_random.uniform([7], child) for child in (*children, grandchild)),
        )

    compiled = tf.function(draw, jit_compile=True)
    for seed in ((1, 2), (-1, 2), (1, -2), (-7, -(2**31))):
        given = tf.constant(seed)
        for ours, theirs in zip(draw(given), compiled(given), strict=True):
            np.testing.assert_array_equal(ours, theirs)


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


def many_seeds() -> np.ndarray:
    """Small, large and negative ones, and those of work items; int64 [n, 2]."""
    drawn = np.random.default_rng(0).integers(-(2**63), 2**63, (40, 2))
    items = np.stack([(7 << 32) + np.arange(-3, 17), np.arange(20) * 977], axis=1)
    ends = [(0, 0), (-1, -1), (2**63 - 1, -(2**63)), (2**32, 2**32 - 1), (-(2**32), 1)]
    return np.concatenate([drawn, items, np.array(ends)]).astype(np.int64)


@pytest.mark.parametrize(
    "shape", slow_unless([(), (1,), (7,)], [(), (1,), (7,), (5, 5, 3), (28, 28, 1)]), ids=str
)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_many_seeds_give_tensorflows_own_words(shape: tuple[int, ...], jit_compile: bool):
    """Results on disk depend on these bits."""
    seeds = many_seeds()
    together = tf.function(
        lambda s: stateless_random.bits_of_each(s, shape), jit_compile=jit_compile
    )(seeds)
    one_by_one = tf.stack([stateless_random.bits(shape, seed) for seed in seeds])
    assert together.dtype == tf.uint32 and together.shape == (len(seeds), *shape)
    np.testing.assert_array_equal(together, one_by_one)


def test_words_of_many_seeds_are_uniform_and_independent():
    """Over items and over pixels: 64 bins, each bit, and neighbours of all kinds."""
    seeds = np.stack([np.repeat(np.arange(50), 40), np.tile(np.arange(40), 50)], axis=1)
    words = stateless_random.bits_of_each(tf.constant(seeds), [100]).numpy()
    counts = np.bincount((words >> 26).ravel(), minlength=64)
    expected = words.size / 64
    chi_squared = float(np.sum((counts - expected) ** 2) / expected)
    assert 27 < chi_squared < 115  # 63 degrees of freedom: far out on either side
    ones = np.array([((words >> bit) & 1).mean() for bit in range(32)])
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / words.size**0.5
    values = (words / 2.0**32 - 0.5).reshape(50, 40, 100)
    for a, b in [
        (values[:-1], values[1:]),  # images, or restarts, beside each other
        (values[:, :-1], values[:, 1:]),
        (values[..., :-1], values[..., 1:]),
        (values[0], values[-1]),
    ]:
        correlation = 12 * np.mean(a * b)
        assert abs(correlation) < 5 / a.size**0.5
    assert len(np.unique(words)) > words.size - 20  # about 5 collisions are expected
