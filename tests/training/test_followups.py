"""Methods from after the paper, as objectives: each against its own equations."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro import losses
from alp_repro.attacks import PGD
from alp_repro.data import Images
from alp_repro.errors import InputError
from alp_repro.runs import RunDir
from alp_repro.training import (
    LogitPairing,
    Objective,
    Recipe,
    Schedule,
    TrainingProgress,
    TriangularRate,
    compiled_model,
    train,
)
from alp_repro.training.crafter import Crafter
from experiments.flags import settings
from tests.marks import slow_unless

EPS = 0.1
SHAPE = (4, 4, 1)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.Dense(3),
        ]
    )


@pytest.fixture(scope="module")
def images() -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).uniform(0.4, 0.6, (200, *SHAPE)), tf.float32)


LABELS = tf.range(200) % 3


def crafted(model: keras.Model, images: tf.Tensor, **objective: Any) -> np.ndarray:
    crafter = Crafter(model, Objective(clean_weight=0.0, adversarial_weight=1.0, **objective))
    seed = tf.constant([0, 1], tf.int64)
    return crafter.craft(images, LABELS, step=tf.constant(0), seed=seed).numpy()


def test_fast_adversarial_training_steps_beyond_eps_and_comes_back(
    model: keras.Model, images: tf.Tensor
) -> None:
    """A random start and one step of 1.25 ε, projected: pixels pile up at the ball's surface."""
    fast = PGD(eps=EPS, eps_iter=1.25 * EPS, nb_iter=1)
    distance = np.abs(crafted(model, images, attack=fast) - images.numpy())
    assert distance.max() <= EPS + 1e-6
    # |u + 1.25| ≥ 1 for u uniform in [-1, 1]: 5 of 8.
    assert np.mean(distance > EPS - 1e-6) == pytest.approx(0.625, abs=0.03)
    with pytest.raises(InputError, match=r"eps_iter .*: .*\(0, eps\]"):
        PGD(eps=EPS, eps_iter=1.25 * EPS, nb_iter=2)
    with pytest.raises(InputError, match="eps_iter"):
        PGD(eps=EPS, eps_iter=2.1 * EPS, nb_iter=1)


def test_n_fgsm_leaves_the_ball(model: keras.Model, images: tf.Tensor) -> None:
    """Noise in [-2 ε, 2 ε] and one step of ε, not projected: |u| + 1 up to 3 ε, uniform."""
    step = PGD(eps=EPS, eps_iter=EPS, nb_iter=1)
    moved = (crafted(model, images, attack=step, crafting="n_fgsm") - images.numpy()) / EPS
    assert 2.9 < np.abs(moved).max() <= 3 + 1e-4
    # ±1 beside u in [-2, 2]: a quarter of all lies in (2, 3].
    assert np.mean(np.abs(moved) > 2) == pytest.approx(0.25, abs=0.03)
    assert np.mean(np.abs(moved) < 1) == pytest.approx(0.5, abs=0.03)


def divergence(model: keras.Model, clean: Any, other: Any) -> np.ndarray:
    p, q = (np.asarray(tf.nn.softmax(model(x)), np.float64) for x in (clean, other))
    return np.sum(p * (np.log(p) - np.log(q)), axis=1)


def test_trades_crafts_where_the_prediction_changes_most(
    model: keras.Model, images: tf.Tensor
) -> None:
    attack = PGD(eps=EPS, eps_iter=EPS / 4, nb_iter=8)
    found = crafted(model, images, attack=attack, crafting="trades")
    assert np.abs(found - images.numpy()).max() <= EPS + 1e-6
    random = images + EPS * np.sign(np.random.default_rng(1).normal(size=images.shape))
    ours, by_chance = (divergence(model, images, x) for x in (found, random))
    assert np.mean(ours) > 5 * np.mean(by_chance)
    barely = PGD(eps=EPS, eps_iter=1e-7, nb_iter=1)
    start = crafted(model, images, attack=barely, crafting="trades") - images.numpy()
    assert np.std(start) == pytest.approx(0.001, rel=0.05)


def test_the_penalty_of_trades_is_the_mean_divergence() -> None:
    rng = np.random.default_rng(0)
    clean, adversarial = (rng.normal(0, 3, (5, 4)).astype(np.float32) for _ in range(2))
    p, q = (np.asarray(tf.nn.softmax(z), np.float64) for z in (clean, adversarial))
    expected = np.mean(np.sum(p * np.log(p / q), axis=1))
    found = losses.clean_adversarial_divergence(tf.constant(clean), tf.constant(adversarial))
    assert float(found) == pytest.approx(expected, rel=1e-4)
    with tf.GradientTape() as tape:
        tensors = [tf.constant(clean), tf.constant(adversarial)]
        tape.watch(tensors)
        value = losses.clean_adversarial_divergence(*tensors)
    through_clean, through_adversarial = tape.gradient(value, tensors)
    assert np.any(through_clean)
    np.testing.assert_allclose(through_adversarial, (q - p) / 5, atol=1e-6)


def test_flags_make_each_of_them() -> None:
    base = ["--dataset=mnist", "--train_eps=76.5", "--train_nb_iter=1"]
    fast = settings.recipe(
        settings.parse(
            [
                *base,
                "--train_eps_iter=95.625",
                "--adversarial_fraction=1",
                "--crafting=fast",
                "--cyclic_peak=0.4",
            ]
        )
    )
    assert fast.attack is not None and fast.attack.eps_iter == pytest.approx(1.25 * 0.3)
    assert (fast.crafting, fast.cyclic_peak) == ("fast", 0.4)
    trades = settings.recipe(
        settings.parse(
            [*base, "--train_eps_iter=7.65", "--regularizer=trades:1", "--crafting=trades"]
        )
    )
    assert (trades.clean_weight, trades.crafting) == (1.0, "trades")
    assert Recipe.from_json(trades.to_json(), source="here") == trades
    squeezed = settings.recipe(
        settings.parse(
            [
                *base,
                "--train_eps_iter=76.5",
                "--crafting=n_fgsm",
                "--adversarial_fraction=1",
                "--regularizer=lsq:0.05",
                "--label_smoothing=0.1",
            ]
        )
    )
    assert squeezed.objective.terms == ["adversarial_ce", "lsq"]


def test_what_was_stored_before_is_stored_as_before() -> None:
    stored = Recipe(dataset="mnist", model="lenet", epochs=1, batch_size=2).to_json()
    assert {"crafting", "trades", "cyclic_peak", "batch_norm_decay"}.isdisjoint(stored)
    assert stored["alp"] == 0.0


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"crafting": "free"}, "crafting 'free': .*one of attack, fast, n_fgsm, trades"),
        ({"crafting": "trades"}, "no training attack"),
        (
            {"crafting": "n_fgsm", "attack": PGD(eps=0.1, eps_iter=0.1, nb_iter=2)},
            "expected nb_iter 1, got 2",
        ),
        (
            {"crafting": "fast", "attack": PGD(eps=0.1, eps_iter=0.1, nb_iter=5)},
            "crafting fast: expected nb_iter 1, got 5",
        ),
        (
            {
                "crafting": "trades",
                "attack": PGD(eps=0.1, eps_iter=0.1, nb_iter=1, target="random"),
            },
            "trades does not support target=random",
        ),
    ],
)
def test_contradictions_are_refused(objective: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Objective(adversarial_weight=1.0, **objective)


@pytest.mark.parametrize("crafting", slow_unless(["fast"], ["fast", "n_fgsm", "trades"]))
def test_each_trains_in_a_graph(model: keras.Model, images: tf.Tensor, crafting: Any) -> None:
    objective = Objective(
        penalties={"trades": 1.0},
        attack=PGD(eps=EPS, eps_iter=EPS, nb_iter=1),
        crafting=crafting,
    )
    robust = LogitPairing(keras.models.clone_model(model), objective=objective)
    robust.compile(optimizer=keras.optimizers.Adam(0.01))
    logs = robust.fit(images.numpy(), LABELS.numpy(), batch_size=100, epochs=3, verbose=0).history
    assert logs["loss"][-1] < logs["loss"][0] and logs["trades"][0] > 0


def test_the_start_of_fast_training_may_leave_the_pixels(model: keras.Model) -> None:
    """Wong's MNIST code: of black pixels that rise, the start's noise below 0 shows at the end."""
    black = tf.zeros((200, *SHAPE))
    step = PGD(eps=EPS, eps_iter=1.25 * EPS, nb_iter=1)
    rising = {
        crafting: found[found > 0] / EPS
        for crafting in ("attack", "fast")
        if (found := crafted(model, black, attack=step, crafting=crafting)) is not None
    }
    np.testing.assert_allclose(rising["attack"], 1.0, atol=1e-5)
    # u + 1.25, u uniform in [-1, 1], is below 1 for 3 of 8, and 0.25 at the least.
    assert np.mean(rising["fast"] < 1 - 1e-5) == pytest.approx(0.375, abs=0.05)
    assert 0.25 - 1e-5 < rising["fast"].min() < 0.3


def test_a_cyclic_rate_rises_and_falls_step_by_step() -> None:
    """Against NumPy's interpolation in epochs, as Wong et al. have it: 0 at the last step's end."""
    epochs, steps = 10, 60
    rate = TriangularRate(0.005, steps=epochs * steps, peak=0.4)
    for epoch, i in ((0, 0), (3, 17), (3, 59), (4, 0), (9, 59)):
        expected = np.interp(epoch + (i + 1) / steps, [0, 4, epochs], [0, 0.005, 0])
        assert float(rate(tf.constant(epoch * steps + i))) == pytest.approx(expected, abs=1e-8)
    assert float(rate(epochs * steps)) == 0.0
    kept = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rate))
    assert float(kept(100)) == float(rate(100))


@pytest.mark.slow
def test_a_training_with_a_cyclic_rate_goes_on_where_it_was(tmp_path: Path) -> None:
    """In two sessions it makes what it makes in one; another length would be another training."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 28, 28, 1), np.uint8)
    data = Images(images, rng.integers(0, 10, 40).astype(np.int32), np.arange(40), "made up")
    recipe = Recipe(
        dataset="mnist", model="wong", model_width=2, epochs=3, batch_size=20, cyclic_peak=0.4
    )
    whole = train(recipe, RunDir(tmp_path / "whole"), data, verbose=0)

    def stop(progress: TrainingProgress) -> None:
        if (progress.epoch, progress.step) == (2, 1):
            raise KeyboardInterrupt

    halves = RunDir(tmp_path / "halves")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, halves, data, verbose=0, report=stop)
    with pytest.raises(InputError, match="epochs: 3 in the folder, 4 requested"):
        train(dataclasses.replace(recipe, epochs=4), halves, data, verbose=0)
    resumed = train(recipe, halves, data, verbose=0)
    for one, other in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    constant = dataclasses.replace(recipe, cyclic_peak=None)
    other = train(constant, RunDir(tmp_path / "constant"), data, verbose=0)
    assert not np.array_equal(other.get_weights()[0], whole.get_weights()[0])


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"cyclic_peak": 1.0}, r"cyclic_peak 1.0: .*\(0, 1\)"),
        ({"cyclic_peak": 0.4, "learning_rate_drops": (2,)}, "contradict each other"),
    ],
)
def test_a_cyclic_rate_that_cannot_be_is_refused(schedule: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Schedule(epochs=3, batch_size=2, **schedule)


@pytest.mark.parametrize("decay", [None, 0.9])
def test_a_recipe_says_how_fast_batch_norms_averages_follow(decay: float | None) -> None:
    """Black images have no variance: one pass leaves the decay of the 1 that there was."""
    recipe = Recipe(
        dataset="cifar10",
        model="resnet20_v2",
        model_width=1,
        epochs=1,
        batch_size=2,
        dtype="bfloat16",
        batch_norm_decay=decay,
    )
    assert Recipe.from_json(recipe.to_json(), source="here") == recipe
    classifier = compiled_model(recipe).classifier
    classifier(np.zeros((2, 32, 32, 3), np.float32), training=True)
    (variance,) = classifier.get_layer("batch_norm_conv2").moving_variance.numpy()
    assert variance == pytest.approx(decay or 0.999, abs=1e-6)


def test_a_decay_needs_batch_norm() -> None:
    recipe = Recipe(dataset="mnist", model="lenet", epochs=1, batch_size=2, batch_norm_decay=0.9)
    with pytest.raises(InputError, match=r"batch_norm_decay: expected .*lenet has none"):
        compiled_model(recipe)
