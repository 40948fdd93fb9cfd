"""One batch of work items: the verdict, Cleverhans' own engines, tracing, XLA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cleverhans.tf2.attacks.spsa as cleverhans_spsa
import keras
import numpy as np
import pytest
import tensorflow as tf
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent

from alp_repro import attacks
from alp_repro.attacks import (
    Attack,
    BatchOutcome,
    Execution,
    WorkItems,
    cleverhans_engines,
    exact_bounds,
)
from alp_repro.attacks.programs import attack_program
from alp_repro.models import copies
from tests.attack_factory import attack_of
from tests.marks import slow_unless
from tests.small_model import CLASSES, IMAGE_SHAPE, small_model

EPS = 0.05
BATCH = 16
FEW = 8  # for SPSA, whose loop is not compiled


def attack(**changes: Any) -> Any:
    return attack_of(**{"eps": EPS, "eps_iter": 0.02, "nb_iter": 3, **changes})


def program(model: keras.Model, settings: Attack, **options: Any) -> Callable[..., BatchOutcome]:
    execution = Execution(**{"batch_size": BATCH, **options})
    run = attack_program(
        model, attack=settings, image_shape=IMAGE_SHAPE, seed=3, execution=execution
    )
    return lambda *items: run(WorkItems(*items))


def inputs(images: np.ndarray, labels: np.ndarray, *, restart: int = 0) -> tuple[np.ndarray, ...]:
    """The program's arguments for the first BATCH images."""
    lower, upper = exact_bounds(images[:BATCH], EPS)
    return (
        images[:BATCH],
        labels[:BATCH],
        np.arange(BATCH),
        np.full(BATCH, restart, np.int32),
        lower,
        upper,
    )


def check_verdict(
    model: keras.Model, outcome: BatchOutcome, given: tuple[np.ndarray, ...]
) -> np.ndarray:
    """The verdict is that of the float32 model on the very image that is returned."""
    _, labels, _, _, lower, upper = given
    assert np.all(lower <= outcome.adversarial) and np.all(outcome.adversarial <= upper)
    logits = tf.function(copies.logits_function(model))(outcome.adversarial).numpy()
    np.testing.assert_array_equal(outcome.broken, logits.argmax(axis=1) != labels)
    expected = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    np.testing.assert_allclose(outcome.losses, expected, rtol=1e-5, atol=1e-6)
    return logits


ALL_KINDS = [
    {},
    {"loss": "margin", "step_schedule": "linear", "success": "any"},
    {"target": "random"},
    {"target": "least_likely"},
    {"target": "each"},
    {"method": "apgd", "loss": "dlr"},
    {"random_start": False},
    {"dtype": "bfloat16"},
    {"engine": "cleverhans"},
    {"engine": "cleverhans", "target": "random"},
    {"method": "spsa"},
    {"method": "spsa", "target": "least_likely"},
]


QUICK = [{}, ALL_KINDS[1], {"target": "each"}, {"dtype": "bfloat16"}, {"engine": "cleverhans"}]


@pytest.mark.parametrize("changes", slow_unless(QUICK, ALL_KINDS), ids=str)
def test_the_verdict_is_that_of_the_stored_image(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cleverhans_engines, "SPSA_SAMPLES", 16)
    given = inputs(images, labels)
    outcome = program(model, attack(**changes))(*given)
    check_verdict(model, outcome, given)
    assert 0 < outcome.broken.sum() < BATCH  # both verdicts were seen


def test_bfloat16_crafts_other_images_and_is_judged_in_float32(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    given = inputs(images, labels)
    rough = program(model, attack(dtype="bfloat16"))(*given)
    exact = program(model, attack())(*given)
    assert np.any(rough.adversarial != exact.adversarial)
    logits = check_verdict(model, rough, given)
    in_bfloat16 = tf.cast(tf.cast(logits, tf.bfloat16), tf.float32).numpy()
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits
    assert np.abs(rough.losses - loss(labels=given[1], logits=in_bfloat16)).max() > 1e-4


@pytest.mark.slow
def test_a_program_with_xla_breaks_what_the_plain_one_does(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    """Kernels round differently under XLA, so that a sign may turn; starts are the same bits."""
    given = inputs(images, labels)
    plain, compiled = (program(model, attack(), jit_compile=jit)(*given) for jit in (False, True))
    check_verdict(model, compiled, given)
    same = np.all(np.isclose(plain.adversarial, compiled.adversarial, atol=1e-6), axis=(1, 2, 3))
    assert same.mean() > 0.7
    np.testing.assert_array_equal(plain.broken[same], compiled.broken[same])


def counting(calls: list[int]) -> keras.layers.Layer:
    """A layer that changes nothing and notes each time it is traced."""

    class Counting(keras.layers.Layer):
        def call(self, x: tf.Tensor) -> tf.Tensor:
            if not tf.executing_eagerly():
                calls.append(1)
            return x

    return Counting()


def test_a_program_is_traced_once(images: np.ndarray, labels: np.ndarray) -> None:
    calls: list[int] = []
    model = keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE),
            counting(calls),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )
    run = program(model, attack())
    run(*inputs(images, labels))
    traced = len(calls)
    for restart in range(1, 4):
        run(*inputs(images, labels, restart=restart))
    assert traced > 0 and len(calls) == traced


@pytest.mark.slow
def test_attacks_of_other_sizes_share_a_program_and_keep_their_own(
    images: np.ndarray, labels: np.ndarray
) -> None:
    """Bit for bit what crafting with the numbers written into the graph gives."""
    calls: list[int] = []
    model = keras.Sequential([keras.Input(IMAGE_SHAPE), counting(calls), small_model()])
    small, large = (
        attack(step_schedule="linear"),
        attack(eps=0.3, eps_iter=0.2, nb_iter=7, restarts=5, step_schedule="linear"),
    )
    given = (*inputs(images, labels)[:4], *exact_bounds(images[:BATCH], 0.3))
    found = {one: program(model, one)(*given).adversarial for one in (small, large)}
    traced = len(calls)
    np.testing.assert_array_equal(program(model, small)(*given).adversarial, found[small])
    assert len(calls) == traced
    for one in (small, large):
        index, restart = tf.constant(given[2]), tf.constant(given[3])
        starts = attacks.random_starts(
            tf.constant(given[0]),
            image_index=index,
            restart=restart,
            seed=tf.constant(3),
            eps=tf.constant(one.eps),
        )
        alone = tf.function(one.ascend)(
            copies.logits_function(model),
            tf.constant(given[0]),
            tf.constant(given[1]),
            attacks.Draws(starts),
        ).adversarial
        lower, upper = given[4:]
        np.testing.assert_array_equal(np.clip(alone, lower, upper), found[one])


@pytest.mark.parametrize("dtype", slow_unless(["float32"], ["float32", "bfloat16"]))
@pytest.mark.parametrize("replicas", slow_unless([1], [1, 2]))
def test_a_shared_program_follows_the_weights(
    images: np.ndarray,
    labels: np.ndarray,
    two_replicas: tf.distribute.Strategy,
    dtype: str,
    replicas: int,
) -> None:
    given = inputs(images, labels)
    options = {"strategy": two_replicas, "batch_size": BATCH // 2} if replicas == 2 else {}
    model, fresh = small_model(), small_model()
    first = program(model, attack(dtype=dtype), **options)(*given)
    model.set_weights([0.5 * w for w in model.get_weights()])
    fresh.set_weights(model.get_weights())
    second = program(model, attack(dtype=dtype), **options)(*given)
    expected = program(fresh, attack(dtype=dtype), **options)(*given)
    assert np.any(first.losses != second.losses)
    for ours, theirs in zip(second, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_without_a_random_start_every_restart_is_the_same(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    fixed = program(model, attack(random_start=False))
    first, second = (fixed(*inputs(images, labels, restart=r)) for r in (0, 1))
    np.testing.assert_array_equal(first.adversarial, second.adversarial)
    random = program(model, attack())
    first, second = (random(*inputs(images, labels, restart=r)) for r in (0, 1))
    assert np.all(np.any(first.adversarial != second.adversarial, axis=(1, 2, 3)))


# Cleverhans' own engines


@pytest.mark.parametrize("target", ["none", "least_likely"])
def test_the_cleverhans_engine_is_its_own_call(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    target: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[dict[str, Any]] = []
    results: list[np.ndarray] = []

    def spy(*args: Any, **kwargs: Any) -> tf.Tensor:
        calls.append({"args": args[2:], **kwargs})
        results.append(projected_gradient_descent(*args, **kwargs).numpy())
        return tf.constant(results[-1])

    monkeypatch.setattr(cleverhans_engines, "projected_gradient_descent", spy)
    given = inputs(images, labels)
    run = program(model, attack(engine="cleverhans", target=target))
    first, again, other = run(*given), run(*given), run(*inputs(images, labels, restart=1))
    assert calls[0]["args"] == (EPS, 0.02, 3, np.inf) and calls[0]["rand_init"] is True
    assert (calls[0]["clip_min"], calls[0]["clip_max"]) == (0.0, 1.0)
    assert calls[0]["targeted"] is (target != "none")
    aims = labels[:BATCH] if target == "none" else model(images[:BATCH]).numpy().argmin(axis=1)
    np.testing.assert_array_equal(calls[0]["y"], aims)
    np.testing.assert_allclose(first.adversarial, results[0], atol=1e-7)
    np.testing.assert_array_equal(again.adversarial, first.adversarial)
    assert np.any(other.adversarial != first.adversarial)


def test_spsa_is_cleverhans_own(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cleverhans' `spsa` itself, once its optimizer takes Keras 3's argument name, and seeded."""
    monkeypatch.setattr(cleverhans_engines, "SPSA_SAMPLES", 32)
    given = tuple(value[:FEW] for value in inputs(images, labels, restart=5))
    spsa = attack(method="spsa", eps_iter=0.01, nb_iter=2)
    found = program(model, spsa, batch_size=FEW)(*given)

    def optimizer(lr: float, delta: float, num_samples: int, num_iters: int) -> Any:
        assert (delta, num_samples, num_iters) == (0.01, 32, 1)
        return cleverhans_engines.SpsaAdam(lr)

    monkeypatch.setattr(cleverhans_spsa, "SPSAAdam", optimizer)
    for i in (0, 7):
        tf.random.set_seed(cleverhans_engines.mixed_seed(3, i, 5))
        expected = cleverhans_spsa.spsa(
            copies.logits_function(model),
            tf.constant(images[i : i + 1]),
            tf.constant(labels[i : i + 1]),
            EPS,
            2,
            clip_min=0.0,
            clip_max=1.0,
            learning_rate=0.01,
            delta=0.01,
            spsa_samples=32,
            spsa_iters=1,
        )
        np.testing.assert_allclose(found.adversarial[i], expected[0], atol=1e-7)


@pytest.mark.slow
def test_spsa_raises_the_margin_and_depends_on_image_and_restart_alone(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleverhans_engines, "SPSA_SAMPLES", 64)
    settings = attack(method="spsa", eps_iter=0.02, nb_iter=3)
    given = tuple(value[:FEW] for value in inputs(images, labels))
    few = {"batch_size": FEW}
    whole = program(model, settings, **few)(*given)
    order = np.arange(FEW)[::-1]
    turned = program(model, settings, **few)(*(value[order] for value in given))
    np.testing.assert_array_equal(turned.adversarial, whole.adversarial[order])
    start = program(model, attack(method="spsa", eps_iter=1e-9, nb_iter=1), **few)(*given)
    assert whole.losses.mean() > start.losses.mean()
    assert whole.broken.sum() > start.broken.sum()


def test_the_protocols_spsa_samples() -> None:
    """8192 samples and δ 0.01: the second attack of the released evaluation."""
    assert (cleverhans_engines.SPSA_SAMPLES, cleverhans_engines.SPSA_DELTA) == (8192, 0.01)
    optimizer = cleverhans_engines.SpsaAdam(0.01)
    x = tf.zeros([1, 2, 2, 1])
    seen = []

    def loss(points: tf.Tensor) -> tf.Tensor:
        seen.append(points.numpy())
        return tf.reduce_sum(points, axis=(1, 2, 3))

    (gradient,) = optimizer._compute_gradients(loss, [x])  # noqa: SLF001 - Cleverhans' name
    assert seen[0].shape == (8192, 2, 2, 1)
    np.testing.assert_allclose(np.abs(seen[0]), 0.01, rtol=1e-6)
    # δ times the true gradient, as Cleverhans has it: Adam's step does not depend on the scale.
    np.testing.assert_allclose(gradient, np.full([1, 2, 2, 1], 0.01), rtol=0.1)
