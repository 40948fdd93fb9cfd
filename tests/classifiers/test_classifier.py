"""Any classifier becomes images in [0, 1] to logits: the same function, without its softmax."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro.classifiers import as_classifier, pixel_range, standardized_pixels
from alp_repro.errors import InputError
from alp_repro.models.copies import copy_in_dtype

SHAPE = (8, 8, 1)
WEIGHTS = np.random.default_rng(3).normal(size=(64, 3)).astype(np.float32)


def network(*last: keras.layers.Layer, shape: tuple[int, ...] = SHAPE) -> keras.Model:
    hidden = keras.layers.Dense(16, activation="relu")
    return keras.Sequential([keras.Input(shape), keras.layers.Flatten(), hidden, *last])


def nested() -> keras.Model:
    head = network(keras.layers.Dense(10, activation="softmax"), shape=(6, 6, 3))
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(3, 3), head])


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (5, *SHAPE)).astype(np.float32)


def nested_behind_layers() -> keras.Model:
    """As saved by another process: its input has the name that Keras gives ours."""
    images = keras.Input(SHAPE, name="input_layer")
    head = network(keras.layers.Dense(10, activation="softmax"), shape=(6, 6, 3))
    return keras.Model(images, head(keras.layers.Conv2D(3, 3)(images)))


def operation() -> keras.Model:
    images = keras.Input(SHAPE)
    logits = keras.layers.Dense(10)(keras.layers.Flatten()(images))
    return keras.Model(images, keras.ops.softmax(logits))


class Functional(keras.Model):
    """Functional although it is a subclass: it has no `call` of its own."""

    def __init__(self, classes: int) -> None:
        images = keras.Input(SHAPE)
        dense = keras.layers.Dense(classes, activation="softmax")
        super().__init__(images, dense(keras.layers.Flatten()(images)))


def ending_in(end: Callable[..., Any], units: int) -> keras.Model:
    images = keras.Input(SHAPE)
    logits = keras.layers.Dense(units)(keras.layers.Flatten()(images))
    return keras.Model(images, end(logits))


MODELS = {
    "functional subclass": lambda: Functional(10),
    "TensorFlow's softmax": lambda: network(keras.layers.Dense(10, activation=tf.nn.softmax)),
    "a layer as activation": lambda: network(
        keras.layers.Dense(10, activation=keras.layers.Softmax())
    ),
    "Activation of TensorFlow's": lambda: ending_in(keras.layers.Activation(tf.nn.softmax), 10),
    "sigmoid operation": lambda: ending_in(keras.ops.sigmoid, 1),
    "sigmoid in a Lambda": lambda: ending_in(keras.layers.Lambda(keras.ops.sigmoid), 1),
    "a model in a model": nested_behind_layers,
    "an operation": operation,
    "Dense softmax": lambda: network(keras.layers.Dense(10, activation="softmax")),
    "Activation": lambda: network(keras.layers.Dense(10), keras.layers.Activation("softmax")),
    "Softmax layer": lambda: network(keras.layers.Dense(10), keras.layers.Softmax()),
    "one sigmoid": lambda: network(keras.layers.Dense(1, activation="sigmoid")),
    "nested": nested,
    "no channel axis": lambda: network(keras.layers.Dense(10, activation="softmax"), shape=(8, 8)),
    "flat": lambda: keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(10, activation="softmax")]
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_probabilities_become_logits_of_the_same_prediction(name: str, pixels) -> None:
    """Softmax of our logits is what the model said of its own pixels, which go up to 255."""
    model = MODELS[name]()
    before = [w.copy() for w in model.get_weights()]
    found = as_classifier(model, image_shape=SHAPE, pixels=pixel_range(0, 255))
    said = np.asarray(model((pixels * 255).reshape(-1, *model.input_shape[1:])))
    if said.shape[1] == 1:
        said = np.concatenate([1 - said, said], axis=1)
    ours = np.asarray(keras.ops.softmax(found.model(pixels)))
    np.testing.assert_allclose(ours, said, atol=1e-6)
    assert found.classes == said.shape[1]
    assert any("removed" in note for note in found.notes)
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)
    assert copy_in_dtype(found.model, "bfloat16").output_shape == (None, found.classes)


class Scaled(keras.layers.Layer):
    """Its activation is not its last operation."""

    def __init__(self, units: int, activation: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.activation = keras.activations.get(activation)
        self.units, self.dense = units, keras.layers.Dense(units)

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def get_config(self) -> dict[str, Any]:
        return {"units": self.units, "activation": keras.activations.serialize(self.activation)}

    def call(self, x: Any) -> Any:
        return self.activation(self.dense(x)) * np.array([0.2, 0.9, 0.5], np.float32)


def recurrent(layer: type, activation: str) -> keras.Model:
    return keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Reshape((8, 8)), layer(4, activation=activation)]
    )


def two_inputs() -> keras.Model:
    one, other = keras.Input((4,)), keras.Input((4,))
    total = keras.layers.Dense(3, activation="softmax")(keras.layers.Add()([one, other]))
    head = keras.Model([one, other], total)
    images = keras.Input(SHAPE)
    flat = keras.layers.Flatten()(images)
    return keras.Model(images, head([keras.layers.Dense(4)(flat), keras.layers.Dense(4)(flat)]))


OTHERS = {
    "LSTM": lambda: recurrent(keras.layers.LSTM, "softmax"),
    "GRU": lambda: recurrent(keras.layers.GRU, "sigmoid"),
    "SimpleRNN": lambda: recurrent(keras.layers.SimpleRNN, "softmax"),
    "a layer that scales its softmax": lambda: network(Scaled(3, "softmax")),
    "a head with two inputs": two_inputs,
    "softmax of one unit": lambda: network(keras.layers.Dense(1, activation="softmax")),
    "Softmax of one unit": lambda: ending_in(keras.layers.Softmax(), 1),
    "a Lambda that cannot be seen through": lambda: ending_in(
        keras.layers.Lambda(lambda x: tf.sigmoid(x)), 1
    ),
    "ten of them": lambda: ending_in(keras.layers.Lambda(lambda x: tf.sigmoid(x)), 10),
}


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis:UserWarning")  # it is meant
@pytest.mark.parametrize("name", OTHERS)
def test_another_function_is_not_attacked(name: str) -> None:
    """A model that cannot be rebuilt as the same function is refused in one line."""
    keras.utils.set_random_seed(1)
    model = OTHERS[name]()
    model.set_weights([3 * w for w in model.get_weights()])
    with pytest.raises(InputError) as error:
        as_classifier(model, image_shape=SHAPE)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_an_activation_inside_a_layer_whose_outputs_are_logits_stays() -> None:
    model = network(Scaled(3, "sigmoid"), keras.layers.Rescaling(4.0, -2.0))
    assert as_classifier(model, image_shape=SHAPE).model is model


def test_a_random_model_is_reached_too() -> None:
    class Noise(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x + tf.random.normal(tf.shape(x))

    images = keras.Input(SHAPE)
    x = keras.layers.Flatten()(Noise()(images))
    model = keras.Model(images, keras.layers.Dense(3, activation="softmax")(x))
    assert "removed" in as_classifier(model, image_shape=SHAPE).notes[0]


def test_logits_stay_as_they_are() -> None:
    model = network(keras.layers.Dense(10))
    found = as_classifier(model, image_shape=SHAPE)
    assert found.model is model and found.notes == ()


def test_mean_and_deviation(pixels) -> None:
    model = network(keras.layers.Dense(10))
    scale = standardized_pixels([0.5], [0.25])
    found = as_classifier(model, image_shape=SHAPE, pixels=scale)
    np.testing.assert_allclose(found.model(pixels), model((pixels - 0.5) / 0.25), atol=1e-5)


def tensor_function(images: tf.Tensor) -> tf.Tensor:
    return tf.reshape(images, [-1, 64]) @ WEIGHTS


def numpy_function(images: np.ndarray) -> np.ndarray:
    assert isinstance(images, np.ndarray)
    return images.reshape(-1, 64) @ WEIGHTS


class Subclassed(keras.Model):
    def __init__(self, activation: str | None = None) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(3, activation=activation)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        return self.dense(tf.reshape(images, [-1, 64]))


def make_subclassed() -> keras.Model:
    return Subclassed()


@pytest.mark.parametrize("function", [tensor_function, numpy_function])
def test_functions_are_models_in_graphs_too(function, pixels) -> None:
    found = as_classifier(function, image_shape=SHAPE)
    wanted = pixels.reshape(-1, 64) @ WEIGHTS
    np.testing.assert_allclose(found.model(pixels), wanted, atol=1e-5)
    np.testing.assert_allclose(tf.function(found.model)(pixels), wanted, atol=1e-5)
    assert found.model.output_shape == (None, 3)


def test_a_subclassed_model_and_where_python_code_names_it(pixels) -> None:
    model = Subclassed()
    found = as_classifier(model, image_shape=SHAPE, pixels=pixel_range(-1, 1))
    np.testing.assert_allclose(found.model(pixels), model(pixels * 2 - 1), atol=1e-5)
    assert found.model.get_weights()[0].shape == (64, 3)
    place = "tests.classifiers.test_classifier"
    assert as_classifier(f"{place}:make_subclassed", image_shape=SHAPE).classes == 3
    assert as_classifier(f"{place}:tensor_function", image_shape=SHAPE).classes == 3
    assert as_classifier(f"{__file__}:tensor_function", image_shape=SHAPE).classes == 3


def test_probabilities_that_cannot_be_reached_are_refused_with_how_to() -> None:
    with pytest.raises(InputError, match="activation=None"):
        as_classifier(Subclassed("softmax"), image_shape=SHAPE)
    with pytest.raises(InputError, match="activation=None"):
        as_classifier(
            lambda x: tf.sigmoid(tf.reshape(x, [-1, 64]) @ WEIGHTS[:, :1]), image_shape=SHAPE
        )


@pytest.mark.parametrize("form", ["model.keras", "model.h5", "saved_model"])
def test_files_give_the_same_logits_and_gradients(form: str, tmp_path: Path, pixels) -> None:
    model = network(keras.layers.Dense(10, activation=None if form == "saved_model" else "softmax"))
    path = tmp_path / form
    if form == "saved_model":
        model.export(path, verbose=False)
    else:
        model.save(path)
    found = as_classifier(path, image_shape=SHAPE).model
    wanted = as_classifier(model, image_shape=SHAPE).model
    x = tf.constant(pixels)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        ours, theirs = found(x), wanted(x)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(ours, x), tape.gradient(theirs, x), atol=1e-6)


def test_an_h5_file_of_keras_2_is_read(tmp_path: Path, pixels) -> None:
    """Keras 2 wrote layers that Keras 3 rejects: a DepthwiseConv2D with groups, softmax_v2."""
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.DepthwiseConv2D(3),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    path = tmp_path / "old.h5"
    model.save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1]["config"]["groups"] = 1
        config["config"]["layers"][3]["config"]["activation"] = "softmax_v2"
        file.attrs["model_config"] = json.dumps(config)
    found = as_classifier(path, image_shape=SHAPE)
    ours = keras.ops.softmax(found.model(pixels))
    np.testing.assert_allclose(ours, model(pixels), atol=1e-6)


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_lambda_code_is_run_only_when_trusted(ending: str, tmp_path: Path) -> None:
    model = network(keras.layers.Dense(3), keras.layers.Lambda(lambda x: 2 * x))
    path = tmp_path / f"model.{ending}"
    model.save(path)
    with pytest.raises(InputError, match="trust_code"):
        as_classifier(path, image_shape=SHAPE)
    assert as_classifier(path, image_shape=SHAPE, trust_code=True).classes == 3


def raising(images: object) -> object:
    raise KeyError("no such table")


def of_numpy_only(images: np.ndarray) -> np.ndarray:
    images.sort()  # a tensor has none
    raise ArithmeticError("my own reason")


class Raising(keras.layers.Layer):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        raise OSError("my own reason")


class RaisingModel(keras.Model):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        raise ZeroDivisionError("my own reason")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (raising, "KeyError: no such table"),
        (of_numpy_only, "ArithmeticError: my own reason"),
        (RaisingModel(), "ZeroDivisionError: my own reason"),
        (keras.Sequential([Raising()]), "OSError: my own reason"),
        (lambda x: tf.matmul(tf.reshape(x, [-1, 64]), tf.zeros([3, 2])), "Matrix size"),
        (lambda x: [][0], "IndexError: list index out of range"),
    ],
)
def test_what_a_users_function_raises_is_told(source: object, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        as_classifier(source, image_shape=SHAPE)  # type: ignore[arg-type]
    assert "(8, 8, 1)" in str(error.value) and "Traceback" not in str(error.value)


@pytest.mark.parametrize("config", [np.arange(3), np.zeros((2, 2)), 3.0, "[" * 900 + "]" * 900])
def test_an_h5_configuration_that_is_none_is_one_line(config: object, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = config
    with pytest.raises(InputError, match=r"m.h5"):
        as_classifier(tmp_path / "m.h5", image_shape=SHAPE)


def test_what_is_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.keras").write_text("no model")
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    (tmp_path / "folder").mkdir()
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["kernel"] = np.zeros(3)
    for source, what in {
        tmp_path / "nothing.keras": "does not exist",
        tmp_path / "text.keras": "truncated",
        tmp_path / "cut.h5": "truncated",
        tmp_path / "folder": "without saved_model.pb",
        tmp_path / "weights.h5": "weights only",
        "no_such_module:build": "cannot be imported",
        "json:no_such_name": "has no",
        "json:__name__": "is a str",
        3: "is a int",
    }.items():
        with pytest.raises(InputError, match=what) as error:
            as_classifier(source, image_shape=SHAPE)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)


def test_images_that_a_model_does_not_take() -> None:
    with pytest.raises(InputError, match="channels first"):
        as_classifier(network(keras.layers.Dense(3), shape=(3, 8, 8)), image_shape=(8, 8, 3))
    with pytest.raises(InputError, match=r"shape \(8, 8, 1\), got \(9, 9, 1\)"):
        as_classifier(network(keras.layers.Dense(3)), image_shape=(9, 9, 1))
    with pytest.raises(InputError, match="2 channels, got 3"):
        as_classifier(
            network(keras.layers.Dense(3), shape=(8, 8, 3)),
            image_shape=(8, 8, 3),
            pixels=standardized_pixels([0, 0], [1, 1]),
        )
    with pytest.raises(InputError, match="logits"):
        as_classifier(lambda x: x, image_shape=SHAPE)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (255, 0), (0, np.inf), (np.nan, 1)])
def test_a_pixel_range_that_cannot_be(low: float, high: float) -> None:
    with pytest.raises(InputError, match="pixel range"):
        pixel_range(low, high)
