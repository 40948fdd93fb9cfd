"""What a few passes over a model tell of it: the measurements behind the indicators.

Sizes are on the model's input scale, [0, 1]. The thresholds are in `specs`.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from alp_repro.attacks import PGD, CraftItems, random_starts
from alp_repro.attacks.losses import attack_loss
from alp_repro.attacks.pgd import Iterate, PgdRun
from alp_repro.evaluation.clean import batched
from alp_repro.models.copies import logits_function
from alp_repro.models.probes import relative_change

Numbers = dict[str, float]

STABILITY_RADIUS = 1e-3
STABILITY_POINTS = 20
# A loss still rises where its last iterates gain more than this share of its range: numbers
# of Pintor et al.'s code (`incomplete_optimization_indicator`).
LAST_ITERATES = 10
RISING_SHARE = 0.05


def randomness(
    model: keras.Model, images: np.ndarray, logits: np.ndarray, *, batch_size: int
) -> Numbers:
    """Return how far logits move (`probes.relative_change`) when nothing of an image has changed.

    `repeated`: the largest change in two further passes over the same batches; `batch`: in a pass
    over the images in another order. A model that draws random numbers, or whose batch norm or
    dropout is in training mode, moves.
    """
    program = tf.function(logits_function(model), autograph=False)
    (again,), (more,) = (batched(program, batch_size, images) for _ in range(2))
    order = np.random.default_rng(0).permutation(len(images))
    (shuffled,) = batched(program, batch_size, images[order])
    return {
        "repeated": max(relative_change(again, logits), relative_change(more, logits)),
        "batch": relative_change(shuffled, logits[order]),
    }


def gradients_at_starts(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    eps: float,
    seed: int,
    batch_size: int,
) -> Numbers:
    """Measure at how many random starts in the ball a loss has a gradient that is zero everywhere.

    `cross_entropy` and `margin` are the shares of such starts; `unavailable` is 1 where TensorFlow
    gives no gradient at all.
    """
    logits = logits_function(model)

    @tf.function(autograph=False)
    def zero(x: tf.Tensor, y: tf.Tensor, index: tf.Tensor) -> list[tf.Tensor]:
        points = random_starts(
            x,
            image_index=index,
            restart=tf.zeros_like(index),
            seed=tf.constant(seed),
            eps=tf.constant(eps, tf.float32),
        )
        found = []
        for loss in ("cross_entropy", "margin"):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(points)
                value = attack_loss(loss, labels=y, logits=logits(points))
            try:
                gradient = tape.gradient(value, points)
            except LookupError:  # of an operation that TensorFlow has none for
                gradient = None
            if gradient is None:
                found += 2 * [tf.fill(tf.shape(y), True)]
                continue
            zeros = tf.reduce_all(gradient == 0, axis=[1, 2, 3])
            found += [zeros, tf.fill(tf.shape(y), False)]
        return found

    index = np.arange(len(images))
    cross_entropy, absent, margin, _ = batched(zero, batch_size, images, labels, index)
    return {
        "cross_entropy": float(cross_entropy.mean()),
        "margin": float(margin.mean()),
        "unavailable": float(absent.mean()),
    }


def instability(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
    batch_size: int,
    radius: float = STABILITY_RADIUS,
) -> Numbers:
    """Measure the mean relative change of the cross-entropy at random points near the images.

    The mean over images and over `STABILITY_POINTS` points within `radius` of each, of
    min(1, |loss at the point - loss at the image| / |loss at the image|).
    """
    logits = logits_function(model)

    @tf.function(autograph=False)
    def change(x: tf.Tensor, y: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        here = attack_loss("cross_entropy", labels=y, logits=logits(x))

        def add(point: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            near = random_starts(
                x,
                image_index=index,
                restart=tf.fill(tf.shape(index), point),
                seed=tf.constant(seed),
                eps=tf.constant(radius),
            )
            there = attack_loss("cross_entropy", labels=y, logits=logits(near))
            moved = tf.math.divide_no_nan(tf.abs(there - here), tf.abs(here))
            return point + 1, total + tf.minimum(1.0, moved)

        _, total = tf.while_loop(
            lambda point, _: point < STABILITY_POINTS, add, (tf.constant(0), tf.zeros_like(here))
        )
        return total / STABILITY_POINTS

    (changes,) = batched(change, batch_size, images, labels, np.arange(len(images)))
    return {"mean_change": float(changes.mean())}


def trajectory(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    attack: PGD,
    seed: int,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Follow the first restart of a PGD, iterate by iterate.

    Returns:
      losses float32 and broken bool, each [nb_iter + 1, n]: at the start and after every step.
    """
    logits, steps = logits_function(model), attack.nb_iter

    @tf.function(autograph=False)
    def follow(x: tf.Tensor, y: tf.Tensor, index: tf.Tensor) -> list[tf.Tensor]:
        items = CraftItems(x, y, index, tf.zeros_like(index), tf.constant(seed), logits)
        run = PgdRun(logits, x, y, attack, attack.draw(items))
        losses = tf.TensorArray(tf.float32, size=steps + 1, element_shape=y.shape)
        wrong = tf.TensorArray(tf.bool, size=steps + 1, element_shape=y.shape)

        def visit(
            i: tf.Tensor, here: Iterate, losses: tf.TensorArray, wrong: tf.TensorArray
        ) -> tuple:
            outputs = logits(here.points)
            values = attack_loss(attack.loss, labels=y, logits=outputs)
            broken = tf.argmax(outputs, axis=1, output_type=tf.int32) != y
            further = run.advance(here, tf.minimum(i + 1, steps))
            return i + 1, further, losses.write(i, values), wrong.write(i, broken)

        _, _, losses, wrong = tf.while_loop(
            lambda i, *_: i <= steps,
            visit,
            (tf.constant(0), run.first(), losses, wrong),
            parallel_iterations=1,
        )
        return [tf.transpose(losses.stack()), tf.transpose(wrong.stack())]

    losses, broken = batched(follow, batch_size, images, labels, np.arange(len(images)))
    return losses.T, broken.T


def trajectory_summary(losses: np.ndarray, broken: np.ndarray) -> Numbers:
    """Summarise a trajectory.

    `forgotten`: the share of images with a misclassified iterate whose last one is not;
    `still_rising`: of the images that no iterate breaks, the share whose best loss so far rises by
    more than `RISING_SHARE` of the loss's range within the last `LAST_ITERATES` iterates;
    `standing`: how many these are.
    """
    ever = broken.any(axis=0)
    best = np.maximum.accumulate(losses.astype(np.float64), axis=0)
    late = best[-1] - best[-min(LAST_ITERATES, len(best))]
    rising = late > RISING_SHARE * np.maximum(np.ptp(losses, axis=0), 1e-12)
    standing = ~ever
    return {
        "forgotten": float((ever & ~broken[-1]).mean()),
        "still_rising": float(rising[standing].mean()) if standing.any() else 0.0,
        "standing": float(standing.sum()),
    }
