"""Shared fixtures: a small model with fixed weights, images that it classifies, two CPU devices."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

IMAGE_SHAPE = (8, 8, 1)
CLASSES = 10

# Two devices for `tf.distribute`; this must come before TensorFlow first uses a device.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


def small_model() -> keras.Model:
    """8×8×1 images to 10 logits, with a loss surface so rugged that restarts matter.

    Its longest sum has 72 terms, which TensorFlow's CPU kernels add in the same order for every
    batch size: results are the same to the last bit (LeNet's are not, see test_restarts.py).
    """
    images = keras.Input(IMAGE_SHAPE)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="tanh")(images)
    x = keras.layers.Flatten()(x)
    for _ in range(3):
        x = keras.layers.Dense(24, activation="tanh")(x)
    model = keras.Model(images, keras.layers.Dense(CLASSES)(x), name="small")
    generator = np.random.default_rng(5)
    model.set_weights([generator.normal(0, 0.8, w.shape) for w in model.get_weights()])
    return model


def small_images(count: int) -> np.ndarray:
    """Float32 [count, 8, 8, 1] in [0, 1]; a sixth of the pixels are exactly 0 or 1."""
    wide = np.random.default_rng(7).uniform(-0.1, 1.1, (count, *IMAGE_SHAPE))
    return np.clip(wide, 0, 1).astype(np.float32)


@pytest.fixture(scope="session")
def model() -> keras.Model:
    return small_model()


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return small_images(40)


@pytest.fixture(scope="session")
def labels(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What the model predicts, but for three images that it gets wrong."""
    predicted = np.argmax(model(images), axis=1).astype(np.int32)
    predicted[[3, 17, 30]] = (predicted[[3, 17, 30]] + 1) % CLASSES
    return predicted
