"""A small model with fixed weights and images for it; importing this touches no device."""

from __future__ import annotations

import keras
import numpy as np

IMAGE_SHAPE = (8, 8, 1)
CLASSES = 10


def small_model(dtype: str | None = None) -> keras.Model:
    """8×8×1 images to 10 logits, with a loss surface so rugged that restarts matter.

    Its longest sum has 72 terms, which TensorFlow's CPU kernels add in the same order for every
    batch size: results are the same to the last bit (LeNet's are not, see test_restarts.py).
    `dtype` is the policy of every layer.
    """
    images = keras.Input(IMAGE_SHAPE)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="tanh", dtype=dtype)(images)
    x = keras.layers.Flatten(dtype=dtype)(x)
    for _ in range(3):
        x = keras.layers.Dense(24, activation="tanh", dtype=dtype)(x)
    logits = keras.layers.Dense(CLASSES, dtype=dtype)(x)
    model = keras.Model(images, logits, name="small")
    generator = np.random.default_rng(5)
    model.set_weights([generator.normal(0, 0.8, w.shape) for w in model.get_weights()])
    return model


def small_images(count: int) -> np.ndarray:
    """Float32 [count, 8, 8, 1] in [0, 1]; a sixth of the pixels are exactly 0 or 1."""
    wide = np.random.default_rng(7).uniform(-0.1, 1.1, (count, *IMAGE_SHAPE))
    return np.clip(wide, 0, 1).astype(np.float32)


def small_labels(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What the model predicts, but for three images that it gets wrong."""
    labels = np.argmax(model(images), axis=1).astype(np.int32)
    labels[[3, 17, 30]] = (labels[[3, 17, 30]] + 1) % CLASSES
    return labels
