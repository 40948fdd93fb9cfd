"""Gradients in float32 against float64: kernels have been wrong at batches of three and four."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro.models import build_model
from tests.marks import slow_unless

MODELS = {"lenet": ((28, 28, 1), None), "resnet20_v2": ((32, 32, 3), 16)}


def built(name: str, dtype: str) -> keras.Model:
    shape, width = MODELS[name]
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        return build_model(name, image_shape=shape, num_classes=10, width=width, weight_seed=1)
    finally:
        keras.config.set_dtype_policy(before)


def gradients(model: keras.Model, images: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
    """The loss and its gradients, of the images and of all variables, in training mode."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = model(images, training=True)
        loss = tf.reduce_sum(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        )
    variables = [variable.value for variable in model.trainable_variables]
    return [loss, *tape.gradient(loss, [images, *variables])]


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("name", slow_unless(["lenet"], MODELS))
def test_gradients_are_those_of_float64(name: str, size: int) -> None:
    exact, ours = built(name, "float64"), built(name, "float32")
    exact.set_weights([weight.astype(np.float64) for weight in ours.get_weights()])
    random = np.random.default_rng(size)
    images = random.random((size, *MODELS[name][0]))
    labels = random.integers(0, 10, size)
    expected = gradients(exact, tf.constant(images), tf.constant(labels))
    assert expected[0].dtype == tf.float64
    given = tf.constant(images, tf.float32), tf.constant(labels)
    compiled = tf.function(lambda *batch: gradients(ours, *batch))
    for found in (gradients(ours, *given), compiled(*given)):
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert one.dtype == tf.float32
            # A ReLU or a pool that rounding decides otherwise changes a few numbers.
            distance = np.linalg.norm(one.numpy() - other.numpy())
            assert distance <= 1e-2 * np.linalg.norm(other.numpy()) + 1e-5, number
