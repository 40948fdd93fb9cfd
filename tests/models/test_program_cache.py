"""Compiled programs are kept, but never for a model that has become another function."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro.attacks import PGD
from alp_repro.evaluation import evaluate
from alp_repro.models.program_cache import cached_for_models, taken_as_unchanged
from tests.small_model import IMAGE_SHAPE, small_images


class Turned(keras.Model):
    """Two classes; `sign`, which no trace follows, turns its prediction over."""

    def __init__(self) -> None:
        super().__init__()
        self.sign = 1.0
        self.dense = keras.layers.Dense(2, kernel_initializer=keras.initializers.HeNormal(seed=1))

    def call(self, images: Any) -> Any:
        return self.sign * self.dense(keras.ops.reshape(images, (-1, 64)) - 0.5)


@pytest.fixture
def compiled() -> list[str]:
    return []


@pytest.fixture
def program(compiled: list[str]) -> Any:
    @cached_for_models(maxsize=2)
    def compile_program(model: keras.Model, image_shape: tuple[int, ...], what: str) -> Any:
        compiled.append(what)
        return tf.function(lambda images: model(images))

    return compile_program


def test_a_program_is_kept_when_only_weights_change(program: Any, compiled: list[str]) -> None:
    model, images = Turned(), small_images(3)
    first = program(model, IMAGE_SHAPE, "a")
    first(images)
    model.dense.bias.assign([1.0, 2.0])
    assert program(model, IMAGE_SHAPE, "a") is first
    np.testing.assert_allclose(first(images), model(images), rtol=1e-5)
    program(model, IMAGE_SHAPE, "b")
    assert compiled == ["a", "b"]


def test_a_program_is_compiled_anew_when_the_models_python_side_changes(
    program: Any, compiled: list[str]
) -> None:
    model, images = Turned(), small_images(3)
    program(model, IMAGE_SHAPE, "a")(images)
    model.sign = -1.0
    np.testing.assert_allclose(program(model, IMAGE_SHAPE, "a")(images), model(images), rtol=1e-5)
    assert compiled == ["a", "a"]


def test_an_evaluation_after_an_attribute_changed_is_of_the_model_as_it_is_now() -> None:
    model, images = Turned(), small_images(8)
    labels = np.argmax(model(images), axis=1)
    attack = PGD(eps=1e-6, eps_iter=1e-6, nb_iter=1)
    before = evaluate(model, images, labels, attack=attack, batch_size=8)
    assert before.clean_accuracy == before.accuracy_at(1) == 1
    model.sign = -1.0
    after = evaluate(model, images, labels, attack=attack, batch_size=8)
    assert after.clean_accuracy == after.accuracy_at(1) == 0


class Noisy(keras.Model):
    """Two classes, by chance."""

    def call(self, images: Any) -> Any:
        return tf.random.normal([tf.shape(images)[0], 2])


def test_a_random_models_program_is_kept_while_it_is_taken_as_unchanged(
    program: Any, compiled: list[str]
) -> None:
    """Its logits cannot tell that it is the same."""
    model, turned = Noisy(), Turned()
    program(turned, IMAGE_SHAPE, "b")
    with taken_as_unchanged(model, turned):
        first = program(model, IMAGE_SHAPE, "a")
        assert program(model, IMAGE_SHAPE, "a") is first
        assert compiled == ["b", "a"]
        turned.sign = -1.0  # before the block knows of it: the kept program is another's
        program(turned, IMAGE_SHAPE, "b")
        assert compiled == ["b", "a", "b"]
    program(model, IMAGE_SHAPE, "a")
    assert compiled == ["b", "a", "b", "a"]
