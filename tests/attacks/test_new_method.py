"""CONTRIBUTING's recipe for an attack method: a function, an entry, a name."""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np
import pytest
import tensorflow as tf

import alp_repro
from alp_repro.attacks import programs, settings
from alp_repro.attacks.draws import random_starts


def corners(
    logits: Any, images: tf.Tensor, labels: tf.Tensor, *, eps: Any, nb_iter: Any, **of_item: Any
) -> tf.Tensor:
    """The toy: a random corner of the ball, whatever the model says."""
    seen = random_starts(
        images, eps=eps, **{name: of_item[name] for name in ("image_index", "restart", "seed")}
    )
    return tf.clip_by_value(images + eps * tf.sign(seen - images), 0.0, 1.0)


def test_a_new_method_is_evaluated_like_any_other(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(programs.OWN_METHODS, "corners", corners)
    monkeypatch.setitem(settings.CHOICES, "method", Literal["pgd", "corners"])
    attack = alp_repro.Attack(method="corners", eps=0.1, eps_iter=0.1, nb_iter=1, restarts=8)
    record = alp_repro.evaluate(model, images, labels, attack=attack, save_adversarial=True)
    assert str(attack).startswith("corners eps=25.5")
    assert 0 < record.accuracy_at(8) <= record.accuracy_at(1) < record.clean_accuracy
    broken = np.flatnonzero(record.first_break >= 0)
    assert record.adversarial is not None
    changed = np.abs(record.adversarial - images)[broken]
    inside = (images[broken] > 0.1) & (images[broken] < 0.9)
    np.testing.assert_allclose(changed[inside], 0.1, atol=1e-6)
