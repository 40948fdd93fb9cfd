"""`evaluate` takes a file, `module:function` and a function of images as well as a Keras model."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro.attacks import PGD
from alp_repro.errors import InputError
from alp_repro.evaluation import evaluate

ATTACK = PGD(eps=0.1, eps_iter=0.02, nb_iter=5, restarts=2)


def test_a_file_and_a_function_give_what_the_model_gives(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, tmp_path: Path
) -> None:
    keras.Model(model.inputs[0], keras.layers.Softmax()(model.outputs[0])).save(
        tmp_path / "m.keras"
    )

    def function(x: tf.Tensor) -> tf.Tensor:
        return model(x)

    wanted = evaluate(model, images, labels, attack=ATTACK).first_break
    for classifier in (str(tmp_path / "m.keras"), tmp_path / "m.keras", function):
        found = evaluate(classifier, images, labels, attack=ATTACK)
        np.testing.assert_array_equal(found.first_break, wanted)


def test_what_is_no_classifier_is_one_line(images: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(InputError, match="does not exist"):
        evaluate("nothing.keras", images, labels, attack=ATTACK)
    with pytest.raises(InputError, match="is a int"):
        evaluate(3, images, labels, attack=ATTACK)  # type: ignore[arg-type]
