"""The attack unit test: does the attack find an adversarial example that is known to be there?

Zimmermann, Brendel, Tramèr & Carlini 2022, "Increasing confidence in adversarial robustness
evaluations", section 4: the model's features stay, its last layer is replaced by one that tells a
single planted point of the ball from the points around it. The point is adversarial by
construction, and an attack that does not find it would not find others either.

Ours differs in how the head is fitted: a ridge regression with its threshold between the planted
point and the nearest of the others, in place of a logistic regression; and other corners of the
ball are among the points around it. Where these are of the ball's inside alone, as in the authors'
code, random corners of a trained LeNet's ball cross the threshold as often as attacks do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alp_repro.attacks import PGD, Attack, CraftItems, GradientAttack, RandomPoints
from alp_repro.classifiers.heads import is_graph, last_operation
from alp_repro.evaluation.clean import batched

INNER_POINTS = 64  # uniform in the ball
CORNER_POINTS = 64  # at corners of the ball, as the planted point is
TIGHTNESS = 0.8  # where the threshold lies between the nearest other point and the planted one
STRONGEST_RESTARTS = 3
_RIDGE = 1e-3


@dataclasses.dataclass(frozen=True)
class PlantedResult:
    """How many planted examples were found.

    Attributes:
      images: with a head that tells the planted point from all others.
      found: by the attack of the evaluation under audit.
      by_strongest: by `strongest_attack`.
      by_chance: by as many random corners as the strongest attack takes gradients.
    """

    images: int
    found: int
    by_strongest: int
    by_chance: int


def strongest_attack(eps: float) -> PGD:
    """Return what is left of `strong` with two classes: runs whose step falls from eps.

    They have no target, and their gradients are the point's own: a new last layer has no saturated
    loss to get around.
    """
    return PGD(
        eps=eps,
        eps_iter=eps,
        nb_iter=100,
        restarts=STRONGEST_RESTARTS,
        loss="margin",
        step_schedule="linear",
    )


def cost(attack: GradientAttack) -> int:
    """Return what a planted example costs at most in gradients; a random point counts as one."""
    return int(attack.cost_of(1)) + 2 * strongest_attack(attack.eps).gradients


def features_of(model: keras.Model) -> keras.Model | None:
    """Return the model up to the input of its last layer; None: that is not a vector."""
    if not is_graph(model):
        return None
    images = keras.Input(model.inputs[0].shape[1:], dtype=model.inputs[0].dtype)
    vector = _features(model, images)
    return None if vector is None or len(vector.shape) != 2 else keras.Model(images, vector)


def _features(model: keras.Model, images: Any) -> Any | None:
    last, given = last_operation(model)
    before = images if given is model.inputs[0] else keras.Model(model.inputs[0], given)(images)
    if is_graph(last):
        return _features(last, before)
    return before if isinstance(last, keras.layers.Dense) else None


def planted_examples(
    features: keras.Model,
    images: np.ndarray,
    *,
    attack: GradientAttack,
    seed: int,
    batch_size: int,
) -> PlantedResult:
    """Plant one adversarial example near each image, and count how many attacks find.

    Args:
      features: float32 images in [0, 1] to vectors; see `features_of`.
      images: float32 [n, height, width, channels]; some dozens are enough.
      attack: of the evaluation under audit, one run of it; its loss is taken between two classes,
        its target is left out.
      seed: of the points.
      batch_size: images in a batch.
    """
    program = tf.function(
        lambda x: tf.cast(features(x, training=False), tf.float32), autograph=False
    )
    heads = [
        _head(program, image, eps=attack.eps, seed=seed, index=i) for i, image in enumerate(images)
    ]
    fitted = [i for i, head in enumerate(heads) if head is not None]
    if not fitted:
        return PlantedResult(0, 0, 0, 0)
    weights = np.stack([h[0] for h in heads if h is not None])
    biases = np.array([h[1] for h in heads if h is not None], np.float32)
    binary = dataclasses.replace(
        attack, loss="margin" if attack.loss == "dlr" else attack.loss, target="none", restarts=1
    )
    strongest = strongest_attack(attack.eps)
    chance = RandomPoints(eps=attack.eps, restarts=strongest.gradients, corners=True)
    given = (batch_size, images[fitted], weights, biases, np.asarray(fitted, np.int64))
    counts = [
        int(batched(_search(features, one, seed), *given)[0].sum())
        for one in (binary, strongest, chance)
    ]
    return PlantedResult(len(fitted), *counts)


def _head(
    program: tf.types.experimental.PolymorphicFunction,
    image: np.ndarray,
    *,
    eps: float,
    seed: int,
    index: int,
) -> tuple[np.ndarray, float] | None:
    """Weights and bias that are positive on a planted corner of the ball alone, or None."""
    generator = np.random.default_rng([seed, index])
    inner = generator.uniform(-1, 1, (INNER_POINTS, *image.shape))
    corners = generator.integers(0, 2, (CORNER_POINTS + 1, *image.shape)) * 2 - 1
    offsets = np.concatenate([inner, corners]).astype(np.float32)
    vectors = program(tf.constant(np.clip(image + np.float32(eps) * offsets, 0, 1))).numpy()
    vectors = vectors.astype(np.float64)
    centre = vectors[:-1].mean(axis=0)
    scale = max(float(vectors[:-1].std()), 1e-12)
    centred = (vectors - centre) / scale
    aims = np.full(len(vectors), -1.0)
    aims[-1] = 1.0
    # Ridge regression by its dual: there are fewer points than features.
    gram = centred @ centred.T
    ridge = _RIDGE * max(np.trace(gram) / len(gram), 1e-12)
    direction = centred.T @ np.linalg.solve(gram + ridge * np.eye(len(gram)), aims)
    values = centred @ direction
    nearest, planted = values[:-1].max(), values[-1]
    if not planted > nearest:
        return None
    threshold = nearest + TIGHTNESS * (planted - nearest)
    weights = direction / scale
    return weights.astype(np.float32), float(-threshold - centre @ weights)


def _search(features: keras.Model, attack: Attack, seed: int) -> Callable[..., tf.Tensor]:
    """Return a compiled function of images, heads and indices: is the example found (bool)?"""

    @tf.function(autograph=False)
    def found(x: tf.Tensor, w: tf.Tensor, b: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        def logits(points: tf.Tensor) -> tf.Tensor:
            vectors = tf.cast(features(points, training=False), tf.float32)
            value = tf.reduce_sum(vectors * w, axis=1) + b
            return tf.stack([tf.zeros_like(value), value], axis=1)

        def attacked(restart: tf.Tensor, broken: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            restarts, labels = tf.fill(tf.shape(index), restart), tf.zeros_like(index, tf.int32)
            items = CraftItems(x, labels, index, restarts, tf.constant(seed), logits)
            crafted = attack.craft(logits, items).adversarial
            return restart + 1, broken | (logits(crafted)[:, 1] > 0)

        return tf.while_loop(
            lambda restart, _: restart < attack.restarts,
            attacked,
            (tf.constant(0), tf.fill(tf.shape(b), False)),
        )[1]

    return found
