"""FAB: projections and distances with known values, and what an item's outcome depends on."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from alp_repro.attacks.draws import choose_targets
from alp_repro.attacks.fab import fab_attack, fab_starts, linf_projection
from alp_repro.attacks.losses import loss_and_gradient, margin
from alp_repro.models.copies import logits_function

CLASSES = 4


def projection(points, weights, values) -> np.ndarray:
    tensors = (tf.constant(np.asarray(v, np.float32)) for v in (points, weights, values))
    return linf_projection(*tensors).numpy()


def nearest_by_bisection(point, weights, value) -> float:
    """The least length at which the best point of ball and box has the function cross 0."""
    sign = -np.sign(value) * np.sign(weights)

    def crossed(length: float) -> bool:
        z = np.clip(point + length * sign, 0.0, 1.0)
        return (value + weights @ (z - point)) * np.sign(value) <= 0

    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if crossed(middle) else (middle, high)
    return high


@pytest.mark.parametrize(
    ("point", "weights", "value", "change"),
    [
        ([0.5, 0.5], [2.0, 1.0], 0.6, [-0.2, -0.2]),
        ([0.5, 0.5], [2.0, -1.0], -0.6, [0.2, -0.2]),
        ([0.1, 0.5], [2.0, 1.0], 0.6, [-0.1, -0.4]),  # the first pixel is at its end
        ([0.1, 0.2], [2.0, 1.0], 0.6, [-0.1, -0.2]),  # no point of the box will do: its corner
        ([0.0, 1.0], [2.0, -1.0], 0.6, [0.0, 0.0]),
        ([0.5, 0.5], [0.0, 1.0], 0.3, [0.0, -0.3]),
        ([0.5, 0.5], [0.0, 0.0], 0.3, [0.0, 0.0]),
        ([0.5, 0.5], [1.0, 1.0], 0.0, [0.0, 0.0]),
        ([0.5, 0.5], [1.0, 1.0], np.nan, [0.0, 0.0]),
    ],
)
def test_projections_with_known_values(point, weights, value, change) -> None:
    found = projection([point], [weights], [value])
    np.testing.assert_allclose(found, [change], atol=1e-6)


def test_projections_are_the_shortest_inside_the_box() -> None:
    rng = np.random.default_rng(0)
    points = np.clip(rng.uniform(-0.3, 1.3, (50, 30)), 0, 1).astype(np.float32)
    weights = rng.normal(size=points.shape).astype(np.float32)
    values = rng.normal(0, 4, 50).astype(np.float32)
    change = projection(points, weights, values)
    expected = [nearest_by_bisection(*item) for item in zip(points, weights, values, strict=True)]
    moved = points + change
    assert moved.min() >= 0 and moved.max() <= 1
    reachable = np.array(expected) < 0.999
    assert reachable.sum() > 10
    np.testing.assert_allclose(
        np.abs(change).max(axis=1)[reachable], np.array(expected)[reachable], atol=1e-5
    )
    left = values + (weights * change).sum(axis=1)
    np.testing.assert_allclose(left[reachable], 0, atol=1e-4)


def linear(slope: float = 1.0):
    rng = np.random.default_rng(3)
    weights = (slope * rng.normal(size=(12, CLASSES))).astype(np.float32)

    def logits(points: tf.Tensor) -> tf.Tensor:
        return tf.matmul(tf.reshape(points, [-1, 12]), weights)

    return logits, weights


def run(logits, images, labels, targets, *, starts=None, nb_iter=30, enough=0.0, jit_compile=False):
    def attack(images, labels, targets, starts):
        gradient = loss_and_gradient(logits, labels, loss="margin", targets=targets)
        return fab_attack(
            logits, gradient, images, labels, starts=starts, nb_iter=nb_iter, enough=enough
        )

    given = (images, labels, targets, images if starts is None else starts)
    tensors = [tf.constant(value) for value in given]
    found = tf.function(attack, jit_compile=jit_compile, autograph=False)(*tensors)
    return [value.numpy() for value in found]


def test_a_linear_models_distance_is_found_and_not_undercut() -> None:
    logits, weights = linear()
    images = np.random.default_rng(4).uniform(size=(40, 2, 6, 1)).astype(np.float32)
    outputs = logits(tf.constant(images)).numpy()
    labels = np.argmax(outputs, axis=1).astype(np.int32)
    # Of targets nearer than any other class, the way is straight.
    expected, targets = [], []
    for image, output, label in zip(images.reshape(40, 12), outputs, labels, strict=True):
        lengths = {
            other: nearest_by_bisection(
                image, weights[:, other] - weights[:, label], output[other] - output[label]
            )
            for other in range(CLASSES)
            if other != label
        }
        targets.append(min(lengths, key=lengths.__getitem__))
        expected.append(lengths[targets[-1]])
    adversarial, distance, _ = run(logits, images, labels, np.array(targets, np.int32))
    np.testing.assert_allclose(distance, expected, rtol=0.02)
    assert (distance >= np.array(expected) - 1e-6).all()
    assert (np.argmax(logits(tf.constant(adversarial)), axis=1) != labels).all()
    np.testing.assert_allclose(
        np.abs(adversarial - images).max(axis=(1, 2, 3)), distance, atol=1e-7
    )


def of_small_model(model, images, labels):
    logits = logits_function(model)
    targets = choose_targets(
        "each",
        clean_logits=logits(tf.constant(images)),
        labels=tf.constant(labels),
        image_index=tf.range(len(images)),
        restart=tf.zeros([len(images)], tf.int32),
        seed=tf.constant(0),
    )
    return logits, targets.numpy()


def test_more_steps_find_closer_points(model, images, labels) -> None:
    logits, targets = of_small_model(model, images, labels)
    _, after_few, _ = run(logits, images, labels, targets, nb_iter=3)
    adversarial, after_many, _ = run(logits, images, labels, targets, nb_iter=60)
    assert np.isfinite(after_many).sum() > np.isfinite(after_few).sum()
    both = np.isfinite(after_few)
    assert (after_many[both] < 1.05 * after_few[both] + 1e-6).mean() > 0.9
    assert (after_many[both] < 0.9 * after_few[both]).mean() > 0.3
    margins = margin(labels=tf.constant(labels), logits=model(adversarial)).numpy()
    assert (margins[np.isfinite(after_many)] > -1e-5).all()  # on the boundary, up to rounding


def test_wrongly_classified_images_are_at_no_distance(model, images, labels) -> None:
    logits, targets = of_small_model(model, images, labels)
    adversarial, distance, _ = run(logits, images, labels, targets, nb_iter=3)
    wrong = np.argmax(np.asarray(model(images)), axis=1) != labels
    assert wrong.any()
    assert (distance[wrong] == 0).all() and (distance[~wrong] > 0).all()
    np.testing.assert_array_equal(adversarial[wrong], images[wrong])


def test_an_item_does_not_depend_on_its_batch(model, images, labels) -> None:
    """Nor on how long the others take, where a distance is enough."""
    logits, targets = of_small_model(model, images, labels)
    together = run(logits, images, labels, targets, enough=0.05)
    close = together[1] <= 0.05
    assert 5 < close.sum() < len(images)
    # A batch of the same shape of which some end early and others not at all, and one of the first.
    for others in (np.flatnonzero(close), np.arange(len(images))[::-1]):
        chosen = np.resize(others, len(images))
        again = run(logits, images[chosen], labels[chosen], targets[chosen], enough=0.05)
        for whole, part in zip(together, again, strict=True):
            np.testing.assert_array_equal(whole[chosen], part)


@pytest.mark.slow
def test_what_is_close_enough_is_left_alone(model, images, labels) -> None:
    logits, targets = of_small_model(model, images, labels)
    _, first, _ = run(logits, images, labels, targets, nb_iter=1, enough=0.2)
    _, to_the_end, _ = run(logits, images, labels, targets)
    _, enough, _ = run(logits, images, labels, targets, enough=0.2)
    np.testing.assert_array_equal(enough <= 0.2, to_the_end <= 0.2)
    at_once = (first <= 0.2) & (first > 0)
    np.testing.assert_array_equal(enough[at_once], first[at_once])
    assert (to_the_end[at_once] < first[at_once] - 1e-3).any()


@pytest.mark.slow
def test_xla_compiles_it(model, images, labels) -> None:
    logits, targets = of_small_model(model, images, labels)
    plain = run(logits, images, labels, targets, nb_iter=5)
    compiled = run(logits, images, labels, targets, nb_iter=5, jit_compile=True)
    for ours, theirs in zip(plain[:2], compiled[:2], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_gradients_that_are_not_finite_count_as_zero() -> None:
    logits, _ = linear()

    def rooted(points: tf.Tensor) -> tf.Tensor:
        return logits(points) + tf.sqrt(points[:, 0, 0, :1]) * tf.range(4.0)  # infinite slope at 0

    images = np.random.default_rng(4).uniform(size=(5, 2, 6, 1)).astype(np.float32)
    images[:, 0, 0] = 0.0
    labels = np.argmax(logits(tf.constant(images)), axis=1).astype(np.int32)
    adversarial, _, nonfinite = run(rooted, images, labels, (labels + 1) % CLASSES, nb_iter=4)
    assert np.isfinite(adversarial).all()
    assert (nonfinite > 0).all()


def test_starts_are_the_image_first_and_then_half_the_radius_away(images) -> None:
    count = len(images)
    restart = np.arange(count, dtype=np.int32) % 2

    def starts(part: slice) -> np.ndarray:
        return fab_starts(
            tf.constant(images[part]),
            image_index=tf.range(count)[part],
            restart=tf.constant(restart[part]),
            seed=tf.constant(3),
            eps=0.2,
            from_image=tf.constant(restart[part] == 0),
        ).numpy()

    found = starts(slice(None))
    distance = np.abs(found - images).max(axis=(1, 2, 3))
    np.testing.assert_array_equal(found[::2], images[::2])
    assert (distance[1::2] <= 0.1 + 1e-6).all() and (distance[1::2] > 0.05).all()
    assert found.min() >= 0 and found.max() <= 1
    np.testing.assert_array_equal(starts(slice(4, 9)), found[4:9])
