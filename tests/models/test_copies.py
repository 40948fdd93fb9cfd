"""Copies of a model are the model, in another dtype or on another device, or are refused."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro.attacks import PGD
from alp_repro.errors import InputError
from alp_repro.evaluation import evaluate
from alp_repro.models import MODELS, build_model
from alp_repro.models.copies import copy_in_dtype, copy_weights, float32_model, logits_function
from tests.marks import slow_unless
from tests.small_model import IMAGE_SHAPE, small_images, small_model

ATTACK = {"eps": 0.05, "eps_iter": 0.02, "nb_iter": 3, "restarts": 2}
DTYPES = ["float32", "bfloat16", "mixed_bfloat16"]


def normalised(images: np.ndarray, dtype: str | None = None) -> keras.Model:
    """A small model behind a `Normalization` that was adapted to images of another contrast."""
    norm = keras.layers.Normalization(dtype="float32" if dtype is None else dtype)
    norm.adapt(0.2 * images + 0.3)
    return keras.Sequential([keras.Input(IMAGE_SHAPE), norm, small_model(dtype=dtype)])


class Hidden(keras.layers.Layer):
    """Has a factor that neither its configuration nor a weight holds."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.factor = 1.0

    def call(self, x: Any) -> Any:
        return x * keras.ops.cast(self.factor, x.dtype)


def hidden(dtype: str | None = None) -> keras.Model:
    layer = Hidden(dtype=dtype)
    model = keras.Sequential([keras.Input(IMAGE_SHAPE), layer, small_model(dtype=dtype)])
    layer.factor = 0.2
    return model


def logits(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return logits_function(model)(tf.constant(images)).numpy()


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_adapted_normalization_is_copied(images: np.ndarray, dtype: Any) -> None:
    model = normalised(images)
    found, expected = logits(copy_in_dtype(model, dtype), images), logits(model, images)
    assert np.abs(found - expected).mean() < (1e-5 if dtype == "float32" else 0.1)


def test_copied_weights_bring_an_adapted_normalization_along(images: np.ndarray) -> None:
    model = normalised(images)
    copy = copy_in_dtype(model, "float32")
    model.layers[0].adapt(0.1 * images)
    copy_weights(model, copy)
    np.testing.assert_allclose(logits(copy, images), logits(model, images), atol=1e-4)


def test_the_judge_of_a_mixed_model_is_its_function(images: np.ndarray) -> None:
    mixed = normalised(images, dtype="mixed_bfloat16")
    np.testing.assert_allclose(
        logits(float32_model(mixed), images), logits(normalised(images), images), atol=1e-4
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", slow_unless(["lenet", "resnet20_v2"], MODELS))
def test_the_papers_models_have_copies(name: str, dtype: Any) -> None:
    """Those of bfloat16 are within their tolerance too."""
    copy_in_dtype(build_model(name, image_shape=(32, 32, 3), num_classes=10, width=2), dtype)


def test_a_bfloat16_attack_on_a_normalised_model_is_as_strong(images: np.ndarray) -> None:
    model = normalised(images)
    labels = np.argmax(model(images), axis=1)
    fine = evaluate(model, images, labels, attack=PGD(**ATTACK), batch_size=40)
    rough = evaluate(model, images, labels, attack=PGD(**ATTACK, dtype="bfloat16"), batch_size=40)
    assert fine.accuracy_at(2) < 0.9
    assert abs(rough.accuracy_at(2) - fine.accuracy_at(2)) <= 0.1


@pytest.mark.slow
def test_replicas_of_a_normalised_model_are_the_model(
    images: np.ndarray, two_replicas: tf.distribute.Strategy
) -> None:
    model = normalised(images)
    labels = np.argmax(model(images), axis=1)
    options: dict[str, Any] = {"attack": PGD(**ATTACK), "record_losses": True}
    one = evaluate(model, images, labels, batch_size=40, **options)
    two = evaluate(model, images, labels, batch_size=20, strategy=two_replicas, **options)
    np.testing.assert_allclose(two.losses, one.losses, atol=1e-3)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("crafting", "craft or train in float32"),
        ("judge", "build it with the dtype policy float32"),
        ("replica", "use one device"),
    ],
)
@pytest.mark.parametrize("kind", ["hidden state", "no clone"])
def test_a_copy_that_is_not_the_model_is_refused_with_what_helps(
    what: str, message: str, kind: str, two_replicas: tf.distribute.Strategy
) -> None:
    dtype = "mixed_bfloat16" if what == "judge" else None
    model = hidden(dtype) if kind == "hidden state" else Subclass(dtype)
    attack = PGD(**ATTACK, dtype="bfloat16" if what == "crafting" else "float32")
    strategy = two_replicas if what == "replica" else None
    with pytest.raises(InputError, match=message) as caught:
        evaluate(
            model,
            small_images(6),
            np.zeros(6, int),
            attack=attack,
            batch_size=6,
            strategy=strategy,
        )
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert ("gives different logits" in str(caught.value)) == (kind == "hidden state")


class Subclass(keras.Model):
    def __init__(self, dtype: str | None) -> None:
        super().__init__(dtype=dtype)
        self.dense = keras.layers.Dense(3, dtype=dtype)

    def call(self, x: Any) -> Any:
        return self.dense(keras.ops.reshape(x, (-1, 64)))


def test_what_helps_does_help(images: np.ndarray) -> None:
    """In float32, on one device, no copy is needed."""
    for model in (hidden(), Subclass(None)):
        labels = np.argmax(model(images), axis=1)
        assert evaluate(model, images, labels, attack=PGD(**ATTACK)).clean_accuracy == 1


class WithoutKernel(keras.layers.Layer):
    """An operation that TensorFlow has for bfloat16, but no kernel of it on a CPU."""

    def call(self, x: Any) -> Any:
        return tf.nn.local_response_normalization(x)


def test_a_dtype_that_the_machine_has_no_kernels_for_is_told_in_one_line() -> None:
    model = keras.Sequential([keras.Input(IMAGE_SHAPE), WithoutKernel(), small_model()])
    copy_in_dtype(model, "float32")
    with pytest.raises(InputError, match=r"cannot compute .* in bfloat16 .*use float32") as e:
        copy_in_dtype(model, "bfloat16")
    assert "\n" not in str(e.value)
