"""The Square attack: stays in its ball, needs no gradient, depends on an item's indices alone."""

from __future__ import annotations

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro.attacks import Square
from alp_repro.attacks.square import square_attack, square_side
from alp_repro.evaluation import evaluate
from alp_repro.models.copies import logits_function

EPS = 0.2


def run(model, images, labels, *, index=None, restart=0, **options):
    index = np.arange(len(images)) if index is None else np.asarray(index)
    given = (images, labels, index, np.full(len(images), restart, np.int32))
    return program(model, **options)(*(tf.constant(value) for value in given)).numpy()


@functools.cache
def program(model, *, nb_iter=60, eps=EPS, jit_compile=False):
    return tf.function(
        lambda x, y, index, restart: square_attack(
            logits_function(model),
            x,
            y,
            eps=eps,
            nb_iter=nb_iter,
            image_index=index,
            restart=restart,
            seed=tf.constant(3),
        ),
        jit_compile=jit_compile,
    )


def margins(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    logits = np.array(model(images))
    true = logits[np.arange(len(labels)), labels].copy()
    logits[np.arange(len(labels)), labels] = -np.inf
    return logits.max(axis=1) - true


def test_it_stays_in_the_ball_and_in_range_to_the_last_bit(model, images, labels) -> None:
    found = run(model, images, labels)
    assert np.abs(found - images).max() <= np.float32(EPS)
    assert found.min() >= 0 and found.max() <= 1


def test_more_queries_never_lower_the_loss(model, images, labels) -> None:
    """If nothing breaks, the schedule depends only on nb_iter, so one step is compared."""
    start = margins(model, run(model, images, labels, nb_iter=1), labels)
    later = margins(model, run(model, images, labels), labels)
    unbroken = start <= 0
    assert (later[unbroken] >= start[unbroken]).all()
    assert (later > 0).sum() > (start > 0).sum()


def test_a_linear_model_is_broken_where_its_corner_is() -> None:
    """On a linear model the worst corner is known, and squares of one pixel reach it."""
    weights = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
    inputs = keras.Input((4, 4, 1))
    outputs = keras.layers.Dense(2, use_bias=False)(keras.layers.Flatten()(inputs))
    linear = keras.Model(inputs, outputs)
    linear.set_weights([weights])
    images = np.full((20, 4, 4, 1), 0.5, np.float32)
    images += np.random.default_rng(1).uniform(-0.1, 0.1, images.shape).astype(np.float32)
    labels = np.argmax(np.asarray(linear(images)), axis=1).astype(np.int32)
    reach = 0.3 * np.abs(weights[:, 0] - weights[:, 1]).sum()
    breakable = margins(linear, images, labels) + reach > 0.05
    found = run(linear, images, labels, nb_iter=1500, eps=0.3)
    assert breakable.any()
    assert (margins(linear, found, labels)[breakable] > 0).all()


def test_an_item_does_not_depend_on_its_batch(model, images, labels) -> None:
    together = run(model, images, labels)
    alone = run(model, images[7:12], labels[7:12], index=np.arange(7, 12))
    np.testing.assert_array_equal(together[7:12], alone)


@pytest.mark.slow
def test_restarts_differ_and_xla_draws_the_same(model, images, labels) -> None:
    first = run(model, images, labels, nb_iter=2)
    assert not np.array_equal(first, run(model, images, labels, nb_iter=2, restart=1))
    np.testing.assert_array_equal(first, run(model, images, labels, nb_iter=2, jit_compile=True))


def test_it_needs_no_gradient(model, images, labels) -> None:
    """A model behind a rounding has no gradient, and is broken all the same."""
    rounded = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Lambda(_rounded), model])
    found = run(rounded, images, labels, nb_iter=200)
    assert (margins(rounded, found, labels) > 0).mean() > 0.3


def _rounded(images: tf.Tensor) -> tf.Tensor:
    return tf.round(images * 15) / 15


@pytest.mark.parametrize(("wrong", "expected"), [(2, 1), (1, 7)])
def test_it_stops_once_every_image_is_broken(wrong: int, expected: int) -> None:
    """Of two images that are misclassified from the start, and of one beside a constant one."""
    queries = []

    def logits(points: tf.Tensor) -> tf.Tensor:
        queries.append(len(points))
        return tf.constant([[0.0, 1.0]] * 2)

    square_attack(
        logits,
        tf.zeros([2, 4, 4, 1]),
        tf.constant([0] * wrong + [1] * (2 - wrong)),
        eps=EPS,
        nb_iter=7,
        image_index=tf.range(2),
        restart=tf.zeros(2, tf.int32),
        seed=tf.constant(3),
    )
    assert len(queries) == expected


def test_the_square_shrinks_as_in_the_paper() -> None:
    sides = [int(square_side(i, 10_000, height=28, width=28)) for i in (0, 10, 11, 51, 1001, 9000)]
    assert sides == [25, 25, 18, 13, 4, 1]
    assert int(square_side(11, 10_000, height=28, width=28)) == int(
        square_side(2, 1000, height=28, width=28)
    )


def test_it_is_a_method_of_attack_like_any_other(model, images, labels, tmp_path) -> None:
    """The engine breaks what the function breaks, and a result goes on with more restarts."""
    attack = Square(eps=EPS, nb_iter=60)
    options = {"seed": 3, "folder": tmp_path, "batch_size": len(images)}
    record = evaluate(model, images, labels, attack=attack, **options)
    alone = margins(model, run(model, images, labels), labels) > 0
    np.testing.assert_array_equal(record.first_break == 0, alone)
    more = dataclasses.replace(attack, restarts=3)
    later = evaluate(model, images, labels, attack=more, **options)
    np.testing.assert_array_equal(later.first_break == 0, alone)
    assert later.accuracy_at(3) <= record.accuracy_at(1)
