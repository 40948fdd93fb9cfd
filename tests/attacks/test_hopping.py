"""Basin hopping: where it may go, that hops help, and what an item's outcome depends on."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from alp_repro.attacks.draws import wrong_classes
from alp_repro.attacks.hopping import basin_hopping
from alp_repro.attacks.losses import margin
from alp_repro.models.copies import logits_function

EPS = 0.02  # few of the small model's images break


@pytest.fixture(scope="module")
def logits(model):
    """One function for all tests: the programs of `run` are kept for it."""
    return logits_function(model)


def run(logits, images, labels, *, index=None, restart=0, climbs=14, **options):
    index = np.arange(len(images)) if index is None else index
    attack = program(logits, climbs, **options)
    found = attack(*(tf.constant(value) for value in (images, labels, index, np.int32(restart))))
    return [value.numpy() for value in found]


@functools.cache
def program(logits, climbs, *, nb_iter=5, eps=EPS, jit_compile=False):
    def attack(images, labels, index, restart):
        restarts = tf.fill([images.shape[0]], restart)
        of_items = {"image_index": index, "restart": restarts, "seed": tf.constant(3)}
        return basin_hopping(
            logits,
            images,
            labels,
            ranking=wrong_classes(logits(images), labels),
            eps=eps,
            nb_iter=nb_iter,
            climbs=climbs,
            **of_items,
        )

    return tf.function(attack, jit_compile=jit_compile, autograph=False)


def margins(model, images, labels) -> np.ndarray:
    return margin(labels=tf.constant(labels), logits=model(images)).numpy()


def test_it_stays_in_the_ball_and_tells_the_margin_of_its_point(
    model, logits, images, labels
) -> None:
    found, value, _ = run(logits, images, labels)
    assert np.abs(found - images).max() <= np.float32(EPS)
    assert found.min() >= 0 and found.max() <= 1
    np.testing.assert_allclose(margins(model, found, labels), value, atol=1e-4)


def test_each_climb_can_only_better_what_stands(logits, images, labels) -> None:
    values = np.array([run(logits, images, labels, climbs=n)[1] for n in (9, 14, 24)])
    standing = values[-1] <= 0
    assert 0 < standing.sum() < len(images)
    assert (np.diff(values[:, standing], axis=0) >= 0).all()
    assert (values[2] > values[0])[standing].mean() > 0.5
    assert (values[2] > 0).sum() >= (values[0] > 0).sum()


def test_what_is_broken_is_left_alone(logits, images, labels) -> None:
    early, value, _ = run(logits, images, labels, climbs=2)
    late, _, _ = run(logits, images, labels)
    assert (value > 0).any()
    np.testing.assert_array_equal(late[value > 0], early[value > 0])


def two_hills(points: tf.Tensor) -> tf.Tensor:
    """Two classes; each pixel climbs from 0.4 to a low top at one end, a high one at the other."""
    x = tf.reshape(points, [-1, 16])
    height = tf.where(x < 0.4, 2.0 * (0.4 - x), x - 0.4)
    return tf.stack([tf.ones_like(x[:, 0]), tf.reduce_mean(height, axis=1)], axis=1)


def test_hops_leave_a_low_hill() -> None:
    """At 0.3 to 0.7 the upper ends are the higher: shaken pixels find them, climbs alone do not."""
    images = np.full((8, 4, 4, 1), 0.5, np.float32)
    labels = np.zeros(8, np.int32)
    _, one, _ = run(two_hills, images, labels, eps=0.2, climbs=1, nb_iter=8)
    _, many, _ = run(two_hills, images, labels, eps=0.2, climbs=60, nb_iter=8)
    assert one.mean() < -0.72
    assert (many > -0.72).all() and many.mean() > -0.71


def test_an_item_does_not_depend_on_its_batch(logits, images, labels) -> None:
    together = run(logits, images, labels)
    # A batch of the same shape: in another order, and of those that break, which ends early.
    for order in (np.arange(len(images))[::-1], np.flatnonzero(together[1] > 0)):
        chosen = np.resize(order, len(images))
        again = run(logits, images[chosen], labels[chosen], index=chosen)
        for whole, part in zip(together, again, strict=True):
            np.testing.assert_array_equal(whole[chosen], part)
    other, _, _ = run(logits, images, labels, restart=1)
    assert (other != together[0]).any(axis=(1, 2, 3)).all()


@pytest.mark.slow
def test_xla_compiles_it(logits, images, labels) -> None:
    _, plain, _ = run(logits, images, labels, climbs=2)
    _, compiled, _ = run(logits, images, labels, climbs=2, jit_compile=True)
    assert np.median(np.abs(plain - compiled)) < 1e-3


def test_gradients_that_are_not_finite_count_as_zero() -> None:
    def rooted(points: tf.Tensor) -> tf.Tensor:
        pixel = points[:, 0, 0, :]
        return tf.concat([5.0 + 0.0 * pixel, tf.sqrt(tf.nn.relu(pixel - 2.0))], axis=1)

    images = np.full((3, 4, 4, 1), 0.5, np.float32)
    found, value, nonfinite = run(rooted, images, np.zeros(3, np.int32))
    assert np.isfinite(found).all() and np.isfinite(value).all()
    np.testing.assert_array_equal(nonfinite, 70)
