"""Random points: uniform ones are the starts of PGD, corners move every pixel by eps."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from alp_repro.attacks import PGD, CraftItems, RandomPoints

EPS = 0.1


def items() -> CraftItems:
    images = tf.constant(np.random.default_rng(0).uniform(0, 1, (6, 4, 4, 1)), tf.float32)
    index = tf.range(6, dtype=tf.int64)
    restart, seed = tf.constant([0, 1, 2, 0, 1, 2]), tf.constant(5)
    return CraftItems(images, tf.zeros(6, tf.int32), index, restart, seed, lambda x: x[:, 0, 0])


def test_uniform_points_are_the_starts_of_pgd() -> None:
    starts = PGD(eps=EPS, eps_iter=EPS, nb_iter=1).draw(items()).starts
    points = RandomPoints(eps=EPS).craft(items().clean_logits, items()).adversarial
    np.testing.assert_array_equal(points, starts)


def test_corners_move_every_pixel_by_eps_as_far_as_it_can() -> None:
    given = items()
    points = RandomPoints(eps=EPS, corners=True).craft(given.clean_logits, given).adversarial
    moved = np.abs(np.asarray(points) - np.asarray(given.images))
    inside = (np.asarray(points) > 0) & (np.asarray(points) < 1)
    np.testing.assert_allclose(moved[inside], EPS, atol=1e-6)
    assert inside.mean() > 0.8 and moved.max() <= EPS + 1e-6
