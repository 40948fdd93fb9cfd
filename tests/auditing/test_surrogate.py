"""A model without a gradient is attacked by a surrogate's, and classifies what that finds."""

from __future__ import annotations

import functools
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import alp_repro
from alp_repro.attacks import Phase
from alp_repro.auditing import Audit
from alp_repro.errors import InputError
from tests.auditing import fixtures, zoo

EPS = 0.15
PGD = zoo.pgd(EPS, nb_iter=20)
PLAN = (Phase(PGD, "all", name="default"),)


def audited(model: object, **options: object) -> Audit:
    return alp_repro.audit(
        model,
        zoo.IMAGES,
        zoo.LABELS,
        EPS,
        attack=PGD,
        phases=PLAN,
        closer_look=False,
        minutes=600,
        **options,
    )


def looked_up() -> keras.Model:
    return zoo.After(after=zoo.looked_up)


@functools.cache
def without() -> Audit:
    return audited(zoo.After(before=zoo.quantised))


def keys(found: Audit) -> set[str]:
    return {one.key for one in found.raised}


def test_without_one_nothing_follows_a_gradient_and_the_advice_names_it() -> None:
    found = without()
    assert found.attacks[0].spent == 0
    (one,) = (one for one in found.raised if one.key == "no_gradient")
    assert "surrogate" in one.advice


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quantised", "looked up", "in NumPy"])
def test_with_one_the_model_itself_is_broken(name: str) -> None:
    """By a rounding of its input, by its argmax alone, and by code that TensorFlow cannot see."""
    models = {
        "quantised": lambda: zoo.After(before=zoo.quantised),
        "looked up": looked_up,
        "in NumPy": lambda: in_numpy,
    }
    model = models[name]()
    found = audited(model, surrogate=zoo.linear())
    assert found.attacks[0].spent > 0
    assert "no_gradient" not in keys(found)
    assert found.worst_accuracy <= 0.5
    broken = found.broken_by >= 0
    predicted = np.asarray(model(found.adversarial[broken])).argmax(axis=1)
    np.testing.assert_array_equal(predicted, found.found[broken])
    assert (predicted != zoo.LABELS[broken]).all()
    assert any("surrogate" in note for note in found.notes)


def in_numpy(images: object) -> np.ndarray:
    """The nearest pattern of images of 8 levels; NumPy's own functions know no tensors."""
    values = np.round(np.array(images, np.float32) * 8) / 8
    patterns = fixtures.patterns().reshape(zoo.CLASSES, -1)
    flat = values.reshape(len(values), -1)
    return 3.0 * (flat @ patterns.T - 0.5 * (patterns**2).sum(axis=1))


def test_an_evaluation_with_one_is_a_result_of_its_own(tmp_path: Path) -> None:
    model, attack = looked_up(), zoo.pgd(EPS, nb_iter=20)
    given = {"attack": attack, "folder": tmp_path, "progress": False}
    with pytest.raises(InputError, match="no gradient"):
        alp_repro.evaluate(model, zoo.IMAGES, zoo.LABELS, **given)
    first = alp_repro.evaluate(model, zoo.IMAGES, zoo.LABELS, surrogate=zoo.linear(), **given)
    assert first.accuracy_at(1) <= 0.5
    again = alp_repro.evaluate(model, zoo.IMAGES, zoo.LABELS, surrogate=zoo.linear(), **given)
    np.testing.assert_array_equal(first.first_break, again.first_break)
    another = zoo.dense("relu")
    alp_repro.evaluate(model, zoo.IMAGES, zoo.LABELS, surrogate=another, **given)
    assert len(list(tmp_path.glob("*.npz"))) == 2


@pytest.mark.slow
def test_another_function_is_reported() -> None:
    def inverted(images: tf.Tensor) -> tf.Tensor:
        return zoo_linear()(1 - images)

    found = audited(looked_up(), surrogate=inverted)
    assert "surrogate_differs" in keys(found)


@functools.cache
def zoo_linear() -> keras.Model:
    return zoo.linear()


def test_other_classes_are_one_line() -> None:
    with pytest.raises(InputError, match=r"surrogate has 2 classes: .*4"):
        audited(looked_up(), surrogate=zoo.dense_of_two())
