"""Heat maps: every cell against the attack it stands for, run on its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro.attacks import APGD, PGD
from alp_repro.errors import InputError
from alp_repro.evaluation import evaluate, heat_maps
from tests.marks import slow_unless

_ATTACK = PGD(eps=0.15, eps_iter=0.02, nb_iter=1)
_STEPS = (0.01, 0.05, 0.15)
_COUNTS = (1, 3, 4, 9)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """A wavy function of the image, so that more steps do not always break more."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.layers.Input((6, 6, 1)),
            keras.layers.Conv2D(6, 3, activation="tanh", kernel_initializer=_wide(3.0)),
            keras.layers.Flatten(),
            keras.layers.Dense(5, kernel_initializer=_wide(0.3)),
        ]
    )


def _wide(stddev: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=stddev, seed=1)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(23, 6, 6, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def labels(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the model's predictions, except for three images that are wrong from the start."""
    predicted = np.argmax(model(images).numpy(), axis=1)
    predicted[[2, 5, 11]] = (predicted[[2, 5, 11]] + 1) % 5
    return predicted


_KINDS: dict[str, dict] = {
    "restarts": {"restarts": 3},
    "random target": {"target": "random", "loss": "margin"},
    "no random start": {"random_start": False, "target": "least_likely"},
    "bfloat16": {"dtype": "bfloat16"},
    "each and momentum": {"target": "each", "restarts": 4, "momentum": 0.75},
    "gradient noise": {"gradient_noise": 0.1, "momentum": 0.75},
    "linear and any": {"step_schedule": "linear", "success": "any"},
}


@pytest.mark.parametrize("kind", slow_unless(["restarts"], _KINDS))
def test_every_cell_equals_a_separate_run(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, kind: str
):
    attack = dataclasses.replace(_ATTACK, **_KINDS[kind])
    found = heat_maps.heat_map(
        model,
        images,
        labels,
        attack=attack,
        eps_iters=_STEPS,
        nb_iters=_COUNTS,
        seed=7,
        batch_size=10,
    )
    for i, eps_iter in enumerate(_STEPS):
        for j, nb_iter in enumerate(_COUNTS):
            record = evaluate(
                model,
                images,
                labels,
                seed=7,
                batch_size=10,
                attack=dataclasses.replace(attack, eps_iter=eps_iter, nb_iter=nb_iter),
            )
            np.testing.assert_array_equal(found.broken[i, j], ~record.standing)
    # The cells differ, so that equality above means something.
    assert len(np.unique(found.broken.reshape(-1, len(images)), axis=0)) > 4


@pytest.mark.slow
def test_two_replicas_give_the_same_map(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    two_replicas: tf.distribute.Strategy,
):
    settings = {"attack": _ATTACK, "eps_iters": _STEPS, "nb_iters": _COUNTS, "seed": 7}
    expected = heat_maps.heat_map(model, images, labels, batch_size=10, **settings)
    shared = heat_maps.heat_map(
        model, images, labels, batch_size=5, strategy=two_replicas, **settings
    )
    np.testing.assert_array_equal(shared.broken, expected.broken)


@pytest.mark.parametrize("noise", slow_unless([0.0], [0.0, 0.1]))
def test_logits_that_are_not_finite_end_the_map(images: np.ndarray, noise: float):
    attack = dataclasses.replace(_ATTACK, gradient_noise=noise)
    inputs = keras.Input((6, 6, 1))
    logits = keras.layers.Dense(5)(keras.layers.Flatten()(inputs))
    bright = keras.layers.Flatten()(inputs)[:, :1] > 0.8
    model = keras.Model(inputs, keras.ops.where(bright, np.nan, logits))
    images = np.clip(images, 0.0, 0.5)
    images[4, 0, 0, 0] = 1.0
    with pytest.raises(InputError, match=r"image 4, restart 0: .*not finite"):
        heat_maps.heat_map(
            model, images, np.zeros(23, int), attack=attack, eps_iters=[0.01], nb_iters=[1, 2]
        )


def test_a_stopped_map_goes_on_and_is_never_computed_twice(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, tmp_path: Path
):
    class Stop(Exception):
        pass

    def stop_after_one(done: int, columns: int) -> None:
        raise Stop

    settings = {"attack": _ATTACK, "eps_iters": _STEPS, "nb_iters": _COUNTS, "batch_size": 10}
    with pytest.raises(Stop):
        heat_maps.heat_map(
            model, images, labels, folder=tmp_path, report=stop_after_one, **settings
        )
    (path,) = tmp_path.glob("*.npz")
    half = heat_maps.load_heat_map(path)
    assert half.columns == 1
    assert np.isnan(half.accuracy[1:]).all() and not np.isnan(half.accuracy[0]).any()

    seen: list[int] = []
    whole = heat_maps.heat_map(
        model, images, labels, folder=tmp_path, report=lambda done, _: seen.append(done), **settings
    )
    assert seen == [2, 3]
    straight = heat_maps.heat_map(model, images, labels, **settings)
    np.testing.assert_array_equal(whole.broken, straight.broken)

    written = path.stat().st_mtime_ns
    again = heat_maps.heat_map(
        model, images, labels, folder=tmp_path, report=lambda done, _: seen.append(done), **settings
    )
    assert seen == [2, 3] and path.stat().st_mtime_ns == written
    np.testing.assert_array_equal(again.broken, straight.broken)
    assert len(again.sessions) == 2


def test_a_map_of_other_weights_is_refused(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, tmp_path: Path
):
    settings = {"attack": _ATTACK, "eps_iters": [0.1], "nb_iters": [1], "batch_size": 10}
    heat_maps.heat_map(model, images, labels, folder=tmp_path, **settings)
    other = keras.models.clone_model(model)
    other.set_weights([weight * 1.01 for weight in model.get_weights()])
    with pytest.raises(InputError, match="another model"):
        heat_maps.heat_map(other, images, labels, folder=tmp_path, **settings)


def test_a_damaged_map_is_named(tmp_path: Path):
    path = tmp_path / "map.npz"
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match=r"map\.npz is truncated"):
        heat_maps.load_heat_map(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"eps_iters": []}, "one step size"),
        ({"eps_iters": [0.4]}, "eps_iter 102"),
        ({"nb_iters": [5, 3]}, "iterations 5, 3"),
        ({"nb_iters": [0, 3]}, "iterations 0: .*whole number"),
        ({"attack": APGD(eps=_ATTACK.eps)}, "pgd, got apgd"),
    ],
)
def test_bad_input_is_refused(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, changed: dict, message: str
):
    settings = {"attack": _ATTACK, "eps_iters": [0.1], "nb_iters": [1], **changed}
    with pytest.raises(InputError, match=message):
        heat_maps.heat_map(model, images, labels, **settings)
