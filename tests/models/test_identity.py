"""What makes a model another one, and what does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest

from alp_repro import runs
from alp_repro.models import build_model
from alp_repro.models.copies import float32_model
from alp_repro.models.identity import FunctionIdentity, architecture_hash, function_identity
from tests.small_model import IMAGE_SHAPE, small_model


def network(
    *, activation: Any = "relu", factor: float = 1.0, name: str | None = None, dtype: Any = None
) -> keras.Model:
    """Always the same weights."""
    images = keras.Input(IMAGE_SHAPE)
    x = keras.layers.Rescaling(factor, dtype=dtype)(images)
    x = keras.layers.Flatten(dtype=dtype)(x)
    x = keras.layers.Dense(9, activation=activation, name=name, dtype=dtype)(x)
    model = keras.Model(images, keras.layers.Dense(3, dtype=dtype)(x))
    generator = np.random.default_rng(1)
    model.set_weights([generator.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


def kept(model: keras.Model) -> dict[str, Any]:
    return dataclasses.asdict(function_identity(model, IMAGE_SHAPE))


def difference(found: keras.Model, from_model: keras.Model) -> str | None:
    return function_identity(found, IMAGE_SHAPE).difference_from(kept(from_model))


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "tanh"},
        {"factor": 1.1},
        {"activation": keras.layers.ReLU(max_value=1e6)},  # beyond all logits on fixed images
    ],
    ids=["activation", "rescaling", "ceiling"],
)
def test_another_function_of_the_same_weights_is_another_model(changes: dict[str, Any]) -> None:
    assert runs.weights_hash(network()) == runs.weights_hash(network(**changes))
    assert difference(network(), network(**changes)) is not None


@pytest.mark.parametrize("end", ["masked", "offset"])
def test_a_masked_class_or_an_offset_hides_no_other_function(end: str) -> None:
    def model(function: Any) -> keras.Model:
        # What a lambda computes stands in no configuration: only its outputs tell.
        layers = network(activation=keras.layers.Lambda(function)).layers
        found = keras.Sequential(
            [
                *layers,
                keras.layers.Lambda(mask) if end == "masked" else keras.layers.Rescaling(1, 1e5),
            ]
        )
        found.build((None, *IMAGE_SHAPE))
        return found

    def mask(logits: Any) -> Any:
        return keras.ops.pad(logits, [[0, 0], [0, 1]], constant_values=-1e9)

    first, same, other = (
        model(function)
        for function in (
            lambda x: keras.ops.relu(x),
            lambda x: keras.ops.relu(x),
            lambda x: keras.ops.tanh(x),
        )
    )
    assert difference(first, same) is None
    assert difference(first, other) is not None


@pytest.mark.parametrize("changes", [{}, {"name": "named"}, {"dtype": "mixed_bfloat16"}], ids=str)
def test_names_and_dtypes_are_no_part_of_a_function(changes: dict[str, Any]) -> None:
    assert difference(float32_model(network(**changes)), network()) is None


def test_a_layer_may_be_named_like_an_activation() -> None:
    assert difference(network(name="relu"), network(name="tanh")) is None


@pytest.mark.parametrize("build", [small_model, network])
def test_a_model_that_was_saved_and_one_that_was_cloned_are_the_model(
    build: Any, tmp_path: Any
) -> None:
    model = build()
    runs.save_model(tmp_path / "model.keras", model)
    loaded = runs.load_model(tmp_path / "model.keras")
    cloned = keras.models.clone_model(model)
    cloned.set_weights(model.get_weights())
    assert difference(loaded, model) is None
    assert difference(cloned, model) is None


def test_a_sequential_model_is_the_same_before_and_after_its_first_call() -> None:
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    first = function_identity(model, IMAGE_SHAPE)
    assert first == function_identity(model, IMAGE_SHAPE)


def test_trained_statistics_are_weights_and_change_the_hash() -> None:
    images = keras.Input(IMAGE_SHAPE)
    model = keras.Model(images, keras.layers.BatchNormalization()(images))
    before = runs.weights_hash(model)
    model.layers[-1].moving_mean.assign([0.5])
    assert runs.weights_hash(model) != before


class Scaled(keras.Model):
    """Its configuration says nothing of its attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        self.dense = keras.layers.Dense(3, kernel_initializer=keras.initializers.HeNormal(seed=1))

    def call(self, images: Any) -> Any:
        return self.scale * self.dense(keras.ops.reshape(images, (-1, 64)))

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError


def test_an_attribute_that_no_configuration_names_is_seen_in_the_logits() -> None:
    model, other = Scaled(), Scaled()
    assert difference(model, other) is None
    other.scale = 1.01
    assert architecture_hash(model) == architecture_hash(other)
    assert "logits" in str(difference(model, other))


@pytest.mark.parametrize("rounding", [1e-6, 1e-4])
def test_another_machines_rounding_is_the_same_function(rounding: float) -> None:
    """The deepest of our models in bfloat16's neighbourhood is far; float32 sums differ by 1e-5."""
    identity = function_identity(small_model(), IMAGE_SHAPE)
    generator = np.random.default_rng(0)
    rounded = np.array(identity.logits) * (1 + rounding * generator.uniform(-1, 1, (4, 10)))
    other = FunctionIdentity(identity.architecture, tuple(map(tuple, rounded.tolist())))
    assert other.difference_from(dataclasses.asdict(identity)) is None


def test_logits_that_are_not_finite_are_noted_and_compared() -> None:
    model = network()
    model.layers[-1].bias.assign([np.nan, 0, 0])
    assert function_identity(model, IMAGE_SHAPE).logits[0][0] is None
    assert difference(model, model) is None
    assert difference(model, network()) is not None


def test_results_of_a_time_without_functions_are_taken() -> None:
    assert function_identity(network(), IMAGE_SHAPE).difference_from(None) is None


def test_the_papers_models_are_told_apart_by_their_layers() -> None:
    names = ("lenet", "resnet20_v2", "resnet50_v2")
    models = [build_model(n, image_shape=(32, 32, 3), num_classes=10, width=2) for n in names]
    assert len({architecture_hash(model) for model in models}) == 3


class Odd(keras.layers.Layer):
    """Its configuration has no name, and a list of layers that are none."""

    def __init__(self, widths: tuple[int, ...], **options: Any) -> None:
        super().__init__(**options)
        self.widths = widths

    def call(self, x: Any) -> Any:
        return x * len(self.widths)

    def get_config(self) -> dict[str, Any]:
        return {"layers": list(self.widths)}


def test_layers_may_say_anything_of_themselves() -> None:
    def odd(*widths: int) -> keras.Model:
        return keras.Sequential([keras.Input(IMAGE_SHAPE), Odd(widths), keras.layers.Flatten()])

    assert architecture_hash(odd(1, 2)) == architecture_hash(odd(1, 2))
    assert architecture_hash(odd(1, 2)) != architecture_hash(odd(2, 1))
