"""Attack settings, starting points, targets, and the loop against Cleverhans' own."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

from alp_repro import attacks
from alp_repro.attacks import PGD, Attack
from alp_repro.errors import InputError
from alp_repro.models import build_model
from alp_repro.models.copies import copy_in_dtype, copy_weights, logits_function
from tests.attack_factory import attack_of
from tests.small_model import CLASSES, IMAGE_SHAPE, small_model

SOME = PGD(eps=0.3, eps_iter=0.05, nb_iter=4)
compiled_starts = tf.function(attacks.random_starts)
compiled_targets = tf.function(attacks.choose_targets)


def attack(**changes: Any) -> Any:
    return attack_of(**{"eps": 0.3, "eps_iter": 0.05, "nb_iter": 4, **changes})


def craft(logits: Any, images: Any, labels: Any, *, attack: Any, **drawn: Any) -> tf.Tensor:
    """The end of a run from what is drawn."""
    return attack.ascend(logits, images, labels, attacks.Draws(**drawn)).adversarial


def starts(images: np.ndarray, *, restart: int = 0, seed: int = 3, eps: float = 0.1) -> np.ndarray:
    n = len(images)
    return compiled_starts(
        tf.constant(images),
        image_index=tf.range(n),
        restart=tf.fill([n], restart),
        seed=tf.constant(seed),
        eps=tf.constant(eps),
    ).numpy()


# The loop and Cleverhans'


def cleverhans_and_ours(
    logits: Callable[[tf.Tensor], tf.Tensor],
    images: np.ndarray,
    classes: np.ndarray,
    settings: Attack,
    *,
    targeted: bool,
) -> tuple[Callable[[], tf.Tensor], Callable[[], tf.Tensor]]:
    x, y = tf.constant(images), tf.constant(classes)

    def theirs() -> tf.Tensor:
        return projected_gradient_descent(
            logits,
            x,
            settings.eps,
            settings.eps_iter,
            settings.nb_iter,
            np.inf,
            clip_min=0.0,
            clip_max=1.0,
            y=y,
            targeted=targeted,
            rand_init=False,
        )

    def ours() -> tf.Tensor:
        return craft(logits, x, y, attack=settings, starts=x, targets=y if targeted else None)

    return theirs, ours


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(
    ("eps", "eps_iter", "nb_iter"),
    [
        (0.3, 0.01, 12),
        pytest.param(50 / 255, 50 / 255, 5, marks=pytest.mark.slow),
        pytest.param(16 / 255, 2 / 255, 12, marks=pytest.mark.slow),
    ],
)
def test_the_loop_is_cleverhans_to_the_last_bit(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    eps: float,
    eps_iter: float,
    nb_iter: int,
    targeted: bool,
) -> None:
    settings = PGD(eps=eps, eps_iter=eps_iter, nb_iter=nb_iter)
    classes = (labels + 4) % CLASSES if targeted else labels
    theirs, ours = cleverhans_and_ours(
        logits_function(model), images, classes, settings, targeted=targeted
    )
    expected = theirs().numpy()
    assert np.abs(expected - images).max() > min(eps, nb_iter * eps_iter) / 2  # it moved
    np.testing.assert_array_equal(ours(), expected)
    np.testing.assert_array_equal(tf.function(ours)(), expected)
    np.testing.assert_array_equal(tf.function(theirs)(), expected)


@pytest.mark.slow
def test_the_loop_is_cleverhans_to_the_last_bit_on_lenet() -> None:
    """Compiled against compiled: TensorFlow fuses LeNet's layers in a graph, and only there."""
    lenet = build_model("lenet", image_shape=(28, 28, 1), num_classes=10, width=4)
    images = np.random.default_rng(0).random((16, 28, 28, 1), dtype=np.float32)
    theirs, ours = cleverhans_and_ours(
        logits_function(lenet),
        images,
        np.arange(16, dtype=np.int32) % 10,
        PGD(eps=0.3, eps_iter=0.02, nb_iter=20),
        targeted=False,
    )
    np.testing.assert_array_equal(tf.function(ours)(), tf.function(theirs)())


# Steps, iterates, bounds


class Recorder:
    """A linear model that remembers where it was asked: in eager mode, the iterates."""

    def __init__(self, kernel: np.ndarray) -> None:
        self.kernel = tf.constant(kernel, tf.float32)
        self.points: list[np.ndarray] = []

    def __call__(self, points: tf.Tensor) -> tf.Tensor:
        self.points.append(points.numpy())
        return tf.reshape(points, [len(points), -1]) @ self.kernel


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_step_sizes_follow_the_schedule(schedule: str) -> None:
    recorder = Recorder(np.random.default_rng(0).normal(size=(64, CLASSES)))
    images = np.full((2, *IMAGE_SHAPE), 0.5, np.float32)
    settings = attack(eps=0.4, eps_iter=0.05, nb_iter=5, step_schedule=schedule)
    last = craft(
        recorder,
        tf.constant(images),
        tf.constant([1, 2]),
        attack=settings,
        starts=tf.constant(images),
    )
    # Weak gradients keep their sign here, so every pixel moves by the whole step each time.
    moves = np.abs(np.diff([*recorder.points, last.numpy()], axis=0))
    steps = [0.05] * 5 if schedule == "constant" else [0.05, 0.04, 0.03, 0.02, 0.01]
    for move, step in zip(moves, steps, strict=True):
        np.testing.assert_allclose(move, step, atol=1e-6)


def test_given_sizes_replace_the_attacks_own() -> None:
    recorder = Recorder(np.random.default_rng(0).normal(size=(64, CLASSES)))
    images = np.full((2, *IMAGE_SHAPE), 0.5, np.float32)
    last = craft(
        recorder,
        tf.constant(images),
        tf.constant([1, 2]),
        attack=attack(eps=0.2, eps_iter=0.15).replace_unchecked(
            eps=tf.constant(0.1), eps_iter=tf.constant(0.075), nb_iter=tf.constant(2)
        ),
        starts=tf.constant(images),
    )
    assert len(recorder.points) == 2
    np.testing.assert_allclose(np.abs(recorder.points[1] - images), 0.075, atol=1e-6)
    moves = np.abs(last - images)
    assert moves.max() == pytest.approx(0.1, abs=1e-6)
    assert np.mean(np.isclose(moves, 0.1, atol=1e-6)) > 0.9  # but for gradients that vanish


def by_hand(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    settings: Attack,
    noise: Callable[[Any], tf.Tensor],
) -> np.ndarray:
    """PGD from the clean images with momentum and noisy gradients, as `PGD` describes it."""
    points, direction = images, np.zeros_like(images)
    for i in range(settings.nb_iter):
        done = i / settings.nb_iter
        width = np.float32(settings.gradient_noise * max(0.0, 1.0 - 2.0 * done))
        looked_at = tf.constant(points + width * noise(i).numpy())
        with tf.GradientTape() as tape:
            tape.watch(looked_at)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(looked_at))
        direction = settings.momentum * direction + tape.gradient(loss, looked_at).numpy()
        eta = points + np.float32(settings.eps_iter) * np.sign(direction) - images
        eta = np.clip(eta, -settings.eps, settings.eps)
        points = np.clip(images + eta, 0, 1).astype(np.float32)
    return points


@pytest.mark.parametrize(
    ("momentum", "gradient_noise"), [(0.0, 0.0), (0.8, 0.0), (0.0, 0.4), (0.6, 0.4)]
)
def test_momentum_and_noisy_gradients_are_as_described(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    momentum: float,
    gradient_noise: float,
) -> None:
    settings = attack(eps=0.2, nb_iter=8, momentum=momentum, gradient_noise=gradient_noise)
    index = tf.range(len(images))
    noise = attacks.item_noise(IMAGE_SHAPE, image_index=index, restart=index, seed=tf.constant(3))
    found = craft(
        logits_function(model),
        tf.constant(images),
        tf.constant(labels),
        attack=settings,
        starts=tf.constant(images),
        noise=noise,
    )
    expected = by_hand(model, images, labels, settings, noise)
    # A gradient that is all but zero may have the other sign by another rounding.
    assert np.mean(np.abs(found - expected) > 1e-6) < 0.01
    plain = by_hand(model, images, labels, attack(eps=0.2, nb_iter=8), noise)
    changed = np.mean(np.abs(expected - plain) > 1e-6)
    assert changed > 0.1 if momentum or gradient_noise else changed == 0


def test_noise_depends_on_seed_image_restart_and_step_alone() -> None:
    def noise(image: list[int], restart: list[int], step: int, seed: int = 3) -> np.ndarray:
        draw = attacks.item_noise(
            IMAGE_SHAPE,
            image_index=tf.constant(image),
            restart=tf.constant(restart),
            seed=tf.constant(seed),
        )
        return draw(tf.constant(step)).numpy()

    first = noise([5, 6, 5], [0, 0, 1], 2)
    np.testing.assert_array_equal(noise([6, 5], [0, 0], 2), first[[1, 0]])
    others = [first[1], first[2], noise([5], [0], 3)[0], noise([5], [0], 2, seed=4)[0]]
    for other in others:
        assert np.mean(other == first[0]) < 0.05


@pytest.mark.parametrize(("items", "steps"), [(200, 1), (1, 200)])
def test_noise_is_uniform_and_independent_between_items_and_steps(items: int, steps: int) -> None:
    index = tf.range(items)
    draw = attacks.item_noise(IMAGE_SHAPE, image_index=index, restart=index, seed=tf.constant(0))
    values = np.concatenate([draw(tf.constant(step)).numpy() for step in range(steps)])
    assert values.min() >= -1 and values.max() <= 1
    counts, _ = np.histogram(values, bins=10, range=(-1, 1))
    expected = values.size / 10
    assert np.sum((counts - expected) ** 2) / expected < 33.7  # probability 1e-4
    products = values[1:] * values[:-1]  # of variance 1/9
    assert abs(np.mean(products)) < 4 / 3 / np.sqrt(products.size)


def test_noisy_gradients_need_noise() -> None:
    with pytest.raises(InputError, match=r"gradient_noise .*evaluation"):
        craft(
            lambda x: x,
            tf.zeros([1, *IMAGE_SHAPE]),
            tf.constant([0]),
            attack=attack(gradient_noise=0.1),
            starts=tf.zeros([1, *IMAGE_SHAPE]),
        )


def test_success_any_returns_the_iterate_of_the_largest_margin(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    points: list[np.ndarray] = []

    def logits(x: tf.Tensor) -> tf.Tensor:
        points.append(x.numpy())
        return model(x)

    settings = attack(eps=0.1, eps_iter=0.1, nb_iter=7, success="any")
    chosen = craft(
        logits,
        tf.constant(images),
        tf.constant(labels),
        attack=settings,
        starts=tf.constant(starts(images)),
    ).numpy()
    assert len(points) == 8  # the start, six iterates, and the last one

    def margins(x: np.ndarray) -> np.ndarray:
        outputs = model(x).numpy()
        true = outputs[np.arange(len(labels)), labels]
        outputs[np.arange(len(labels)), labels] = -np.inf
        return outputs.max(axis=1) - true

    every = np.array([margins(x) for x in points])
    np.testing.assert_array_equal(margins(chosen), every.max(axis=0))
    expected = np.array([points[k][i] for i, k in enumerate(every.argmax(axis=0))])
    np.testing.assert_array_equal(chosen, expected)
    assert len(set(every.argmax(axis=0))) > 2  # not always the same iterate
    settings = dataclasses.replace(settings, success="last")
    last = craft(
        model,
        tf.constant(images),
        tf.constant(labels),
        attack=settings,
        starts=tf.constant(starts(images)),
    )
    np.testing.assert_array_equal(last, points[-1])


@pytest.mark.parametrize(
    ("changes", "targeted"),
    [
        ({}, False),
        ({}, True),
        ({"loss": "margin"}, False),
        ({"loss": "dlr", "success": "any"}, True),
        ({"step_schedule": "linear", "success": "any"}, False),
        ({"method": "apgd", "loss": "dlr"}, False),
        ({"method": "apgd"}, True),
        ({"eps_iter": 0.3, "nb_iter": 3}, False),
    ],
)
def test_every_attack_stays_in_the_ball_and_in_range_and_raises_the_loss(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    changes: dict[str, Any],
    targeted: bool,
) -> None:
    settings = attack(**changes)
    begin = tf.constant(starts(images, eps=0.3))
    targets = (labels + 4) % CLASSES
    crafted = tf.function(craft)(
        logits_function(model),
        tf.constant(images),
        tf.constant(labels),
        attack=settings,
        starts=begin,
        targets=tf.constant(targets) if targeted else None,
    ).numpy()
    assert crafted.min() >= 0 and crafted.max() <= 1
    assert np.abs(crafted.astype(np.float64) - images).max() <= 0.3 + 1e-7
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
    aim = targets if targeted else labels
    before = tf.reduce_mean(cross_entropy(labels=aim, logits=model(begin)))
    after = tf.reduce_mean(cross_entropy(labels=aim, logits=model(crafted)))
    assert after < before if targeted else after > before


def test_no_gradient_flows_through_the_crafting(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        crafted = craft(logits_function(model), x, tf.constant(labels), attack=SOME, starts=x)
        total = tf.reduce_sum(crafted)
    assert tape.gradient(total, x) is None


# Starting points


def test_a_start_depends_on_seed_image_and_restart_alone(images: np.ndarray) -> None:
    whole = starts(images, restart=5)
    order = np.random.default_rng(0).permutation(len(images))
    for batch in (1, 7, 40):
        for begin in range(0, 21, batch):
            chosen = order[begin : begin + batch]
            found = attacks.random_starts(
                tf.constant(images[chosen]),
                image_index=tf.constant(chosen),
                restart=tf.fill([len(chosen)], 5),
                seed=tf.constant(3),
                eps=tf.constant(0.1),
            )
            np.testing.assert_array_equal(found, whole[chosen])


def test_starts_of_other_seeds_images_and_restarts_differ() -> None:
    same = np.full((30, *IMAGE_SHAPE), 0.5, np.float32)
    every = [
        starts(same, restart=restart, seed=seed)
        for restart, seed in itertools.product((0, 1, 2, 9_999), (0, 1, 2**31 - 1))
    ]
    assert len(np.unique(np.concatenate(every).reshape(-1, 64), axis=0)) == 30 * 12


def test_starts_are_uniform_in_the_ball() -> None:
    eps, count = 0.1, 4000
    same = np.full((count, *IMAGE_SHAPE), 0.5, np.float32)
    eta = (starts(same, eps=eps) - 0.5).reshape(count, -1).astype(np.float64)
    assert np.abs(eta).max() <= eps + 1e-7
    counts, _ = np.histogram(eta, bins=20, range=(-eps, eps))
    expected = eta.size / 20
    chi_square = np.sum((counts - expected) ** 2) / expected
    assert chi_square < 50.8  # 19 degrees of freedom: exceeded with probability 1e-4
    # Neither pixels of an image, nor images, nor restarts go together.
    other = (starts(same, restart=1, eps=eps) - 0.5).reshape(count, -1)
    for a, b in ((eta[:, 0], eta[:, 1]), (eta[:-1, 0], eta[1:, 0]), (eta[:, 0], other[:, 0])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(count)


def test_starts_are_clipped_to_the_pixel_range() -> None:
    for edge in (0.0, 1.0):
        same = np.full((50, *IMAGE_SHAPE), edge, np.float32)
        found = starts(same)
        assert found.min() >= 0 and found.max() <= 1
        assert 0.45 < np.mean(found == edge) < 0.55


@pytest.mark.slow
def test_xla_gives_the_same_starts_and_targets_to_the_last_bit(images: np.ndarray) -> None:
    n = len(images)

    # The seed comes as an argument: of a constant one, TensorFlow's own kernels would fold the
    # whole draw into a constant before XLA sees it.
    def draw(seed: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = attacks.random_starts(
            tf.constant(images),
            image_index=index,
            restart=index % 3,
            seed=seed,
            eps=tf.constant(76.5 / 255),
        )
        aims = attacks.choose_targets(
            "random",
            clean_logits=tf.zeros([n, 10]),
            labels=index,
            image_index=index,
            restart=index,
            seed=seed,
        )
        return found, aims

    programs = [tf.function(draw, jit_compile=jit) for jit in (False, True)]
    for seed in (0, 2**31 - 1):
        plain, compiled = (program(tf.constant(seed), tf.range(n)) for program in programs)
        np.testing.assert_array_equal(compiled[0], plain[0])
        np.testing.assert_array_equal(compiled[1], plain[1])


# Targets


def targets(
    target: str, logits: np.ndarray, labels: np.ndarray, *, restart: int = 0, index: Any = None
) -> np.ndarray:
    n = len(labels)
    return compiled_targets(
        target,
        clean_logits=tf.constant(logits),
        labels=tf.constant(labels),
        image_index=tf.range(n) if index is None else tf.constant(index),
        restart=tf.fill([n], restart),
        seed=tf.constant(3),
    ).numpy()


def random_logits(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, CLASSES)).astype(np.float32)


def test_no_target_is_none() -> None:
    nothing = attacks.choose_targets(
        "none",
        clean_logits=tf.zeros([2, 10]),
        labels=tf.zeros([2], tf.int32),
        image_index=tf.range(2),
        restart=tf.range(2),
        seed=tf.constant(0),
    )
    assert nothing is None


def test_the_random_target_is_kept_over_restarts_and_batches() -> None:
    n = 3000
    logits, labels = random_logits(n), np.zeros(n, np.int32)
    drawn = targets("random", logits, labels)
    np.testing.assert_array_equal(targets("random", logits, labels, restart=77), drawn)
    some = np.array([2999, 5, 17])
    np.testing.assert_array_equal(
        targets("random", logits[some], labels[some], index=some), drawn[some]
    )
    # Uniform over all classes, the true one included: 9 degrees of freedom, probability 1e-4.
    counts = np.bincount(drawn, minlength=CLASSES)
    assert np.sum((counts - n / CLASSES) ** 2) / (n / CLASSES) < 33.7


def test_the_least_likely_target_is_that_of_the_clean_prediction() -> None:
    logits, labels = random_logits(50), np.zeros(50, np.int32)
    np.testing.assert_array_equal(targets("least_likely", logits, labels), logits.argmin(axis=1))


def test_each_cycles_through_the_wrong_classes_by_rank() -> None:
    logits, labels = random_logits(50), (np.arange(50) % CLASSES).astype(np.int32)
    ranked = np.argsort(-logits, axis=1, kind="stable")
    wrong = np.array([[c for c in row if c != y] for row, y in zip(ranked, labels, strict=True)])
    for restart in range(20):
        aims = targets("each", logits, labels, restart=restart)
        np.testing.assert_array_equal(aims, wrong[:, restart % (CLASSES - 1)])


def test_each_never_aims_at_the_true_class_even_when_its_logit_is_the_lowest() -> None:
    logits = np.zeros((1, CLASSES), np.float32)
    logits[0, 4] = np.finfo(np.float32).min
    aims = [targets("each", logits, np.array([4], np.int32), restart=r)[0] for r in range(9)]
    assert sorted(aims) == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_turns_aim_two_restarts_of_three_at_a_class_and_smooth_the_first_alone() -> None:
    logits, labels = random_logits(50), (np.arange(50) % CLASSES).astype(np.int32)
    turns = attacks.Turns(eps=0.3, eps_iter=0.05, nb_iter=4, own_step=0.25)
    for restart in range(36):
        items = attacks.CraftItems(
            images=tf.zeros([50, *IMAGE_SHAPE]),
            labels=tf.constant(labels),
            image_index=tf.range(50),
            restart=tf.fill([50], restart),
            seed=tf.constant(3),
            clean_logits=lambda _: tf.constant(logits),
        )
        found, first = turns.draw(items), restart % 3 == 0
        aimed = targets("each", logits, labels, restart=restart // 3)
        np.testing.assert_array_equal(found.targets, -1 if restart % 3 == 1 else aimed)
        np.testing.assert_array_equal(found.smoothing, np.full(50, float(first)))
        np.testing.assert_array_equal(found.step_share, np.full(50, 1.0 if first else 0.25))


def test_items_take_their_own_share_of_noise_momentum_and_steps(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    """They share a batch with those that take all."""
    x, y, index = tf.constant(images), tf.constant(labels), tf.range(len(images))
    noise = attacks.item_noise(IMAGE_SHAPE, image_index=index, restart=index, seed=tf.constant(0))

    def crafted(plain: np.ndarray | None, **changes: Any) -> np.ndarray:
        shares = (
            {}
            if plain is None
            else {
                "step_share": tf.where(plain, 0.25, 1.0),
                "smoothing": tf.where(plain, 0.0, 1.0),
            }
        )
        return craft(
            logits_function(model),
            x,
            y,
            attack=attack(nb_iter=6, **changes),
            starts=x,
            noise=noise,
            **shares,
        ).numpy()

    stirred = {"momentum": 0.9, "gradient_noise": 0.4}
    mixed = crafted(np.arange(len(labels)) % 2 == 1, **stirred)
    small = crafted(None, eps_iter=attack().eps_iter / 4)
    np.testing.assert_array_equal(mixed[::2], crafted(None, **stirred)[::2])
    np.testing.assert_array_equal(mixed[1::2], small[1::2])
    assert np.any(mixed[::2] != crafted(None)[::2]) and np.any(small != crafted(None))


def test_a_target_of_minus_one_is_no_target(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    """Items with and without one share a batch."""
    x, y = tf.constant(images), tf.constant(labels)

    def crafted(targets: np.ndarray | None) -> np.ndarray:
        return craft(
            logits_function(model),
            x,
            y,
            attack=attack(loss="margin"),
            starts=x,
            targets=None if targets is None else tf.constant(targets),
        ).numpy()

    aims = ((labels + 2) % CLASSES).astype(np.int32)
    mixed = crafted(np.where(np.arange(len(labels)) % 2, -1, aims).astype(np.int32))
    aimed = crafted(aims)
    np.testing.assert_array_equal(mixed[1::2], crafted(None)[1::2])
    np.testing.assert_array_equal(mixed[::2], aimed[::2])
    assert np.any(mixed[1::2] != aimed[1::2])


# Copies in another dtype


@pytest.mark.parametrize("nested", [False, True])
def test_a_crafting_copy_computes_in_its_dtype_and_follows_the_weights(
    images: np.ndarray, nested: bool
) -> None:
    source = small_model()
    if nested:
        source = keras.Sequential([keras.Input(IMAGE_SHAPE), source])
    copy = copy_in_dtype(source, "bfloat16")
    copy_weights(source, copy)
    assert {weight.dtype for weight in copy.weights} == {"bfloat16"}
    reference, found = source(images).numpy(), logits_function(copy)(images)
    assert found.dtype == tf.float32
    assert 0 < np.abs(found - reference).max() < 0.2 * np.abs(reference).max()
    for weight in source.weights:
        weight.assign(tf.zeros_like(weight))
    assert np.any(logits_function(copy)(images) != 0)  # weights of its own
    copy_weights(source, copy)
    assert np.all(logits_function(copy)(images) == 0)


def test_a_copy_takes_its_own_policy_and_leaves_the_callers(images: np.ndarray) -> None:
    source = small_model()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        copy = copy_in_dtype(source, "float32")
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    copy_weights(source, copy)
    np.testing.assert_array_equal(logits_function(copy)(images), source(images))


def test_a_model_that_cannot_be_copied_is_refused_in_one_line() -> None:
    class Subclassed(keras.Model):
        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            return inputs

    with pytest.raises(InputError, match=r"cannot be copied .*bfloat16") as caught:
        copy_in_dtype(Subclassed(), "bfloat16")
    assert "\n" not in str(caught.value)


# Bad settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": 1e-40}, "eps .* 255 .*float32"),
        ({"eps": -0.1}, "eps -25.5"),
        ({"eps": 1.5}, "eps 382.5"),
        ({"eps": float("nan")}, "eps nan"),
        ({"eps_iter": 0.0}, r"eps_iter 0: .*\(0, eps\]"),
        ({"eps_iter": -0.01}, "eps_iter -2.55"),
        ({"eps_iter": 0.4}, "eps_iter 102: .*eps is 76.5"),
        ({"eps_iter": float("nan")}, "eps_iter nan"),
        ({"nb_iter": 0}, "nb_iter 0: .*1 or more"),
        ({"nb_iter": -3}, "nb_iter -3"),
        ({"restarts": 0}, "restarts 0: .*1 or more"),
        ({"method": "fgsm"}, "unknown method 'fgsm'.* one of .*apgd, .*spsa"),
        ({"loss": "mse"}, "loss='mse': .*one of cross_entropy, margin, dlr"),
        ({"step_schedule": "cosine"}, "step_schedule='cosine': .*one of constant, linear"),
        ({"success": "best"}, "success='best': .*one of last, any"),
        ({"target": "most"}, "target='most': .*one of none, random, least_likely, each"),
        ({"dtype": "float16"}, "dtype='float16': .*one of float32, bfloat16"),
        ({"engine": "art"}, "engine='art': .*one of loop, cleverhans"),
        ({"restarts": 1.5}, "restarts=1.5: .*whole number"),
        ({"restarts": True}, "restarts=True: .*whole number"),
        ({"eps": "0.3"}, "eps='0.3': .*number"),
        ({"random_start": 1}, "random_start=1: .*True or False"),
        ({"restarts": 10**30}, "restarts 10+: .*10,000,000"),
        ({"nb_iter": 3 * 10**9}, "nb_iter 3000000000: .*1,000,000"),
        ({"gradient_noise": 1e300}, r"gradient_noise .*\[0, 2550\]"),
        ({"momentum": 1.0}, r"momentum 1, .*\[0, 1\)"),
        ({"gradient_noise": -0.1}, "gradient_noise -25.5"),
        ({"gradient_noise": 0.1, "success": "any"}, "success=any .*success=last"),
        ({"method": "turns", "own_step": 0.0}, r"own_step 0: .*\(0, 1\]"),
        ({"method": "turns", "target": "each"}, "turns: .*target.* each"),
        ({"engine": "cleverhans", "loss": "margin"}, "engine=cleverhans .*loss=margin.*cross-entr"),
        ({"engine": "cleverhans", "dtype": "bfloat16"}, "engine=cleverhans"),
        ({"engine": "cleverhans", "success": "any"}, "engine=cleverhans"),
        ({"engine": "cleverhans", "step_schedule": "linear"}, "engine=cleverhans"),
        ({"engine": "cleverhans", "method": "turns"}, "engine=cleverhans"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        attack(**changes)
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_become_plain_ones() -> None:
    found = attack(eps=np.float32(0.25), restarts=np.int64(3), random_start=np.bool_(False))
    assert found == attack(eps=0.25, restarts=3, random_start=False)
    assert json.loads(json.dumps(found.to_json()))["restarts"] == 3


def test_no_ball_at_all_is_an_attack() -> None:
    assert attack(eps=0, eps_iter=0).eps == 0  # the first point of a curve over ε


# How an attack differs from the paper's PGD


def test_the_papers_pgd_departs_in_nothing() -> None:
    found = attack(eps=0.1, eps_iter=0.01, nb_iter=7, restarts=9)
    assert found.non_default_settings() == {} and found.non_default_text() == ""
    assert str(attack(eps=0.3, eps_iter=0.01, restarts=2)) == "pgd eps=76.5 eps_iter=2.55 n=4 r=2"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"momentum": 0.75}, "momentum=0.75"),
        ({"gradient_noise": 0.2}, "gradient_noise=51"),
        ({"random_start": False}, "random_start=false"),
        ({"target": "each", "loss": "margin"}, "loss=margin target=each"),
        ({"dtype": "bfloat16"}, "dtype=bfloat16"),
    ],
)
def test_every_other_setting_is_told(changes: dict[str, Any], text: str) -> None:
    found = attack(**changes)
    assert found.non_default_settings() == changes
    assert found.non_default_text() == text
    assert str(found) == f"pgd eps=76.5 eps_iter=12.75 n=4 r=1 {text}"


def test_methods_with_steps_of_their_own_name_none() -> None:
    assert str(attack(method="apgd", eps_iter=0.6)) == "apgd eps=76.5 n=4 r=1"
    assert str(attack(method="spsa", eps_iter=0.01)) == "spsa eps=76.5 learning_rate=0.01 n=4 r=1"


def test_an_attack_is_stored_with_todays_settings_and_later_departures_alone() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(PGD):
        sharpness: float = 0.0

    sizes: dict[str, Any] = {"eps": 0.3, "eps_iter": 0.05, "nb_iter": 4}
    assert Later(**sizes).to_json() == PGD(**sizes).to_json()
    assert Later(**sizes, sharpness=2.0).to_json() == {
        **PGD(**sizes).to_json(),
        "sharpness": 2.0,
    }
    assert str(Later(**sizes, sharpness=2.0)).endswith(" sharpness=2.0")
