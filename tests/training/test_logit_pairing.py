"""Logit pairing around any Keras model, with Keras' own habits; our rows through the same class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import alp_repro
from alp_repro import runs
from alp_repro.data import Images
from alp_repro.models import build_model
from alp_repro.training import LogitPairing, Objective, Recipe, train
from alp_repro.training.adam import FusedAdam
from alp_repro.training.order import EpochOrder
from tests.marks import slow_unless

SHAPE, CLASSES = (6, 6, 1), 3
ATTACK = alp_repro.PGD(eps=0.1, eps_iter=0.05, nb_iter=2)
ALP = {"penalties": {"alp": 0.5}, "attack": ATTACK, "adversarial_fraction": 0.5}
SETTINGS: dict[str, dict[str, Any]] = {
    "clp": {"penalties": {"clp": 0.5}, "noise_stddev": 0.1},
    "lsq": {"penalties": {"lsq": 0.1}},
    "alp": ALP,
}


def images(count: int = 8) -> np.ndarray:
    """Bright in one of three rows, by class."""
    x = np.random.default_rng(0).uniform(0, 0.3, (count, *SHAPE)).astype(np.float32)
    for i in range(count):
        x[i, 2 * (i % CLASSES)] += 0.6
    return x


def labels(count: int = 8) -> np.ndarray:
    return np.arange(count, dtype=np.int32) % CLASSES


def functional(**options: Any) -> keras.Model:
    """A model that is none of ours: convolution, batch norm, two paths that meet."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE)
    x = keras.layers.Conv2D(4, 3, padding="same", **options)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Add()([x, keras.layers.ReLU()(x)])
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(x)))


def linear(**options: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(CLASSES, **options)]
    )


def compiled(model: keras.Model, *, metrics: Any = None, **settings: Any) -> LogitPairing:
    robust = LogitPairing(model, **settings)
    robust.compile(optimizer=keras.optimizers.SGD(0.05), metrics=metrics)
    return robust


def same(found: keras.Model, expected: keras.Model, **tolerance: float) -> None:
    for a, b in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 0, **tolerance})


# The five lines


@pytest.mark.parametrize("penalty", slow_unless(["lsq"], SETTINGS))
def test_each_penalty_trains_a_model_that_is_not_ours(penalty: str, tmp_path: Path) -> None:
    dataset = tf.data.Dataset.from_tensor_slices((images(), labels())).batch(4)
    model = functional()
    robust = alp_repro.LogitPairing(model, **SETTINGS[penalty])
    robust.compile(optimizer=keras.optimizers.Adam(0.01), metrics=["accuracy"])
    history = robust.fit(dataset, epochs=5, verbose=0).history
    assert history[penalty][0] > 0 and history["loss"][-1] < history["loss"][0]
    assert set(history) >= {"accuracy", "clean_ce"}
    robust.classifier.save(tmp_path / "robust.keras")
    saved = alp_repro.load_model(tmp_path / "robust.keras")
    assert type(saved).__name__ == "Functional"
    np.testing.assert_array_equal(saved(images()), model(images()))
    averages = [v for v in model.non_trainable_variables if v.path.endswith("moving_variance")]
    assert averages and all(np.any(v.numpy() != 1) for v in averages)


@pytest.mark.slow
def test_an_application_of_keras(tmp_path: Path) -> None:
    network = keras.applications.MobileNet(
        (32, 32, 3), alpha=0.25, weights=None, classes=CLASSES, classifier_activation=None
    )
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, network(keras.layers.Rescaling(2.0, -1.0)(inputs)))
    robust = compiled(model, **ALP)
    x = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    before = model.get_weights()
    logs = robust.fit(x, labels(4), batch_size=4, verbose=0).history
    assert np.isfinite([logs["alp"], logs["adversarial_ce"]]).all()
    assert any(np.any(a != b) for a, b in zip(model.get_weights(), before, strict=True))


# Our rows


@pytest.mark.parametrize("penalty", slow_unless(["lsq"], SETTINGS))
def test_our_rows_are_trained_by_the_same_class_bit_for_bit(penalty: str, tmp_path: Path) -> None:
    settings = dict(SETTINGS[penalty])
    fraction = settings.pop("adversarial_fraction", 0.0)
    recipe = Recipe(
        dataset="mnist",
        model="lenet",
        model_width=1,
        epochs=2,
        batch_size=8,
        seed=3,
        clean_weight=1 - fraction,
        adversarial_weight=fraction,
        **settings,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), dtype=np.uint8)
    data = Images(pixels, np.arange(20, dtype=np.int32) % 10, np.arange(20), "made up")
    expected = train(recipe, runs.RunDir(tmp_path), data, verbose=0)

    model = build_model("lenet", image_shape=(28, 28, 1), num_classes=10, width=1, weight_seed=3)
    robust = LogitPairing(model, **SETTINGS[penalty], seed=3)
    robust.compile(optimizer=FusedAdam(0.001, epsilon=1e-6))
    order = EpochOrder(data, recipe)
    robust.fit(order.dataset(), epochs=2, callbacks=[order], shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_parts_of_a_recipe_hold_what_the_step_sees_and_what_it_does_not() -> None:
    recipe = Recipe(
        dataset="mnist", model="lenet", epochs=3, batch_size=8, penalties={"lsq": 0.5}, seed=2
    )
    assert recipe.objective == Objective(penalties={"lsq": 0.5})
    assert (recipe.schedule.epochs, recipe.schedule.batch_size) == (3, 8)
    assert (recipe.subject.dataset, recipe.subject.seed) == ("mnist", 2)
    parts = {**vars(recipe.objective), **vars(recipe.schedule), **vars(recipe.subject)}
    assert parts == vars(recipe)


# Keras' habits


@pytest.mark.slow
def test_arrays_and_datasets_of_integer_and_one_hot_labels_train_alike() -> None:
    x, y = images(), labels()
    one_hot = keras.utils.to_categorical(y, CLASSES)
    given: list[tuple[Any, ...]] = [
        (x, y),
        (x, y[:, np.newaxis]),
        (x, one_hot),
        (tf.data.Dataset.from_tensor_slices((x, one_hot)).batch(4),),
    ]
    trained = []
    for data in given:
        robust = compiled(linear(), metrics=["accuracy"], **ALP)
        batch = {} if len(data) == 1 else {"batch_size": 4}
        history = robust.fit(*data, **batch, shuffle=False, epochs=2, verbose=0).history
        assert len(history["accuracy"]) == 2
        trained.append(robust.classifier)
    for model in trained[1:]:
        same(model, trained[0], atol=1e-7)


def test_metrics_and_validation_are_about_clean_images() -> None:
    x, y = images(), labels()
    robust = compiled(linear(), metrics=["accuracy"], attack=ATTACK, adversarial_fraction=1.0)
    history = robust.fit(
        x, y, batch_size=3, validation_data=(x, y), validation_batch_size=3, verbose=0
    ).history
    logits = robust.predict(x, verbose=0)
    accuracy = np.mean(np.argmax(logits, axis=1) == y)
    assert history["val_accuracy"] == [pytest.approx(accuracy)]
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert history["val_loss"] == [pytest.approx(-log_p[np.arange(8), y].mean(), rel=1e-4)]
    assert 0 <= history["accuracy"][0] <= 1 and "adversarial_accuracy" in history
    assert robust.evaluate(x, y, verbose=0) == pytest.approx(
        [history["val_loss"][0], accuracy], rel=1e-5
    )


def test_steps_in_one_execution_are_the_same_steps() -> None:
    trained = []
    for steps in (1, 2):
        robust = LogitPairing(linear(), **ALP)
        robust.compile(optimizer=keras.optimizers.SGD(0.05), steps_per_execution=steps)
        robust.fit(images(), labels(), batch_size=2, shuffle=False, verbose=0)
        assert int(robust.optimizer.iterations) == 4
        trained.append(robust.classifier)
    same(trained[1], trained[0], atol=1e-6)


def with_dropout() -> keras.Model:
    scaled = keras.layers.Normalization(mean=0.3, variance=0.1)
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            scaled,
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(CLASSES, kernel_regularizer=keras.regularizers.L2(0.01)),
        ]
    )


class Subclassed(keras.Model):
    """One that Keras cannot clone: what it is made of is nowhere written down."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = keras.layers.Flatten()
        self.norm = keras.layers.BatchNormalization(momentum=0.5)
        self.head = keras.layers.Dense(CLASSES)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.head(self.norm(self.flatten(inputs), training=training))


def unbuilt() -> keras.Model:
    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(CLASSES)])


@pytest.mark.parametrize("make", slow_unless([Subclassed], [with_dropout, Subclassed, unbuilt]))
def test_any_kind_of_model_trains(make: Callable[[], keras.Model]) -> None:
    robust = compiled(make(), metrics=["accuracy"], **ALP)
    history = robust.fit(images(), labels(), batch_size=4, epochs=6, verbose=0).history
    terms = ("clean_ce", "adversarial_ce", "alp", "regularization")
    total = sum(history[name][-1] for name in terms if name in history)
    assert history["loss"][-1] == pytest.approx(total, rel=1e-4)
    assert history["loss"][-1] < history["loss"][0]
    assert ("regularization" in history) == (make is with_dropout)


def test_crafting_moves_no_average_of_a_subclassed_model() -> None:
    model, x = Subclassed(), images()
    tiny = alp_repro.PGD(eps=1e-6, eps_iter=1e-7, nb_iter=3)
    compiled(model, attack=tiny, adversarial_fraction=1.0).fit(x, labels(), verbose=0)
    expected = 0.5 * x.reshape(len(x), -1).mean(axis=0)  # of one pass: 0.5 · 0 + 0.5 · mean
    np.testing.assert_allclose(model.norm.moving_mean.numpy(), expected, atol=1e-5)


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"], indirect=True)
@pytest.mark.parametrize("make", slow_unless([linear], [linear, Subclassed]))
def test_mixed_precision_trains_float32_weights(
    policy: str, make: Callable[[], keras.Model]
) -> None:
    robust = compiled(make(), **ALP)
    history = robust.fit(images(), labels(), batch_size=4, epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert {weight.dtype for weight in robust.classifier.weights} == {"float32"}
    scaled = isinstance(robust.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    assert robust.predict(images(), verbose=0).dtype == np.float32


@pytest.mark.slow
def test_two_replicas_train_as_one(two_replicas: tf.distribute.Strategy) -> None:
    trained = []
    dataset = tf.data.Dataset.from_tensor_slices((images(), labels())).batch(4)
    with two_replicas.scope():
        robust = compiled(linear(), metrics=["accuracy"], **ALP)
    robust.fit(dataset, verbose=0)
    trained.append(robust.classifier)
    robust = compiled(linear(), metrics=["accuracy"], **ALP)
    robust.fit(dataset, verbose=0)
    same(trained[0], robust.classifier, atol=1e-6)


@pytest.mark.slow
def test_a_saved_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    x, y = images(), labels()
    whole, half = (compiled(functional(), metrics=["accuracy"], **ALP) for _ in range(2))
    for robust, epochs in ((whole, 4), (half, 2)):
        robust.fit(x, y, batch_size=4, shuffle=False, epochs=epochs, verbose=0)
    half.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    assert isinstance(loaded, LogitPairing) and loaded.objective == half.objective
    loaded.fit(x, y, batch_size=4, shuffle=False, epochs=4, initial_epoch=2, verbose=0)
    same(loaded.classifier, whole.classifier, atol=1e-6)


# What is refused, in one line


def softmax() -> keras.Model:
    return linear(activation="softmax")


def without_head() -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), keras.layers.ReLU()])


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (softmax, ALP, "outputs are probabilities"),
        (without_head, ALP, "expected logits"),
        (lambda: None, ALP, "expected a Keras model"),
        (linear, {"penalties": {"alp": 0.5}}, "no training attack is given"),
        (linear, {"penalties": {"clq": 0.5}}, "unknown penalty 'clq'"),
        (linear, {"penalties": [0.5]}, "expected weights by name"),
        (linear, {"adversarial_fraction": 1.5, "attack": ATTACK}, "adversarial_fraction 1.5"),
        (linear, {"seed": -1}, "seed -1"),
        (
            linear,
            {"noise_stddev": 0.5, "objective": Objective()},
            "noise_stddev is given in addition",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(
    make: Callable[[], Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(alp_repro.InputError, match=message) as caught:
        LogitPairing(make(), **settings)
    assert "\n" not in str(caught.value)


def of_tensors(x: np.ndarray, y: np.ndarray) -> tuple[tf.data.Dataset]:
    return (tf.data.Dataset.from_tensor_slices((x, y)).batch(4),)


CLP = {"penalties": {"clp": 0.5}}


@pytest.mark.parametrize(
    ("settings", "data", "message"),
    [
        ({}, lambda x, y: (255 * x, y), r"expected images in \[0, 1\].*got .* to 2"),
        ({}, lambda x, y: of_tensors(255 * x, y), r"expected images in \[0, 1\], got"),
        (ALP, lambda x, y: of_tensors(255 * x, y), r"expected images in \[0, 1\], got"),
        ({}, lambda x, y: (x, y + 1), "expected labels from 0 to 2, got 1 to 3"),
        (ALP, lambda x, y: of_tensors(x, y + 1), "expected labels from 0 to 2"),
        ({}, lambda x, y: (x, y - 1), "expected labels from 0 to 2, got -1 to 1"),
        ({}, lambda x, y: (x, np.eye(4)[y]), r"labels of shape .*\[batch, 3\]"),
        ({}, lambda x, y: (x, np.full((8, 3), 1 / 3)), "integer or one-hot labels"),
        ({}, lambda x, y: (x[0], y[:6]), "expected .batch, height, width, channels."),
        ({}, lambda x, y: (x,), "expected batches of .images, labels."),
        ({}, lambda x, y: (x, y, 4, 1, 0, None, 0.0, None, True, {0: 2.0}), "class_weight"),
        (CLP, lambda x, y: (x, y, 3), "clp pairs the images of a batch: expected an even"),
        (CLP, lambda x, y: (x, y, 1), "clp pairs .*2 or more .*got 1"),
    ],
)
def test_data_that_cannot_be_are_refused(
    settings: dict[str, Any], data: Callable[..., tuple[Any, ...]], message: str
) -> None:
    robust = compiled(linear(), **settings)
    with pytest.raises(alp_repro.InputError, match=message) as caught:
        given = data(images(), labels())
        robust.fit(*given, **({} if len(given) > 4 else {"verbose": 0}))
    assert "\n" not in str(caught.value)


def test_a_loss_beside_the_objective_is_refused() -> None:
    robust = LogitPairing(linear(), **CLP)
    robust.compile(optimizer="adam", loss="mse")
    with pytest.raises(alp_repro.InputError, match="expected no loss"):
        robust.fit(images(), labels(), verbose=0)


def test_a_softmax_inside_a_subclassed_model_is_found_when_it_is_built() -> None:
    class WithSoftmax(Subclassed):
        def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
            return tf.nn.softmax(super().call(inputs, training=training))

    with pytest.raises(alp_repro.InputError, match="outputs are probabilities"):
        compiled(WithSoftmax(), **ALP).fit(images(), labels(), verbose=0)


def test_images_of_any_float_type_and_evaluations_of_any_batch_are_taken() -> None:
    """Of pairs, training alone knows: an odd batch may be evaluated."""
    x, y = images(), labels()
    robust = compiled(linear(), **CLP)
    doubles = tf.data.Dataset.from_tensor_slices((x.astype(np.float64), y))
    robust.fit(doubles.batch(4, drop_remainder=True), verbose=0)
    odd = doubles.batch(3, drop_remainder=True)
    assert np.isfinite(robust.evaluate(odd, verbose=0)).all()
    with pytest.raises(alp_repro.InputError, match="expected an even batch size, got 3"):
        robust.fit(odd, verbose=0)
