"""Auto-PGD against a plain NumPy reading of Algorithm 1, and on problems with a known answer."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from alp_repro.attacks.apgd import ApgdResult, auto_pgd, checkpoints, linf_bounds
from alp_repro.attacks.losses import attack_loss

_EPS = 0.3
_PIXELS, _CLASSES = 12, 4
_Visit = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def _images(count: int = 9, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).uniform(size=(count, _PIXELS)), tf.float32)


def _starts(images: tf.Tensor, seed: int = 1) -> tf.Tensor:
    noise = np.random.default_rng(seed).uniform(-_EPS, _EPS, images.shape)
    return tf.clip_by_value(images + tf.cast(noise, tf.float32), 0.0, 1.0)


def _wavy(labels: tf.Tensor) -> Callable[[tf.Tensor], _Visit]:
    """A small smooth network with many local maxima, cross-entropy of its labels."""
    rng = np.random.default_rng(2)
    first = tf.constant(rng.normal(0.0, 2.0, (_PIXELS, 16)), tf.float32)
    second = tf.constant(rng.normal(0.0, 1.0, (16, _CLASSES)), tf.float32)

    def value_and_gradient(points: tf.Tensor) -> _Visit:
        with tf.GradientTape() as tape:
            tape.watch(points)
            logits = tf.matmul(tf.sin(3.0 * tf.matmul(points, first)), second)
            loss = attack_loss("cross_entropy", labels=labels, logits=logits)
        return logits, loss, tape.gradient(loss, points)

    return value_and_gradient


def _linear(slope: float = 1.0, *, loss_rises: bool = True) -> Callable[[tf.Tensor], _Visit]:
    """The sum of the pixels; or a loss that stays put although its gradient promises a rise."""

    def value_and_gradient(points: tf.Tensor) -> _Visit:
        total = slope * tf.reduce_sum(points, axis=1)
        loss = total if loss_rises else tf.zeros_like(total)
        return tf.stack([-total, total], axis=1), loss, slope * tf.ones_like(points)

    return value_and_gradient


def _recording(
    value_and_gradient: Callable[[tf.Tensor], _Visit], visits: list[tuple[np.ndarray, np.ndarray]]
) -> Callable[[tf.Tensor], _Visit]:
    def recorded(points: tf.Tensor) -> _Visit:
        logits, loss, gradient = value_and_gradient(points)
        visits.append((points.numpy(), loss.numpy()))
        return logits, loss, gradient

    return recorded


def _reference(
    value_and_gradient: Callable[[tf.Tensor], _Visit],
    image: np.ndarray,
    start: np.ndarray,
    *,
    nb_iter: int,
) -> tuple[np.ndarray, float, list[np.ndarray], float]:
    """Algorithm 1 for a single image, point by point: best point, its loss, visits, last step."""

    def visit(x: np.ndarray) -> tuple[float, np.ndarray]:
        _, loss, gradient = value_and_gradient(tf.constant(x[None], tf.float32))
        return float(loss[0]), gradient.numpy()[0]

    def project(x: np.ndarray) -> np.ndarray:
        return np.clip(np.clip(x, image - _EPS, image + _EPS), 0.0, 1.0).astype(np.float32)

    p = [0.0, 0.22]
    while p[-1] < 1.0:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    review = sorted({math.ceil(round(share * nb_iter, 6)) for share in p if share <= 1.0})
    step = 2 * _EPS
    x_old = x = project(start)
    f, gradient = visit(x)
    x_max, f_max, g_max = x, f, gradient
    visits, rises = [x], 0
    f_max_then, halved, last_review = f_max, False, 0
    for k in range(nb_iter):
        z = project(x + step * np.sign(gradient))
        x_new = z if k == 0 else project(x + 0.75 * (z - x) + 0.25 * (x - x_old))
        f_new, gradient = visit(x_new)
        visits.append(x_new)
        rises += f_new > f
        x_old, x, f = x, x_new, f_new
        if f > f_max:
            x_max, f_max, g_max = x, f, gradient
        if k + 1 in review:
            condition_1 = rises < 0.75 * (k + 1 - last_review)
            condition_2 = not halved and f_max == f_max_then
            halved = condition_1 or condition_2
            if halved:
                step, x, f, gradient = step / 2, x_max, f_max, g_max
            rises, f_max_then, last_review = 0, f_max, k + 1
    return x_max, f_max, visits, step


def test_checkpoints_are_the_papers() -> None:
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(50) == [0, 11, 21, 29, 35, 40, 44, 47, 50]
    assert checkpoints(1) == [0, 1]


@pytest.mark.parametrize("nb_iter", [1, 10, 60])
def test_visits_the_points_of_algorithm_1(nb_iter: int) -> None:
    images = _images()
    starts, labels = _starts(images), tf.constant([0, 1, 2, 3, 0, 1, 2, 3, 0])
    visits: list[tuple[np.ndarray, np.ndarray]] = []
    result = auto_pgd(
        _recording(_wavy(labels), visits), images, starts, eps=_EPS, nb_iter=nb_iter, labels=labels
    )
    assert len(visits) == nb_iter + 1
    for row in range(len(labels)):
        best, best_loss, points, step = _reference(
            _wavy(labels[row : row + 1]), images[row].numpy(), starts[row].numpy(), nb_iter=nb_iter
        )
        np.testing.assert_allclose([v[0][row] for v in visits], points, atol=1e-4)
        np.testing.assert_allclose(result.best_images[row], best, atol=1e-4)
        np.testing.assert_allclose(result.best_loss[row], best_loss, rtol=1e-3)
        np.testing.assert_allclose(result.steps[row], step, rtol=1e-6)
    if nb_iter == 60:
        assert len(set(result.steps.numpy())) > 1  # step sizes are each image's own


def test_a_loss_that_never_rises_halves_the_step_at_every_checkpoint() -> None:
    images = tf.fill([1, 1], 0.5)
    visits: list[tuple[np.ndarray, np.ndarray]] = []
    flat = _recording(_linear(loss_rises=False), visits)
    result = auto_pgd(flat, images, images, eps=_EPS, nb_iter=100)
    # After a review the point is the start again, from which the walk to the edge begins anew.
    points = np.array([v[0][0, 0] for v in visits])
    returned = [k for k in range(1, 100) if points[k + 1] < points[k] - 1e-6]
    assert returned == [22, 41, 57, 70, 80, 87, 93, 99]
    np.testing.assert_allclose(result.steps, [2 * _EPS / 2**8])


def test_a_loss_that_always_rises_keeps_its_step() -> None:
    visits = 0

    def ever_better(points: tf.Tensor) -> _Visit:
        nonlocal visits
        visits += 1
        loss = tf.fill([1], float(visits))
        return tf.zeros([1, 2]), loss, tf.ones_like(points)

    images = tf.fill([1, 1], 0.5)
    result = auto_pgd(ever_better, images, images, eps=_EPS, nb_iter=40)
    np.testing.assert_allclose(result.steps, [2 * _EPS])
    np.testing.assert_array_equal(result.best_loss, [41.0])


@pytest.mark.parametrize("peak", [0, 1])
def test_a_best_loss_that_stands_still_halves_the_step_at_every_second_checkpoint(
    peak: int,
) -> None:
    """Condition 2 alone: all but a step or two of a window raise the loss, never past the peak."""
    visits = 0

    def below_the_peak(points: tf.Tensor) -> _Visit:
        nonlocal visits
        loss = tf.fill([1], 1000.0 if visits == peak else float(visits))
        visits += 1
        return tf.zeros([1, 2]), loss, tf.ones_like(points)

    images = tf.fill([1, 1], 0.5)
    result = auto_pgd(below_the_peak, images, images, eps=_EPS, nb_iter=100)
    # Peak 0: at 22, 57, 80 and 93; peak 1, a gain in the first window: at 41, 70, 87 and 99.
    np.testing.assert_allclose(result.steps, [2 * _EPS / 2**4])


@pytest.mark.parametrize("slope", [1.0, -2.0])
def test_reaches_the_corner_that_maximises_a_linear_loss(slope: float) -> None:
    images = _images()
    result = auto_pgd(_linear(slope), images, _starts(images), eps=_EPS, nb_iter=20)
    lower, upper = linf_bounds(images, eps=_EPS)
    np.testing.assert_allclose(result.best_images, upper if slope > 0 else lower, atol=1e-6)


def test_reaches_the_maximum_of_a_concave_loss() -> None:
    images = tf.fill([3, _PIXELS], 0.5)
    scales = tf.constant(np.linspace(1.0, 30.0, _PIXELS), tf.float32)
    summit = tf.constant(np.linspace(0.1, 0.9, _PIXELS), tf.float32)  # partly outside the ball

    def value_and_gradient(points: tf.Tensor) -> _Visit:
        loss = -tf.reduce_sum(scales * (points - summit) ** 2, axis=1)
        return tf.stack([loss, -loss], axis=1), loss, -2.0 * scales * (points - summit)

    result = auto_pgd(value_and_gradient, images, _starts(images), eps=_EPS, nb_iter=300)
    optimum = np.broadcast_to(np.clip(summit, 0.2, 0.8), images.shape)
    np.testing.assert_allclose(result.best_images, optimum, atol=0.01)


def test_the_best_point_is_the_best_visited_and_its_loss_never_falls() -> None:
    images = _images()
    labels = tf.constant([0, 1, 2, 3, 0, 1, 2, 3, 0])
    visits: list[tuple[np.ndarray, np.ndarray]] = []
    run = _recording(_wavy(labels), visits)
    result = auto_pgd(run, images, _starts(images), eps=_EPS, nb_iter=50, labels=labels)
    losses = np.array([v[1] for v in visits])
    np.testing.assert_array_equal(result.best_loss, losses.max(axis=0))
    best = losses.argmax(axis=0)
    np.testing.assert_array_equal(
        result.best_images, [visits[k][0][row] for row, k in enumerate(best)]
    )
    np.testing.assert_array_equal(_wavy(labels)(result.best_images)[1], result.best_loss)
    assert np.any(best > 0) and np.any(losses[-1] < losses.max(axis=0))


def test_adversarial_is_the_first_misclassified_point_or_the_best_one() -> None:
    images = tf.constant([[0.5] * _PIXELS, [0.1] * _PIXELS, [0.9] * _PIXELS])
    labels = tf.constant([0, 0, 0])
    threshold = 0.6 * _PIXELS  # out of the second image's reach; the third is beyond it at once

    def value_and_gradient(points: tf.Tensor) -> _Visit:
        total = tf.reduce_sum(points, axis=1)
        logits = tf.stack([tf.fill([3], threshold), total], axis=1)
        return logits, total, 1e-3 * tf.ones_like(points)

    visits: list[tuple[np.ndarray, np.ndarray]] = []
    run = _recording(value_and_gradient, visits)
    result = auto_pgd(run, images, images, eps=_EPS, nb_iter=10, labels=labels)
    np.testing.assert_array_equal(result.broken, [True, False, True])
    np.testing.assert_array_equal(result.adversarial[0], visits[1][0][0])
    np.testing.assert_array_equal(result.adversarial[1], result.best_images[1])
    np.testing.assert_array_equal(result.adversarial[2], images[2])


def test_without_labels_nothing_is_broken() -> None:
    images = _images()
    result = auto_pgd(_linear(), images, images, eps=_EPS, nb_iter=5)
    assert not np.any(result.broken)
    np.testing.assert_array_equal(result.adversarial, result.best_images)


def test_a_misclassified_point_that_a_return_skips_still_counts() -> None:
    """The loss falls where the class changes: the best point is not the adversarial one."""
    images = tf.fill([1, 1], 0.5)

    def value_and_gradient(points: tf.Tensor) -> _Visit:
        x = points[:, 0]
        return tf.stack([0.6 - x, x - 0.6], axis=1), -x, tf.ones_like(points)

    result = auto_pgd(
        value_and_gradient, images, images, eps=_EPS, nb_iter=5, labels=tf.constant([0])
    )
    np.testing.assert_array_equal(result.broken, [True])
    np.testing.assert_array_equal(result.best_images, images)
    assert result.adversarial[0, 0] > 0.6


def _run(
    images: tf.Tensor, starts: tf.Tensor, labels: tf.Tensor, *, nb_iter: int, compiled: bool | None
) -> ApgdResult:
    """compiled: None for eager, False for tf.function, True for tf.function under XLA."""

    def run() -> ApgdResult:
        return auto_pgd(_wavy(labels), images, starts, eps=_EPS, nb_iter=nb_iter, labels=labels)

    return run() if compiled is None else tf.function(run, jit_compile=compiled)()


@pytest.mark.parametrize("compiled", [None, False])
def test_an_image_does_not_depend_on_the_others(compiled: bool | None) -> None:
    # As many as the engine's batches have on every processor, see `alp_repro.attacks.rounding`.
    images, labels = _images(24), tf.constant([0, 1, 2, 3] * 6)
    starts = _starts(images)
    whole = _run(images, starts, labels, nb_iter=30, compiled=compiled)
    turned = _run(images[::-1], starts[::-1], labels[::-1], nb_iter=30, compiled=compiled)
    others = tf.tensor_scatter_nd_update(starts, [[0]], [tf.ones(_PIXELS)])
    beside = _run(images, others, labels, nb_iter=30, compiled=compiled)
    for field, other, third in zip(whole, turned, beside, strict=True):
        np.testing.assert_array_equal(field, other[::-1])
        np.testing.assert_array_equal(field[1:], third[1:])
    assert np.any(whole.best_images[0] != beside.best_images[0])


@pytest.mark.parametrize("compiled", [False, True])
def test_graph_and_xla_agree_with_eager(compiled: bool) -> None:
    images, labels = _images(), tf.constant([0, 1, 2, 3, 0, 1, 2, 3, 0])
    starts = _starts(images)
    eager = _run(images, starts, labels, nb_iter=30, compiled=None)
    other = _run(images, starts, labels, nb_iter=30, compiled=compiled)
    for field, same in zip(eager, other, strict=True):
        np.testing.assert_allclose(
            tf.cast(field, tf.float32), tf.cast(same, tf.float32), rtol=1e-4, atol=1e-4
        )


def test_a_batch_of_unknown_size_runs() -> None:
    images, labels = _images(), tf.constant([0, 1, 2, 3, 0, 1, 2, 3, 0])

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, _PIXELS]),
            tf.TensorSpec([None, _PIXELS]),
            tf.TensorSpec([None], tf.int32),
        ]
    )
    def run(images: tf.Tensor, starts: tf.Tensor, labels: tf.Tensor) -> ApgdResult:
        return auto_pgd(_wavy(labels), images, starts, eps=_EPS, nb_iter=10, labels=labels)

    known = _run(images, _starts(images), labels, nb_iter=10, compiled=False)
    unknown = run(images, _starts(images), labels)
    np.testing.assert_allclose(unknown.best_images, known.best_images, atol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("eps", [0.3, 76.5 / 255, 16 / 255, 2 / 255, 0.1, 0.0])
def test_bounds_are_inside_the_ball_to_the_last_bit(eps: float, jit_compile: bool) -> None:
    rng = np.random.default_rng(5)
    images = np.concatenate([rng.uniform(size=100_000), np.arange(256) / 255]).astype(np.float32)
    bounds = tf.function(linf_bounds, jit_compile=jit_compile)
    lower, upper = (b.numpy() for b in bounds(tf.constant(images), eps=eps))
    eps32 = np.float32(eps)
    for bound in (lower, upper):
        assert np.all(np.abs(bound - images) <= eps32)
        assert np.all((bound >= 0.0) & (bound <= 1.0))
    # As wide as can be: in exact arithmetic the next number outwards is out of the ball.
    below = np.nextafter(lower, np.float32(-1)).astype(np.float64)
    above = np.nextafter(upper, np.float32(2)).astype(np.float64)
    assert np.all((images - below > eps32) | (below < 0))
    assert np.all((above - images > eps32) | (above > 1))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_every_visited_point_is_inside_the_ball(jit_compile: bool) -> None:
    images = _images(200)
    labels = tf.constant(np.arange(200) % _CLASSES, tf.int32)
    outside = images + 2.0 * (_starts(images) - images) + 0.2
    result = _run(images, outside, labels, nb_iter=25, compiled=jit_compile)
    for found in (result.best_images.numpy(), result.adversarial.numpy()):
        assert np.all(np.abs(found - images.numpy()) <= np.float32(_EPS))
        assert np.all((found >= 0.0) & (found <= 1.0))
    assert np.any(np.abs(result.best_images - images) > 0.29)


def test_image_batches_of_rank_four() -> None:
    images = tf.constant(np.random.default_rng(6).uniform(0, 1, (2, 3, 3, 1)), tf.float32)

    def value_and_gradient(points: tf.Tensor) -> _Visit:
        total = tf.reduce_sum(points, axis=[1, 2, 3])
        return tf.stack([total, -total], axis=1), total, tf.ones_like(points)

    result = auto_pgd(value_and_gradient, images, images, eps=_EPS, nb_iter=5)
    np.testing.assert_allclose(
        result.best_images, np.minimum(images.numpy() + np.float32(_EPS), 1.0), rtol=1e-6
    )


def test_bfloat16_crafting_keeps_float32_points() -> None:
    images = _images()

    def value_and_gradient(points: tf.Tensor) -> _Visit:
        return tuple(tf.cast(part, tf.bfloat16) for part in _linear()(points))

    result = auto_pgd(value_and_gradient, images, images, eps=_EPS, nb_iter=20)
    assert result.best_images.dtype == result.best_loss.dtype == tf.float32
    np.testing.assert_array_equal(result.best_images, linf_bounds(images, eps=_EPS)[1])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_eps_may_be_a_tensor(jit_compile: bool) -> None:
    images = _images()

    @tf.function(jit_compile=jit_compile)
    def run(eps: tf.Tensor) -> ApgdResult:
        return auto_pgd(_linear(), images, images, eps=eps, nb_iter=20)

    for eps in (0.1, _EPS):
        expected = linf_bounds(images, eps=eps)[1]
        found = run(tf.constant(eps)).best_images
        np.testing.assert_allclose(found, expected, atol=1e-6)
