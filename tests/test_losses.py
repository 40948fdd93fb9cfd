"""The penalties against NumPy, by their equations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from alp_repro import losses


def random_logits(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (batch, 10)).astype(np.float32)


def gradient(function: Callable[..., tf.Tensor], *values: np.ndarray) -> list[np.ndarray]:
    tensors = [tf.constant(value) for value in values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        result = function(*tensors)
    return [g.numpy() for g in tape.gradient(result, tensors)]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_by_its_equation(batch: int, smoothing: float) -> None:
    logits, labels = random_logits(batch), np.arange(batch, dtype=np.int32) % 10
    targets = (1 - smoothing) * np.eye(10)[labels] + smoothing / 10
    expected = -np.mean(np.sum(targets * log_softmax(logits), axis=1))
    found = losses.cross_entropy(
        tf.constant(labels), tf.constant(logits), label_smoothing=smoothing
    )
    assert found.shape == () and found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("batch", [2, 3, 8, 9])
def test_clean_logit_pairing_by_its_equation(batch: int) -> None:
    logits = random_logits(batch)
    pairs = batch // 2
    expected = np.mean(
        [(logits[i, k] - logits[i + pairs, k]) ** 2 for i in range(pairs) for k in range(10)]
    )
    np.testing.assert_allclose(losses.clean_logit_pairing(logits), expected, rtol=1e-5)


def test_clean_logit_pairing_leaves_out_an_odd_last_image() -> None:
    logits = random_logits(9)
    other = logits.copy()
    other[8] += 100
    assert losses.clean_logit_pairing(logits) == losses.clean_logit_pairing(other)
    (slope,) = gradient(losses.clean_logit_pairing, logits)
    assert np.all(slope[8] == 0) and np.all(slope[:8] != 0)


def test_clean_logit_pairing_of_one_image_is_zero_with_zero_gradient() -> None:
    logits = random_logits(1)
    assert losses.clean_logit_pairing(tf.constant(logits)) == 0
    assert np.all(gradient(losses.clean_logit_pairing, logits)[0] == 0)


def test_clean_logit_pairing_compiles_for_a_batch_of_unknown_size() -> None:
    compiled = tf.function(
        losses.clean_logit_pairing, input_signature=[tf.TensorSpec([None, 10], tf.float32)]
    )
    for batch in (1, 2, 5):
        logits = random_logits(batch)
        np.testing.assert_allclose(
            compiled(logits), losses.clean_logit_pairing(tf.constant(logits)), rtol=1e-6
        )


@pytest.mark.parametrize("batch", [1, 6])
def test_logit_squeezing_is_the_mean_norm_not_squared(batch: int) -> None:
    logits = random_logits(batch)
    expected = np.mean(np.sqrt(np.sum(logits.astype(np.float64) ** 2, axis=1)))
    np.testing.assert_allclose(losses.logit_squeezing(logits), expected, rtol=1e-5)
    np.testing.assert_allclose(
        losses.logit_squeezing(3 * logits), 3 * losses.logit_squeezing(logits), rtol=1e-5
    )


def test_logit_squeezing_has_a_finite_gradient_at_zero() -> None:
    logits = random_logits(4)
    logits[1] = 0
    (slope,) = gradient(losses.logit_squeezing, logits)
    assert np.all(slope[1] == 0)
    rows = [0, 2, 3]
    expected = logits[rows] / np.linalg.norm(logits[rows], axis=1, keepdims=True) / 4
    np.testing.assert_allclose(slope[rows], expected, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 5])
def test_adversarial_logit_pairing_by_its_equation(batch: int) -> None:
    clean, adversarial = random_logits(batch), random_logits(batch, seed=1)
    expected = np.mean((clean.astype(np.float64) - adversarial) ** 2)
    found = losses.adversarial_logit_pairing(tf.constant(clean), tf.constant(adversarial))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_adversarial_logit_pairing_has_a_gradient_through_both_terms() -> None:
    clean, adversarial = random_logits(3), random_logits(3, seed=1)
    through_clean, through_adversarial = gradient(
        losses.adversarial_logit_pairing, clean, adversarial
    )
    np.testing.assert_allclose(through_clean, 2 * (clean - adversarial) / clean.size, rtol=1e-5)
    np.testing.assert_array_equal(through_adversarial, -through_clean)
