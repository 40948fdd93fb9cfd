"""The callback that attacks while a model trains: what it logs, and when it warns."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import alp_repro
from alp_repro.evaluation import evaluate

SHAPE, CLASSES = (4, 4, 1), 3
ATTACK = alp_repro.PGD(eps=0.1, eps_iter=0.05, nb_iter=3)


def images(count: int = 9) -> np.ndarray:
    """Bright in one of three rows, by class."""
    x = np.random.default_rng(0).uniform(0.2, 0.4, (count, *SHAPE)).astype(np.float32)
    for i in range(count):
        x[i, i % CLASSES] += 0.4
    return x


def labels(count: int = 9) -> np.ndarray:
    return np.arange(count, dtype=np.int32) % CLASSES


def by_rows() -> keras.Model:
    """Logits are the rows' brightness: right on clean images, and not easily led astray."""
    kernel = np.zeros((16, CLASSES), np.float32)
    for row in range(CLASSES):
        kernel[4 * row : 4 * row + 4, row] = 1
    model = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
    )
    model.set_weights([kernel, np.zeros(CLASSES)])
    return model


def fitted(model: keras.Model, *callbacks: Any, epochs: int = 1) -> dict[str, list[float]]:
    """The history of a training that changes nothing."""
    if not isinstance(model, alp_repro.LogitPairing):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    else:
        loss = None
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss=loss)
    history = model.fit(
        images(), labels(), batch_size=9, epochs=epochs, callbacks=[*callbacks], verbose=0
    )
    return history.history


def test_the_accuracy_under_attack_is_the_evaluations() -> None:
    attack = alp_repro.PGD(eps=0.25, eps_iter=0.1, nb_iter=3, restarts=2)
    model = by_rows()
    callback = alp_repro.RobustAccuracy(images(), labels(), attack=attack, stronger=None)
    history = fitted(model, callback)
    record = evaluate(model, images(), labels(), attack=attack)
    assert history["robust_accuracy"] == [record.accuracy_at(2)]
    assert history["robust_accuracy"][0] < 1 and "default_robust_accuracy" not in history


@pytest.mark.slow
def test_the_training_attack_is_taken_and_compared_with_a_stronger_one() -> None:
    model = alp_repro.LogitPairing(by_rows(), attack=ATTACK, adversarial_fraction=0.5)
    one_hot = keras.utils.to_categorical(labels(), CLASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a smooth model hides nothing
        history = fitted(model, alp_repro.RobustAccuracy(images(), one_hot))
    assert history["robust_accuracy"] == history["default_robust_accuracy"] == [1.0]


def test_a_model_that_fools_the_default_attack_is_warned_of() -> None:
    """One step from the image itself is too short to leave a class, and forty are not."""
    short = alp_repro.PGD(eps=0.3, eps_iter=0.001, nb_iter=1, random_start=False)
    callback = alp_repro.RobustAccuracy(images(), labels(), attack=short)
    with pytest.warns(UserWarning, match=r"epoch 1: 100.0% of the images withstand") as caught:
        history = fitted(by_rows(), callback)
    assert history["default_robust_accuracy"] == [1.0] and history["robust_accuracy"][0] < 0.5
    assert "\n" not in str(caught[0].message)


def test_callbacks_of_keras_read_what_is_logged(tmp_path: Path) -> None:
    history = fitted(
        by_rows(),
        alp_repro.RobustAccuracy(images(), labels(), attack=ATTACK, stronger=None, every=2),
        keras.callbacks.ModelCheckpoint(
            tmp_path / "best.keras", monitor="robust_accuracy", mode="max", save_best_only=True
        ),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        epochs=3,
    )
    found = history["robust_accuracy"]
    assert np.isnan(found[0]) and found[1:] == [1.0, 1.0]  # every second epoch, and the last
    assert "robust_accuracy" in (tmp_path / "log.csv").read_text().splitlines()[0]
    assert (tmp_path / "best.keras").exists()


@pytest.mark.slow
def test_an_ensemble_has_to_be_withstood_as_a_whole() -> None:
    harmless = alp_repro.PGD(eps=0.0, eps_iter=0.0, nb_iter=1)
    attack = alp_repro.PGD(eps=0.3, eps_iter=0.1, nb_iter=5)
    callback = alp_repro.RobustAccuracy(
        images(), labels(), attack=[harmless, attack], stronger=None
    )
    alone = alp_repro.RobustAccuracy(images(), labels(), attack=attack, stronger=None)
    assert (
        fitted(by_rows(), callback)["robust_accuracy"]
        == fitted(by_rows(), alone)["robust_accuracy"]
    )


def test_the_preset_strong_is_taken_as_an_attack() -> None:
    callback = alp_repro.RobustAccuracy(
        images(), labels(), attack=alp_repro.strong_attack(0.1), stronger=None
    )
    callback.set_model(by_rows())
    callback.on_train_begin()


def test_logits_that_collapsed_end_no_training() -> None:
    model = by_rows()
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    callback = alp_repro.RobustAccuracy(images(), labels(), attack=ATTACK)
    with pytest.warns(UserWarning, match="robust accuracy not computed"):
        assert np.isnan(fitted(model, callback)["robust_accuracy"][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected attack="),
        ({"attack": "pgd"}, "expected attacks"),
        ({"attack": ATTACK, "every": 0}, "every 0"),
        ({"attack": ATTACK, "y": labels() + 1}, "label"),
        ({"attack": ATTACK, "x": 255 * images()}, r"\[0, 1\]"),
    ],
)
def test_what_cannot_be_attacked_is_told_before_the_training(
    arguments: dict[str, Any], message: str
) -> None:
    given = {"x": images(), "y": labels(), **arguments}
    with pytest.raises(alp_repro.InputError, match=message) as caught:
        callback = alp_repro.RobustAccuracy(given.pop("x"), given.pop("y"), **given)
        callback.set_model(by_rows())
        callback.on_train_begin()
    assert "\n" not in str(caught.value)
