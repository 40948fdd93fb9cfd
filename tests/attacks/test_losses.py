"""The attack losses against NumPy, and what each is chosen for."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method

from alp_repro.attacks import losses
from alp_repro.attacks.losses import LOSSES, attack_loss
from alp_repro.errors import InputError

_BATCH, _CLASSES = 50, 10


def _logits(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(_BATCH, _CLASSES)).astype(np.float32)


def _classes(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, _CLASSES, _BATCH).astype(np.int32)


def _other_classes(labels: np.ndarray) -> np.ndarray:
    shifts = np.random.default_rng(2).integers(1, _CLASSES, len(labels))
    return ((labels + shifts) % _CLASSES).astype(np.int32)


def _expected(name: str, logits: np.ndarray, label: int, target: int | None) -> float:
    """One image's loss, straight from its equation, in float64."""
    logits = logits.astype(np.float64)
    falling = np.sort(logits)[::-1]
    log_softmax = logits - np.log(np.exp(logits).sum())
    other = max(value for i, value in enumerate(logits) if i != label)
    if target is None:
        return {
            "cross_entropy": -log_softmax[label],
            "margin": other - logits[label],
            "dlr": (other - logits[label]) / (falling[0] - falling[2]),
            "mixed": -log_softmax[label],
        }[name]
    return {
        "cross_entropy": log_softmax[target],
        "margin": logits[target] - logits[label],
        "dlr": (logits[target] - logits[label]) / (falling[0] - 0.5 * (falling[2] + falling[3])),
        "mixed": logits[target] - logits[label],
    }[name]


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_equals_its_equation(name: str, targeted: bool, jit_compile: bool) -> None:
    logits, labels = _logits(), _classes(1)
    targets = _other_classes(labels) if targeted else None

    @tf.function(jit_compile=jit_compile)
    def loss() -> tf.Tensor:
        return attack_loss(name, labels=labels, logits=tf.constant(logits), targets=targets)

    values = loss()
    expected = [
        _expected(name, logits[i], labels[i], None if targets is None else targets[i])
        for i in range(_BATCH)
    ]
    assert values.dtype == tf.float32
    np.testing.assert_allclose(values.numpy(), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["margin", "dlr"])
def test_positive_exactly_where_misclassified(name: str) -> None:
    logits, labels = _logits(), _classes(1)
    labels[:25] = logits[:25].argmax(axis=1)
    values = attack_loss(name, labels=labels, logits=logits).numpy()
    np.testing.assert_array_equal(values > 0, logits.argmax(axis=1) != labels)


@pytest.mark.parametrize("targeted", [False, True])
def test_dlr_ignores_shift_and_scale_of_the_logits(targeted: bool) -> None:
    logits, labels = _logits(), _classes(1)
    targets = _other_classes(labels) if targeted else None
    value = attack_loss("dlr", labels=labels, logits=logits, targets=targets)
    squeezed = attack_loss("dlr", labels=labels, logits=1e-3 * logits + 0.5, targets=targets)
    np.testing.assert_allclose(squeezed, value, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_climbing_the_gradient_misclassifies(name: str) -> None:
    logits = tf.Variable(_logits())
    labels = _logits().argmax(axis=1).astype(np.int32)
    targets = _other_classes(labels)
    for _ in range(20):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(attack_loss(name, labels=labels, logits=logits, targets=targets))
        logits.assign_add(0.4 * tf.sign(tape.gradient(value, logits)))
    assert np.all(logits.numpy().argmax(axis=1) != labels)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("targeted", [False, True])
def test_dlr_of_tied_logits_and_its_gradient_are_finite(targeted: bool, jit_compile: bool) -> None:
    tied = tf.constant([[1.0] * 4, [2.0, 2.0, 2.0, 2.0], [3.0, 3.0, 3.0, 0.0], [0.0] * 4])
    labels = tf.constant([0, 3, 3, 1])
    targets = tf.constant([1, 2, 0, 3]) if targeted else None

    @tf.function(jit_compile=jit_compile)
    def value_and_gradient() -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(tied)
            value = attack_loss("dlr", labels=labels, logits=tied, targets=targets)
        return value, tape.gradient(value, tied)

    value, gradient = value_and_gradient()
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(gradient))
    assert value[0] == 0.0


@pytest.mark.parametrize("name", ["margin", "dlr"])
def test_target_that_is_the_true_class_gives_zero(name: str) -> None:
    labels = _classes(1)
    value = attack_loss(name, labels=labels, logits=_logits(), targets=labels)
    np.testing.assert_array_equal(value, np.zeros(_BATCH))


def test_dlr_needs_three_classes_and_four_when_targeted() -> None:
    labels = np.zeros(2, np.int32)
    three = np.array([[3.0, 1.0, 0.0], [0.0, 1.0, 2.0]], np.float32)
    np.testing.assert_allclose(losses.dlr(labels=labels, logits=three), [-2 / 3, 1.0])
    with pytest.raises(InputError, match=r"dlr: .*3 or more classes, got 2"):
        attack_loss("dlr", labels=labels, logits=three[:, :2])
    with pytest.raises(InputError, match=r"dlr: .*4 or more classes, got 3"):
        attack_loss("dlr", labels=labels, logits=three, targets=labels + 1)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_logits_give_a_float32_loss(name: str, targeted: bool) -> None:
    logits, labels = tf.cast(_logits(), tf.bfloat16), _classes(1)
    targets = _other_classes(labels) if targeted else None
    value = attack_loss(name, labels=labels, logits=logits, targets=targets)
    exact = attack_loss(name, labels=labels, logits=tf.cast(logits, tf.float32), targets=targets)
    assert value.dtype == tf.float32
    np.testing.assert_array_equal(value, exact)


def test_unknown_name_names_the_right_ones() -> None:
    with pytest.raises(InputError, match=r"'hinge': .*one of cross_entropy, margin, dlr"):
        attack_loss("hinge", labels=_classes(1), logits=_logits())


@pytest.mark.parametrize("name", LOSSES)
def test_cleverhans_takes_an_untargeted_loss_as_its_loss_fn(name: str) -> None:
    weights = tf.constant(np.random.default_rng(3).normal(size=(6, _CLASSES)), tf.float32)
    images = tf.constant(np.random.default_rng(4).uniform(size=(_BATCH, 6)), tf.float32)

    def model(x: tf.Tensor) -> tf.Tensor:
        return x @ weights

    labels = tf.argmax(model(images), axis=1, output_type=tf.int32)

    stepped = fast_gradient_method(
        model, images, 1e-3, np.inf, loss_fn=LOSSES[name].untargeted, y=labels
    )
    before = attack_loss(name, labels=labels, logits=model(images))
    after = attack_loss(name, labels=labels, logits=model(stepped))
    assert np.all(after > before)
