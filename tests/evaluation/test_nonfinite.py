"""Values that are not finite decide no verdict: a gradient's count as 0, a logit's end the run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro.attacks import PGD
from alp_repro.attacks.losses import finite_gradient
from alp_repro.errors import InputError
from alp_repro.evaluation import evaluate, landscape
from tests.attack_factory import attack_of
from tests.small_model import CLASSES, IMAGE_SHAPE, small_model

EPS = 0.05


def with_branch(model: keras.Model) -> keras.Model:
    """The same function, plus √(0·x) of the upper half: its gradient there is no number."""
    images = keras.Input(IMAGE_SHAPE)
    return keras.Model(images, model(images) + root_of_nothing(images[:, :4]))


def root_of_nothing(pixels: keras.KerasTensor) -> keras.KerasTensor:
    """√(0·x), with a zero that no compiler can see."""
    zero = keras.layers.Dense(CLASSES, use_bias=False, kernel_initializer="zeros")
    return keras.ops.sqrt(zero(keras.layers.Flatten()(pixels)))


def without_gradient_there(model: keras.Model) -> keras.Model:
    """The same function whose gradient is 0 where the branch has none."""
    images = keras.Input(IMAGE_SHAPE)
    still = keras.ops.stop_gradient(images[:, :4])
    return keras.Model(images, model(keras.ops.concatenate([still, images[:, 4:]], axis=1)))


@pytest.mark.parametrize(
    ("changes", "jit_compile"),
    [
        pytest.param({"momentum": 0.5, "success": "any"}, False, marks=pytest.mark.slow),
        ({"method": "apgd"}, False),
        pytest.param({}, True, marks=pytest.mark.slow),
    ],
)
def test_a_branch_without_a_gradient_leaves_the_accuracy(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    changes: dict[str, Any],
    jit_compile: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    attack = attack_of(**{"eps": EPS, "eps_iter": 0.02, "nb_iter": 3, "restarts": 2, **changes})
    options: dict[str, Any] = {"attack": attack, "batch_size": 16, "jit_compile": jit_compile}
    told: list[int] = []
    with caplog.at_level(logging.WARNING):
        found = evaluate(
            with_branch(model),
            images,
            labels,
            save_adversarial=True,
            report=lambda progress: told.append(progress.nonfinite_gradients),
            **options,
        )
    expected = evaluate(without_gradient_there(model), images, labels, **options)
    assert 0 < expected.robust_at(2) < np.sum(labels >= 0)
    np.testing.assert_array_equal(found.first_break, expected.first_break)
    assert found.adversarial is not None and np.isfinite(found.adversarial).all()
    steps = 4 if changes.get("method") == "apgd" else 3
    assert np.all(found.nonfinite_gradients[found.standing] == 2 * steps)
    assert np.all(expected.nonfinite_gradients == 0)
    assert told[-1] == found.nonfinite_gradients.sum() > 0
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("alp")]
    assert line.startswith("40 of 40 images had gradients") and "\n" not in line


def test_the_same_images_stand_as_without_the_branch(images: np.ndarray) -> None:
    """The report's case: no gradient at all is left, and an attack without one breaks nothing."""
    model = small_model()
    labels = np.argmax(model(images), axis=1)
    inputs = keras.Input(IMAGE_SHAPE)
    attack = PGD(eps=1e-4, eps_iter=1e-4, nb_iter=3, restarts=2)
    for one in (model, keras.Model(inputs, model(inputs) + root_of_nothing(inputs))):
        assert evaluate(one, images, labels, attack=attack).accuracy_at(2) == 1.0


def bad_in_the_ball(images: np.ndarray) -> keras.Model:
    """Logits that are NaN where the first pixel is above 0.7 (its clean value is at most 0.68)."""
    inputs = keras.Input(IMAGE_SHAPE)
    bright = inputs[:, 0, 0, 0][:, None] > 0.7
    return keras.Model(inputs, keras.ops.where(bright, np.nan, small_model()(inputs)))


@pytest.mark.parametrize(
    "changes", [{}, {"engine": "cleverhans"}, {"gradient_noise": 0.01}], ids=str
)
def test_logits_that_are_not_finite_end_an_evaluation(
    images: np.ndarray, changes: dict[str, Any], tmp_path: Path
) -> None:
    images = images.copy()
    images[:, 0, 0, 0] = 0.3
    images[12, 0, 0, 0] = 0.68
    model = bad_in_the_ball(images)
    labels = np.argmax(model(images), axis=1)
    attack = PGD(eps=EPS, eps_iter=0.04, nb_iter=3, restarts=30, **changes)
    with pytest.raises(InputError, match=r"image 112, restart \d+: .*not finite") as caught:
        evaluate(
            model,
            images,
            labels,
            attack=attack,
            folder=tmp_path,
            batch_size=40,
            indices=np.arange(100, 140),
        )
    assert "\n" not in str(caught.value)
    assert len(list(tmp_path.glob("*.npz"))) == 1  # what was found before is kept


def test_losses_that_are_not_finite_name_their_image(images: np.ndarray) -> None:
    images = np.full((3, *IMAGE_SHAPE), 0.3, np.float32)
    images[2, 0, 0, 0] = 0.68
    plane = landscape.Plane(radius=0.05, resolution=3)
    with pytest.raises(InputError, match=r"image 7: .*not finite"):
        landscape.loss_surfaces(
            bad_in_the_ball(images), images, np.zeros(3, int), plane=plane, indices=[5, 6, 7]
        )


def test_finite_gradients_keep_every_bit() -> None:
    gradient = np.random.default_rng(0).normal(size=(5, 4, 4, 1)).astype(np.float32)
    gradient[3, 0, 0, 0] = -0.0
    gradient[1, 2, 2, 0], gradient[4, 1, 1, 0] = np.nan, -np.inf
    found, bad = tf.function(finite_gradient)(gradient)
    np.testing.assert_array_equal(bad, [False, True, False, False, True])
    expected = np.where(np.isfinite(gradient), gradient, np.float32(0))
    assert found.numpy().tobytes() == expected.tobytes()
