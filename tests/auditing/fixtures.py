"""Small models that an audit must see through, and images that they classify."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

SHAPE = (6, 6, 1)
CLASSES = 4
EPS = 0.1
N = 40


def patterns() -> np.ndarray:
    """One random image a class, float32 [classes, 6, 6, 1] in [0.2, 0.8]."""
    return np.random.default_rng(1).uniform(0.2, 0.8, (CLASSES, *SHAPE)).astype(np.float32)


def images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Images near their class' pattern, and their classes in turn."""
    labels = np.arange(N, dtype=np.int32) % CLASSES
    noise = np.random.default_rng(2).normal(0, 0.02, (N, *SHAPE))
    return np.clip(patterns()[labels] + noise, 0, 1).astype(np.float32), labels


def honest(sharpness: float = 30.0, *, scale: float = 1.0) -> keras.Model:
    """Logits of the nearest pattern, through one hidden layer that changes nothing.

    A linear model: its loss has no hills, and an attack of small steps finds what there is.
    `scale` stands before the images, as 1/255 does in a model that takes 0-255.
    """
    flat = patterns().reshape(CLASSES, -1)
    images = keras.Input(SHAPE)
    features = keras.layers.Dense(flat.shape[1], name="features")(keras.layers.Flatten()(images))
    logits = keras.layers.Dense(CLASSES, name="logits")(features)
    model = keras.Model(images, logits)
    bias = -0.5 * (flat**2).sum(axis=1)
    model.set_weights(
        [
            scale * np.eye(flat.shape[1]),
            np.zeros(flat.shape[1]),
            sharpness * flat.T,
            sharpness * bias,
        ]
    )
    return model


class After(keras.Model):
    """The honest model with something done to its images or logits; not to be taken apart."""

    def __init__(
        self,
        *,
        before: Callable[[tf.Tensor], tf.Tensor] = lambda x: x,
        after: Callable[[tf.Tensor], tf.Tensor] = lambda x: x,
        sharpness: float = 30.0,
    ) -> None:
        super().__init__()
        self.inner = honest(sharpness)
        self.before, self.after = before, after

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return self.after(self.inner(self.before(images)))


class DropoutLeftOn(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.dropout = honest(), keras.layers.Dropout(0.2)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return self.inner(self.dropout(images, training=True))


class BatchStatistics(keras.Model):
    """Batch norm in training mode: an image's logits depend on the others."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = honest(), keras.layers.BatchNormalization()

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return self.inner(0.5 + 0.2 * self.norm(images, training=True))


def times(factor: float) -> keras.Model:
    """The honest model's logits times a constant: the same predictions."""
    inner = honest()
    return keras.Model(inner.inputs[0], keras.layers.Rescaling(factor)(inner.outputs[0]))


def constant() -> keras.Model:
    """The same logits for every image; class 0 is the largest."""
    inner = honest()
    weights = [np.zeros_like(w) for w in inner.get_weights()]
    weights[-1] = np.arange(CLASSES, 0, -1, dtype=np.float32)
    inner.set_weights(weights)
    return inner
