"""A zoo of small classifiers and evaluations: sound ones, and ones with a known fault.

All see the same images, 6×6 and of four classes. A sound one is differentiable and means what it
says; what breaks under an attack breaks by its gradients. A faulty one has a fault that was
published, or found in reviews, as a reason of too kind an evaluation; `flags` are the indicators
any one of which tells it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alp_repro.attacks import PGD, Attack, Square
from tests.auditing import fixtures

SHAPE, CLASSES = fixtures.SHAPE, fixtures.CLASSES
N = 32
EPS = 0.15


def pgd(eps: float, **changes: Any) -> Attack:
    """Steps of a tenth of the ball."""
    return PGD(**{"eps": eps, "eps_iter": eps / 10, "nb_iter": 40, **changes})


def square(eps: float, queries: int) -> Attack:
    return Square(eps=eps, nb_iter=queries)


def changed(attack: Attack, **changes: Any) -> Attack:
    return dataclasses.replace(attack, **changes)


PLAIN = pgd(EPS)


def labelled(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images around their class' pattern, some near the boundary to the next class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % CLASSES
    patterns = fixtures.patterns()
    share = generator.uniform(0, 0.4, (count, 1, 1, 1))
    mixed = (1 - share) * patterns[labels] + share * patterns[(labels + 1) % CLASSES]
    noise = generator.normal(0, 0.03, (count, *SHAPE))
    return np.clip(mixed + noise, 0, 1).astype(np.float32), labels


IMAGES, LABELS = labelled(N, seed=3)


@dataclasses.dataclass(frozen=True)
class Animal:
    """A model, the evaluation of it, and what an audit must say.

    Attributes:
      make: builds the model.
      flags: any one of these tells the fault; none: it is sound.
      attack: the evaluation under audit.
      labels: of the images, where they are not the zoo's own.
    """

    make: Callable[[], Any]
    flags: frozenset[str] = frozenset()
    attack: Attack = PLAIN
    labels: np.ndarray = dataclasses.field(default_factory=lambda: LABELS)


# --- sound


def fitted(features: keras.Model, *, classes: int = CLASSES, scale: float = 4.0) -> keras.Model:
    """A last layer on features that stay as they are, by ridge regression: no training."""
    images, labels = labelled(400, seed=7)
    values = np.asarray(features(images), np.float64)
    labels = labels % classes
    aims = scale * (2 * np.eye(classes)[labels] - 1)
    given = np.concatenate([values, np.ones((len(values), 1))], axis=1)
    gram = given.T @ given + 1e-2 * len(given) * np.eye(given.shape[1])
    weights = np.linalg.solve(gram, given.T @ aims)
    last = keras.layers.Dense(classes, name="logits")
    model = keras.Model(features.inputs, last(features.outputs[0]))
    last.set_weights([weights[:-1], weights[-1]])
    return model


def of_layers(*layers: keras.layers.Layer) -> keras.Model:
    """Features of these layers with random weights, the same ones every time."""
    images = keras.Input(SHAPE)
    x = images
    for layer in layers:
        x = layer(x)
        # An initialiser without a seed takes one when its layer is made, before this function.
        if hasattr(layer, "kernel"):
            layer.kernel.assign(keras.initializers.GlorotUniform(seed=5)(layer.kernel.shape))
    return keras.Model(images, x)


def dense(activation: str) -> keras.Model:
    layers = keras.layers
    return fitted(of_layers(layers.Flatten(), layers.Dense(64, activation=activation)))


def convolutional() -> keras.Model:
    layers = keras.layers
    return fitted(
        of_layers(
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
        )
    )


def normalised() -> keras.Model:
    """With batch norm and dropout, both as they are at inference."""
    layers = keras.layers
    norm = layers.BatchNormalization()
    features = of_layers(
        layers.Flatten(), layers.Dense(64), norm, layers.Activation("relu"), layers.Dropout(0.5)
    )
    norm.moving_mean.assign(0.1 * np.ones(64))
    return fitted(features)


def linear() -> keras.Model:
    return fixtures.honest(sharpness=3.0)


def probabilities() -> keras.Model:
    inner = linear()
    return keras.Model(inner.inputs, keras.layers.Softmax()(inner.outputs[0]))


def one_output() -> keras.Model:
    """Classes 0 and 2 against 1 and 3, by one sigmoid."""
    inner = dense_of_two()
    difference = keras.layers.Dense(1, activation="sigmoid")
    model = keras.Model(inner.inputs, difference(inner.outputs[0]))
    difference.set_weights([np.array([[-1.0], [1.0]]), np.zeros(1)])
    return model


def dense_of_two() -> keras.Model:
    layers = keras.layers
    return fitted(of_layers(layers.Flatten(), layers.Dense(64, activation="relu")), classes=2)


def offset() -> keras.Model:
    """Logits that share an offset, which changes nothing."""
    inner = linear()
    return keras.Model(inner.inputs, keras.layers.Rescaling(1.0, offset=50.0)(inner.outputs[0]))


def function() -> Callable[[tf.Tensor], tf.Tensor]:
    inner = dense("elu")
    return lambda images: inner(images, training=False)


# --- faulty models: `fixtures.After` does something to the images or to the logits


class After(fixtures.After):
    """The linear model, not too sharp for a cross-entropy."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**{"sharpness": 3.0, **how})


def before(function: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[], keras.Model]:
    return lambda: After(before=function)


def after(function: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[], keras.Model]:
    return lambda: After(after=function)


def quantised(images: tf.Tensor) -> tf.Tensor:
    return tf.round(images * 8) / 8


def thresholded(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(images > 0.5, tf.float32)


def by_areas(images: tf.Tensor) -> tf.Tensor:
    """Through a resizing that TensorFlow has no gradient for."""
    return tf.image.resize(tf.image.resize(images, [12, 12]), SHAPE[:2], "area")


def thermometer(images: tf.Tensor) -> tf.Tensor:
    """Buckman et al. 2018: how many of ten levels a pixel passes."""
    levels = tf.linspace(0.05, 0.95, 10)
    return tf.reduce_mean(tf.cast(images > levels, tf.float32), axis=-1, keepdims=True)


def compressed(images: tf.Tensor) -> tf.Tensor:
    """As JPEG does: a cosine transform whose coefficients are rounded."""
    side = SHAPE[0]
    k = np.arange(side)
    cosine = np.sqrt(2 / side) * np.cos(np.pi * (2 * k[None] + 1) * k[:, None] / (2 * side))
    cosine[0] /= np.sqrt(2)
    basis = tf.constant(cosine, tf.float32)
    plane = images[..., 0]
    coefficients = tf.round((basis @ plane @ tf.transpose(basis)) * 10) / 10
    return (tf.transpose(basis) @ coefficients @ basis)[..., None]


def looked_up(logits: tf.Tensor) -> tf.Tensor:
    """The class alone."""
    return 10.0 * tf.one_hot(tf.argmax(logits, axis=1), CLASSES) - 5.0


@tf.custom_gradient
def reversed_gradient(images: tf.Tensor) -> Any:
    return tf.identity(images), lambda upstream: -upstream


@tf.custom_gradient
def random_gradient(images: tf.Tensor) -> Any:
    return tf.identity(images), lambda upstream: tf.random.normal(tf.shape(upstream))


def staircase(images: tf.Tensor) -> tf.Tensor:
    """Smooth, and falling where the steps of a staircase would be: gradients point backwards."""
    return images + 1.5 / 60 * tf.sin(60 * images)


def rippled(logits: tf.Tensor) -> tf.Tensor:
    """No prediction of a clear image changes, and the loss is full of hills."""
    return logits + 0.5 * tf.sin(300 * logits)


def infinite(images: tf.Tensor) -> tf.Tensor:
    """A branch that is 0 and has an infinite slope there."""
    nothing = tf.sqrt(tf.nn.relu(images - 2.0))
    return images + nothing


def denoised(images: tf.Tensor) -> tf.Tensor:
    """Onto the nearest pattern, as a generative model would do it: flat almost everywhere."""
    patterns = tf.constant(fixtures.patterns().reshape(CLASSES, -1))
    flat = tf.reshape(images, [-1, patterns.shape[1]])
    distance = tf.reduce_sum((flat[:, None] - patterns[None]) ** 2, axis=-1)
    return tf.reshape(tf.nn.softmax(-1e4 * distance) @ patterns, tf.shape(images))


def floored(logits: tf.Tensor) -> tf.Tensor:
    """Log-probabilities that stop at a floor."""
    return tf.maximum(tf.nn.log_softmax(20.0 * logits), -5.0)


def times(factor: float) -> Callable[[], keras.Model]:
    return after(lambda logits: factor * logits)


SOUND = {
    "a linear model": Animal(linear),
    "a linear model in a smaller ball": Animal(linear, attack=pgd(0.07)),
    "one hidden layer of ReLUs": Animal(lambda: dense("relu")),
    "one hidden layer, smooth": Animal(lambda: dense("tanh")),
    "a convolution with max-pooling": Animal(convolutional),
    "batch norm and dropout at inference": Animal(normalised),
    "a softmax at the end": Animal(probabilities),
    "two classes by one sigmoid": Animal(one_output, labels=LABELS % 2),
    "logits with an offset": Animal(offset),
    "a function of images": Animal(function),
}

_GRADIENTS = frozenset({"no_gradient", "zero_gradients"})
_MISLED = frozenset(
    {
        "unstable_gradients",
        "black_box_stronger",
        "unbounded_fails",
        "unit_test",
        "eps_grid",
        "noise_stronger",
        "contradiction",
    }
)
_WEAK = frozenset(
    {
        "overestimate",
        "step_size",
        "incomplete",
        "restarts",
        "forgotten_success",
        "one_step_stronger",
        "eps_grid",
        "contradiction",
    }
)

FAULTY = {
    "a saturated softmax": Animal(times(1e4), _GRADIENTS),
    "a floor under the logits": Animal(after(floored), _GRADIENTS | _MISLED | _WEAK),
    "tiny logits": Animal(times(1e-6), frozenset({"tiny_logits"})),
    "a ReLU on the logits": Animal(
        after(lambda z: tf.nn.relu(z - tf.reduce_mean(z, axis=1, keepdims=True))),
        frozenset({"relu_logits"}),
    ),
    "rounded logits": Animal(after(lambda z: tf.round(z)), _GRADIENTS),
    "an argmax": Animal(after(looked_up), _GRADIENTS),
    "a quantised input": Animal(before(quantised), _GRADIENTS),
    "thresholds": Animal(before(thresholded), _GRADIENTS),
    "a thermometer code": Animal(before(thermometer), _GRADIENTS),
    "an operation that has no gradient": Animal(before(by_areas), _GRADIENTS),
    "a compressed input": Animal(before(compressed), _GRADIENTS),
    "a stopped gradient": Animal(before(tf.stop_gradient), _GRADIENTS),
    "an input that is cleaned": Animal(before(denoised), _GRADIENTS | _MISLED),
    "a gradient that points backwards": Animal(before(reversed_gradient), _MISLED),
    "a gradient by chance": Animal(before(random_gradient), _MISLED),
    "a smooth staircase": Animal(before(staircase), _MISLED | _WEAK),
    "ripples on the logits": Animal(after(rippled), _MISLED),
    "an infinite slope": Animal(before(infinite), _GRADIENTS | _MISLED),
    "batch norm in training mode": Animal(fixtures.BatchStatistics, frozenset({"random_outputs"})),
    "pixels of another range": Animal(
        lambda: fixtures.honest(3.0, scale=1 / 255), frozenset({"near_chance"})
    ),
    "constant logits": Animal(
        fixtures.constant, _GRADIENTS | {"near_chance"}, labels=np.zeros_like(LABELS)
    ),
    "one tiny step": Animal(
        linear, _WEAK, pgd(EPS, eps_iter=EPS / 100, nb_iter=1, random_start=False)
    ),
    "too few steps": Animal(linear, _WEAK, pgd(EPS, eps_iter=EPS / 20, nb_iter=5)),
    "a loss for more classes": Animal(
        one_output, frozenset({"few_classes"}), pgd(EPS, loss="dlr"), labels=LABELS % 2
    ),
}


@functools.cache
def animal(name: str) -> Animal:
    """The one of that name."""
    return {**SOUND, **FAULTY}[name]
