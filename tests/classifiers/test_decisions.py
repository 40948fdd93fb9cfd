"""One model crafts and another judges; a random model predicts what most of its passes give."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro.classifiers.decisions import crafted_on, voting
from alp_repro.errors import InputError
from tests.auditing import fixtures

SHAPE = fixtures.SHAPE
IMAGES, _ = fixtures.images_and_labels()
POINTS = np.random.default_rng(0).random((200, *SHAPE), dtype=np.float32)


def other(classes: int = fixtures.CLASSES) -> keras.Model:
    """A linear model of random weights."""
    images = keras.Input(SHAPE)
    last = keras.layers.Dense(classes)
    model = keras.Model(images, last(keras.layers.Flatten()(images)))
    weights = np.random.default_rng(4).normal(size=(36, classes))
    last.set_weights([weights, -0.5 * weights.sum(axis=0)])
    return model


def gradient(model: keras.Model, images: np.ndarray, *, wanted: int) -> np.ndarray:
    """Of one logit less the mean of all."""
    x = tf.constant(images)

    @tf.function
    def compute() -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = model(x)
            value = tf.reduce_sum(logits[:, wanted] - tf.reduce_mean(logits, axis=1))
        return tape.gradient(value, x)

    return np.asarray(compute())


def rounded(images: tf.Tensor) -> tf.Tensor:
    return tf.round(images * 4) / 4


def test_one_models_predictions_and_the_others_gradients() -> None:
    judge, surrogate = fixtures.After(before=rounded), other()
    model = crafted_on(judge, surrogate, image_shape=SHAPE)
    logits = np.asarray(model(POINTS))
    np.testing.assert_array_equal(logits.argmax(axis=1), np.asarray(judge(POINTS)).argmax(axis=1))
    assert (logits.argmax(axis=1) != np.asarray(surrogate(POINTS)).argmax(axis=1)).any()
    np.testing.assert_allclose(
        gradient(model, POINTS, wanted=1), gradient(surrogate, POINTS, wanted=1), rtol=1e-5
    )


def test_the_lead_of_the_decision_falls_with_the_surrogates() -> None:
    """Also beyond the surrogate's own boundary, so that a loss knows the better of two points."""
    judge, surrogate = fixtures.constant(), other()  # class 0 always
    logits = np.asarray(crafted_on(judge, surrogate, image_shape=SHAPE)(POINTS))
    guide = np.asarray(surrogate(POINTS))

    def margin(values: np.ndarray) -> np.ndarray:
        return values[:, 0] - values[:, 1:].max(axis=1)

    assert (margin(logits) > 0).all()
    assert (margin(guide) < 0).any() and (margin(guide) > 0).any()
    # The width of a row's logits sets its scale: points of one row's line are compared.
    line = np.linspace(POINTS[0], POINTS[1], 50)
    on_line = np.asarray(crafted_on(judge, surrogate, image_shape=SHAPE)(line))
    order = np.argsort(margin(np.asarray(surrogate(line))))
    width = np.ptp(on_line, axis=1).max()
    assert (np.diff(margin(on_line)[order]) > -1e-3 * width).all()


def test_a_masked_class_and_an_offset_leave_the_decision() -> None:
    class Odd(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner = other()

        def call(self, images: tf.Tensor) -> tf.Tensor:
            return self.inner(images) + 1e4 + tf.constant([0.0, 0.0, 0.0, -1e9])

    judge = fixtures.honest()
    logits = np.asarray(crafted_on(judge, Odd(), image_shape=SHAPE)(POINTS))
    np.testing.assert_array_equal(logits.argmax(axis=1), np.asarray(judge(POINTS)).argmax(axis=1))


def test_other_classes_are_refused() -> None:
    with pytest.raises(InputError, match=r"surrogate has 3 classes: .*4"):
        crafted_on(fixtures.honest(), other(3), image_shape=SHAPE)


class Coin(keras.Model):
    """Class 1 in seven of ten passes, class 0 otherwise; one draw for a whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = fixtures.constant()

    def call(self, images: tf.Tensor) -> tf.Tensor:
        heads = tf.cast(tf.random.uniform([]) < 0.7, tf.float32)
        return 0.0 * self.inner(images) + heads * tf.constant([[0.0, 1.0, 0.0, 0.0]])


def test_most_passes_decide() -> None:
    model = voting(Coin(), classes=4, passes=101)
    counts = np.asarray(model.votes(tf.constant(IMAGES)))
    np.testing.assert_array_equal(counts.sum(axis=1), 101)
    assert (counts[:, 1] > 50).all() and (counts[:, 0] > 0).all()  # 1e-5 that they are not
    assert (np.asarray(model(IMAGES)).argmax(axis=1) == 1).all()


def test_the_gradient_is_the_mean_of_the_passes() -> None:
    """Noise on a linear model's images changes no gradient; dropout does, and not its mean."""
    noisy = fixtures.After(before=lambda x: x + tf.random.normal(tf.shape(x), stddev=0.1))
    dropping = fixtures.DropoutLeftOn()
    plain = gradient(fixtures.honest(), IMAGES[:4], wanted=2)
    found = gradient(voting(noisy, classes=4, passes=3), IMAGES[:4], wanted=2)
    np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-4)
    one, many = (
        gradient(voting(dropping, classes=4, passes=passes), IMAGES[:4], wanted=2)
        for passes in (1, 400)
    )
    size = np.abs(plain).mean()
    assert np.abs(one - plain).mean() > 0.2 * size  # a fifth of the pixels has none
    assert np.abs(many - plain).mean() < 0.05 * size


def test_the_number_of_passes_makes_another_function() -> None:
    from alp_repro.models.identity import architecture_hash

    model = Coin()
    ten, twenty = (architecture_hash(voting(model, classes=4, passes=n)) for n in (10, 20))
    assert ten != twenty
