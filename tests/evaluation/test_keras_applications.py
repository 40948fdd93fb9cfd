"""Any Keras application can be attacked: its own preprocessing stays inside the model."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import alp_repro


@pytest.fixture(scope="module")
def model() -> keras.Model:
    network = keras.applications.MobileNet(
        (32, 32, 3), alpha=0.25, weights=None, classes=5, classifier_activation=None
    )
    inputs = keras.Input((32, 32, 3))
    pixels = keras.applications.mobilenet.preprocess_input(inputs * 255.0)
    return keras.Model(inputs, network(pixels))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_application_with_its_preprocessing_inside(model: keras.Model, dtype: str) -> None:
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    labels = np.argmax(model(images), axis=1)

    attack = alp_repro.PGD(eps=8 / 255, eps_iter=2 / 255, nb_iter=2, restarts=2, dtype=dtype)
    record = alp_repro.evaluate(model, images, labels, attack=attack, batch_size=4)

    assert record.clean_accuracy == 1.0
    assert 0.0 <= record.accuracy_at(2) <= record.accuracy_at(1) <= 1.0
    assert np.all(record.next_restart >= 1)
