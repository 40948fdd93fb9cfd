"""Models of all kinds at the door: what is no classifier of images is refused in one line."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro.attacks import PGD, SPSA, Attack, programs
from alp_repro.errors import InputError
from alp_repro.evaluation import AttackRecord, evaluate, model_check
from alp_repro.models.copies import float32_copy
from tests.marks import slow_unless
from tests.small_model import CLASSES, IMAGE_SHAPE, small_images, small_model

ATTACK = PGD(eps=0.05, eps_iter=0.02, nb_iter=2, restarts=4)
ARRAYS = ("clean_predictions", "first_break", "next_restart", "losses", "broken")
flatten, dense = keras.layers.Flatten, keras.layers.Dense


def attack(**changes: Any) -> Attack:
    return dataclasses.replace(ATTACK, **changes)


def test_a_model_can_be_checked_after_each_epoch_without_a_warning_of_tensorflow(
    model: keras.Model, images: np.ndarray
) -> None:
    told: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = told.append  # type: ignore[method-assign]
    tf.get_logger().addHandler(handler)
    try:
        for _ in range(7):  # TensorFlow warns of a function that is traced in 5 calls
            model_check.check_gradient(model, images, ATTACK)
    finally:
        tf.get_logger().removeHandler(handler)
    assert [record.getMessage() for record in told] == []


def assert_same(found: AttackRecord, expected: AttackRecord) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def test_a_sequential_model_of_the_users(images: np.ndarray) -> None:
    weights = keras.initializers.GlorotUniform(seed=1)
    model = keras.Sequential(
        [keras.layers.Flatten(), keras.layers.Dense(3, kernel_initializer=weights)]
    )
    labels = np.argmax(model(images), axis=1)
    record = evaluate(model, images, labels, attack=attack(eps=0.3), batch_size=16)
    assert record.clean_accuracy == 1
    assert record.accuracy_at(4) < 1
    rough = evaluate(model, images, labels, attack=attack(eps=0.3, dtype="bfloat16"), batch_size=16)
    assert abs(rough.accuracy_at(4) - record.accuracy_at(4)) <= 0.1


@pytest.mark.parametrize("how", slow_unless(["layers"], ["layers", "global policy"]))
def test_a_mixed_precision_model_is_judged_in_float32(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, how: str
) -> None:
    if how == "layers":
        mixed = small_model(dtype="mixed_bfloat16")
    else:
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        if how == "global policy":
            mixed = small_model()
        assert np.any(np.asarray(mixed(images), np.float32) != model(images).numpy())
        found = evaluate(mixed, images, labels, attack=ATTACK, batch_size=16, record_losses=True)
    finally:
        keras.config.set_dtype_policy("float32")
    expected = evaluate(model, images, labels, attack=ATTACK, batch_size=16, record_losses=True)
    assert_same(found, expected)


def test_clean_predictions_of_a_mixed_precision_model_are_float32s(model: keras.Model) -> None:
    images = small_images(1000)
    mixed = small_model(dtype="mixed_bfloat16")
    expected = model(images).numpy().argmax(axis=1)
    differ = np.asarray(mixed(images), np.float32).argmax(axis=1) != expected
    assert differ.sum() >= 3
    found = evaluate(
        mixed, images[differ], expected[differ], attack=attack(restarts=1), batch_size=16
    )
    np.testing.assert_array_equal(found.clean_predictions, expected[differ])


# Refused


def model_ending_in(*layers: keras.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(IMAGE_SHAPE), *layers])


class Between(keras.layers.Layer):
    """Applies a function of TensorFlow's."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self._function = function

    def call(self, x: Any) -> Any:
        return self._function(x)


class Uncallable(keras.Model):
    def call(self, x: Any) -> Any:
        raise AttributeError("no such thing\nin two lines")


def damaged() -> keras.Model:
    model = model_ending_in(flatten(), dense(CLASSES))
    model.weights[0].assign(np.full(model.weights[0].shape, np.nan))
    return model


def of_integers() -> keras.Model:
    images = keras.Input(IMAGE_SHAPE, dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(images)
    return keras.Model(images, dense(3)(flatten()(x)))


def refused(model: Any, message: str, **options: Any) -> None:
    images = small_images(6)
    options = {"attack": ATTACK, "batch_size": 6, **options}
    with pytest.raises(InputError, match=message) as caught:
        evaluate(model, images, np.arange(6) % 2, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: model_ending_in(flatten(), dense(CLASSES, activation="softmax")), "probabilities"),
        (lambda: model_ending_in(dense(CLASSES)), r"the model .*\(4, 8, 8, 10\)"),
        (damaged, "image 0 are not finite"),
        (lambda: model_ending_in(flatten(), dense(1)), r"one output.*\[0, z\]"),
        (lambda: model_ending_in(flatten(), dense(1, activation="sigmoid")), "one output"),
        (Uncallable, r"images of shape \(8, 8, 1\): no such thing in two lines"),
        (of_integers, "takes integers.*Rescaling"),
        (lambda: between(tf.round), "no gradient.*rounding"),
        (lambda: between(tf.stop_gradient), "no gradient.*stop_gradient"),
        (lambda: between(lambda x: tf.cast(tf.cast(x * 255, tf.uint8), tf.float32)), "no gradient"),
        (lambda: between(tf.sign), "no gradient.* 0 at all"),
    ],
)
def test_what_no_attack_can_judge_is_refused(model: Any, message: str) -> None:
    refused(model(), message)


@pytest.mark.parametrize("kept", [10, 2])
def test_sigmoids_are_asked_about(kept: int) -> None:
    sigmoids = model_ending_in(flatten(), dense(kept, activation="sigmoid"))
    refused(sigmoids, r"all lie in \[0, 1\].*activation=None.*subtract 1")
    lowered = keras.Sequential([*sigmoids.layers, keras.layers.Rescaling(1.0, -1.0)])
    images = small_images(6)
    evaluate(lowered, images, np.arange(6) % 2, attack=ATTACK, batch_size=6)


def with_end(model: keras.Model, end: str) -> keras.Model:
    ends = {
        "plain": [],
        "masked": [Between(lambda z: tf.concat([z, tf.fill([tf.shape(z)[0], 1], -1e9)], 1))],
        "offset": [keras.layers.Rescaling(1.0, 1e5)],
    }
    return keras.Sequential([*model.layers, *ends[end]])


@pytest.mark.parametrize("end", ["plain", "masked", "offset"])
@pytest.mark.parametrize(
    ("noise", "why"),
    [
        (lambda x: tf.random.normal(tf.shape(x)), "each time"),
        (lambda x: tf.random.stateless_normal(tf.shape(x), seed=[1, 2]), "place in the batch"),
    ],
    ids=["noise", "noise by place"],
)
def test_chance_is_seen_whatever_the_logits_scale(noise: Any, why: str, end: str) -> None:
    random = model_ending_in(Between(lambda x: x + 0.3 * noise(x)), flatten(), dense(4))
    refused(with_end(random, end), f"not deterministic.*{why}")


@pytest.mark.parametrize("end", ["plain", "masked", "offset"])
def test_a_function_passes_whatever_the_logits_scale(end: str) -> None:
    model = with_end(model_ending_in(flatten(), dense(4)), end)
    images = small_images(6)
    assert model_check.why_not_deterministic(model, images) is None
    assert model_check.why_not_deterministic(model, images[:1]) is None


def between(function: Any) -> keras.Model:
    return model_ending_in(Between(function), flatten(), dense(3))


def test_spsa_needs_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    from alp_repro.attacks import cleverhans_engines

    monkeypatch.setattr(cleverhans_engines, "SPSA_SAMPLES", 4)
    model = between(tf.round)
    images = small_images(2)
    record = evaluate(
        model,
        images,
        np.argmax(model(images), axis=1),
        batch_size=2,
        attack=SPSA(eps=ATTACK.eps, nb_iter=1),
    )
    assert record.clean_accuracy == 1


@pytest.mark.parametrize(
    ("changes", "classes", "needed"),
    [({"loss": "dlr"}, 2, 3), ({"loss": "dlr", "target": "random"}, 3, 4)],
)
def test_too_few_classes_for_a_loss_are_told(
    changes: dict[str, Any], classes: int, needed: int
) -> None:
    model = model_ending_in(flatten(), dense(classes))
    refused(model, f"{needed} or more classes, got {classes}", attack=attack(**changes))


def test_a_model_of_keras_2_is_named_as_such() -> None:
    old = type("Sequential", (), {"__module__": "tf_keras.src.engine.sequential"})
    refused(old(), "tf_keras model")


def test_logits_that_are_not_finite_are_found_wherever_they_are() -> None:
    """The first images alone were looked at, and argmax of NaN is class 0, which was "correct"."""
    images = small_images(20)
    model = between(lambda x: tf.where(x == images[13, 0, 0, 0], np.nan, x))
    with pytest.raises(InputError, match="image 13 are not finite"):
        evaluate(model, images, np.zeros(20, int), attack=ATTACK, batch_size=6)


# No function of an image


class BatchStatistics(keras.Model):
    """Calls batch norm in training mode, always."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = keras.layers.BatchNormalization()
        self.dense = dense(3, kernel_initializer=keras.initializers.HeNormal(seed=1))

    def call(self, x: Any) -> Any:
        return self.dense(keras.ops.reshape(self.norm(x, training=True), (-1, 64)))


class Dropping(keras.Model):
    """Dropout that stays on in inference."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = keras.layers.Dropout(0.5, seed=3)
        self.dense = dense(3, kernel_initializer=keras.initializers.HeNormal(seed=1))

    def call(self, x: Any) -> Any:
        return self.dense(keras.ops.reshape(self.drop(x, training=True), (-1, 64)))


@pytest.mark.parametrize(
    ("kind", "message"),
    [(BatchStatistics, "other images of its batch"), (Dropping, "other logits each time")],
)
@pytest.mark.parametrize("built", slow_unless([True], [False, True]))
def test_a_model_that_is_no_function_is_refused_or_evaluated_if_asked(
    kind: Any, message: str, built: bool, tmp_path: Path
) -> None:
    images, labels = small_images(12), np.arange(12) % 3
    model = kind()
    if built:
        model(images)
    with pytest.raises(InputError, match=message) as caught:
        evaluate(model, images, labels, attack=ATTACK, batch_size=12, folder=tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    before = model.get_weights()
    options: dict[str, Any] = {"attack": ATTACK, "batch_size": 12, "folder": tmp_path}
    for restarts in (1, 2):  # a second call goes on with the first one's result
        options["attack"] = attack(restarts=restarts)
        record = evaluate(model, images, labels, allow_random=True, **options)
    assert message in record.settings["random"]
    assert len(record.sessions) == 2
    for value, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, kept)


def test_weights_are_as_they_were_even_of_a_model_that_was_not_built() -> None:
    model = BatchStatistics()
    with pytest.raises(InputError, match="not deterministic"):
        evaluate(model, small_images(6), np.zeros(6, int), attack=ATTACK)
    np.testing.assert_array_equal(model.norm.moving_mean, [0])
    np.testing.assert_array_equal(model.norm.moving_variance, [1])


def test_of_a_function_nothing_is_said_about_chance() -> None:
    images = small_images(4)
    record = evaluate(small_model(), images, np.zeros(4, int), attack=ATTACK, allow_random=True)
    assert "random" not in record.settings


@pytest.mark.slow
def test_a_mixed_precision_model_is_copied_once_and_compiled_once(
    images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[keras.Model] = []

    def counted(model: keras.Model) -> keras.Model:
        copies.append(float32_copy(model))
        return copies[-1]

    monkeypatch.setattr(model_check, "float32_copy", counted)
    compiled = []
    verdict_function = programs.verdict_function
    monkeypatch.setattr(
        programs,
        "verdict_function",
        lambda judge: compiled.append(judge) or verdict_function(judge),
    )
    mixed, exact = small_model("mixed_bfloat16"), small_model()
    labels = np.argmax(exact(images), axis=1)
    for factor in (1.0, 0.9):  # weights may change in between
        for model in (mixed, exact):
            model.set_weights([factor * weight for weight in small_model().get_weights()])
        for seed in (0, 0):
            found = evaluate(mixed, images, labels, attack=ATTACK, seed=seed)
        expected = evaluate(exact, images, labels, attack=ATTACK)
        np.testing.assert_array_equal(found.first_break, expected.first_break)
    assert len(copies) == 1
    assert compiled.count(copies[0]) == 1


@pytest.mark.slow
def test_a_mixed_model_whose_layers_changed_is_copied_anew(images: np.ndarray) -> None:
    mixed, exact = small_model("mixed_bfloat16"), small_model()
    labels = np.argmax(exact(images), axis=1)
    evaluate(mixed, images, labels, attack=ATTACK)
    for model in (mixed, exact):
        model.layers[1].activation = keras.activations.sigmoid
    found = evaluate(mixed, images, labels, attack=ATTACK)
    expected = evaluate(exact, images, labels, attack=ATTACK)
    np.testing.assert_array_equal(found.clean_predictions, expected.clean_predictions)
    np.testing.assert_array_equal(found.first_break, expected.first_break)
