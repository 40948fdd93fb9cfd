"""What a few passes over a model tell of it: the measurements behind the indicators.

Everything here is on the model's input scale, [0, 1]; each function says what it counts and over
what. Nothing is judged here: see `indicators`.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from alp_repro.attacks import PGD, Attack, CraftItems, Ensemble, ensemble_of, random_starts
from alp_repro.attacks.losses import attack_loss
from alp_repro.attacks.pgd import Iterate, PgdRun
from alp_repro.evaluation.clean import batched
from alp_repro.models.copies import logits_function
from alp_repro.models.probes import relative_change

Numbers = dict[str, float]

STABILITY_RADIUS = 1e-3
STABILITY_POINTS = 20
# A loss still rises where its last so many iterates gain more than this share of its range: both
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
    """Shares of random starts in the ball at which a loss has a gradient that is zero everywhere.

    `cross_entropy` and `margin` are such shares; `unavailable` is 1 where TensorFlow gives no
    gradient at all; `not_finite` is the share of starts with an infinity or NaN in it.
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
                nothing = tf.fill(tf.shape(y), True)
                found += [nothing, tf.fill(tf.shape(y), False), nothing]
                continue
            finite = tf.reduce_all(tf.math.is_finite(gradient), axis=[1, 2, 3])
            found += [
                tf.reduce_all(gradient == 0, axis=[1, 2, 3]),
                ~finite,
                tf.fill(tf.shape(y), False),
            ]
        return found

    ce, ce_bad, absent, margin, margin_bad, _ = batched(
        zero, batch_size, images, labels, np.arange(len(images))
    )
    return {
        "cross_entropy": float(ce.mean()),
        "margin": float(margin.mean()),
        "unavailable": float(absent.mean()),
        "not_finite": float((ce_bad | margin_bad).mean()),
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
    """Mean relative change of the cross-entropy at random points very near the images.

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


def way_of_an_attack(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    attack: PGD,
    seed: int,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The losses and verdicts along the first restart of a constant-step PGD.

    Returns:
      losses float32 and broken bool, each [nb_iter + 1, n]: at the start and after every step.
    """
    logits, steps = logits_function(model), attack.nb_iter

    @tf.function(autograph=False)
    def way(x: tf.Tensor, y: tf.Tensor, index: tf.Tensor) -> list[tf.Tensor]:
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

    losses, broken = batched(way, batch_size, images, labels, np.arange(len(images)))
    return losses.T, broken.T


def of_way(losses: np.ndarray, broken: np.ndarray) -> Numbers:
    """What the way of an attack says.

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


def broken_by_starts(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    attack: Attack | Ensemble,
    seed: int,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """What an attack does that has no gradient to follow: it stays at its random starts.

    Returns:
      first_break int [n], the first restart whose start is misclassified, -1: none; and those
      starts, float32 like the images, zeros where there is none.
    """
    logits = logits_function(model)

    @tf.function(autograph=False)
    def starts(x: tf.Tensor, index: tf.Tensor, restart: tf.Tensor) -> list[tf.Tensor]:
        points = random_starts(
            x,
            image_index=index,
            restart=restart,
            seed=tf.constant(seed),
            eps=tf.constant(attack.eps, tf.float32),
        )
        return [points, tf.argmax(logits(points), axis=1, output_type=tf.int32)]

    first, found = np.full(len(images), -1), np.zeros_like(images)
    starts_anew = getattr(ensemble_of(attack).phases[0].attack, "random_start", False)
    for restart in range(attack.restarts if starts_anew else 0):
        index = np.arange(len(images))
        points, predicted = batched(
            starts, batch_size, images, index, np.full(len(images), restart, np.int32)
        )
        new = (predicted != labels) & (first < 0)
        first[new], found[new] = restart, points[new]
    return first, found
