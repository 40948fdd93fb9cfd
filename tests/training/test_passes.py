"""Which images pass the model together, and what that does to batch norm and to pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro import losses, runs
from alp_repro.attacks import PGD
from alp_repro.data import Images
from alp_repro.errors import InputError
from alp_repro.losses import PENALTIES, Penalty
from alp_repro.reporting.figures import curves
from alp_repro.training import LogitPairing, Recipe, compiled_model, train
from alp_repro.training.crafter import Crafter
from alp_repro.training.log import read_log
from alp_repro.training.order import EpochOrder
from alp_repro.training.passes import halves
from experiments.flags import settings

ATTACK = PGD(eps=0.3, eps_iter=0.1, nb_iter=1, random_start=False)


def recipe(**changes: Any) -> Recipe:
    small = {"dataset": "mnist", "model": "lenet", "model_width": 1, "epochs": 1, "batch_size": 8}
    return Recipe(**{**small, **changes})


@pytest.fixture
def batch() -> tuple[tf.Tensor, tf.Tensor]:
    pixels = np.random.default_rng(0).uniform(0, 1, (8, 28, 28, 1)).astype(np.float32)
    return tf.constant(pixels), tf.range(8)


class Spy(keras.Model):
    """A classifier with batch norm that remembers what passed it in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = keras.layers.Flatten()
        self.norm = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3)
        self.logits = keras.layers.Dense(10, kernel_initializer=keras.initializers.HeNormal(3))
        self.seen: list[np.ndarray] = []

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        if training and tf.executing_eagerly():
            self.seen.append(np.array(images))
        return self.logits(self.norm(self.flatten(images), training=training))


def model_of(settings: Recipe, learning_rate: float = 0.0) -> LogitPairing:
    spy = Spy()
    spy(tf.zeros([1, 28, 28, 1]))
    model = LogitPairing(spy, objective=settings.objective, seed=settings.seed, check_inputs=False)
    model.compile(optimizer=keras.optimizers.SGD(learning_rate))
    return model


def normalised(model: LogitPairing, images: np.ndarray) -> np.ndarray:
    """Logits with the statistics of just these images, in NumPy."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    x = (flat - flat.mean(axis=0)) / np.sqrt(flat.var(axis=0) + 1e-3)
    kernel, bias = model.classifier.logits.get_weights()
    return x @ kernel + bias


def moving_mean(model: LogitPairing) -> np.ndarray:
    return model.classifier.norm.moving_mean.numpy()


# Passes of their own, as on CIFAR-10


def test_the_clean_batch_moves_the_averages_of_adversarial_training(batch: Any) -> None:
    means = {}
    for separate in (False, True):
        settings = recipe(
            clean_weight=0.0,
            adversarial_weight=1.0,
            attack=ATTACK,
            separate_passes=separate,
            attack_batch_statistics=False,
        )
        model = model_of(settings)
        logged = model.train_step(batch)
        means[separate] = moving_mean(model)
        *_, adversarial = model.classifier.seen
        assert len(model.classifier.seen) == 1 + separate
        assert set(logged) >= ({"accuracy"} if separate else set())
    clean_mean, adversarial_mean = (
        np.asarray(images).reshape(8, -1).mean(axis=0) for images in (batch[0], adversarial)
    )
    np.testing.assert_allclose(means[False], 0.1 * adversarial_mean, atol=1e-5)
    expected = 0.9 * 0.1 * clean_mean + 0.1 * adversarial_mean
    np.testing.assert_allclose(means[True], expected, atol=1e-5)


def test_the_halves_of_clp_are_normalised_apart(batch: Any) -> None:
    images = batch[0].numpy()
    found = {}
    for separate in (False, True):
        model = model_of(recipe(penalties={"clp": 0.5}, separate_passes=separate))
        found[separate] = model.train_step(batch)
        shapes = [len(seen) for seen in model.classifier.seen]
        assert shapes == ([8, 4, 4] if separate else [8])
    together = normalised(model, images)
    first, second = normalised(model, images[:4]), normalised(model, images[4:])
    assert float(found[False]["clp"]) == pytest.approx(
        0.5 * np.mean((together[:4] - together[4:]) ** 2), rel=1e-3
    )
    assert float(found[True]["clp"]) == pytest.approx(
        0.5 * np.mean((first - second) ** 2), rel=1e-3
    )
    # The cross-entropy is that of the whole batch all the same.
    assert float(found[True]["clean_ce"]) == pytest.approx(float(found[False]["clean_ce"]))
    means = [part.reshape(len(part), -1).mean(axis=0) for part in (images, images[:4], images[4:])]
    expected = 0.1 * (0.81 * means[0] + 0.9 * means[1] + means[2])
    np.testing.assert_allclose(moving_mean(model), expected, atol=1e-5)


def test_logit_squeezing_passes_the_batch_twice(batch: Any) -> None:
    model = model_of(recipe(penalties={"lsq": 0.5}, separate_passes=True))
    model.train_step(batch)
    assert [len(seen) for seen in model.classifier.seen] == [8, 8]
    mean = batch[0].numpy().reshape(8, -1).mean(axis=0)
    np.testing.assert_allclose(moving_mean(model), 0.19 * mean, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "own"),
    [
        ({}, 1),
        ({"penalties": {"clp": 0.5}, "separate_passes": True}, 3),
        ({"penalties": {"lsq": 0.5}, "separate_passes": True}, 2),
        ({"penalties": {"alp": 0.5}}, 2),
        ({"clean_weight": 0.0, "adversarial_weight": 1.0}, 1),
    ],
    ids=["plain", "clp", "lsq", "alp", "at100"],
)
def test_statistics_passes_move_the_averages_as_in_the_authors_graph(
    batch: Any, settings: dict[str, Any], own: int
) -> None:
    """Whatever the row: the clean images twice, their halves, one more adversarial batch."""
    in_loss = "alp" in settings.get("penalties", {}) or "adversarial_weight" in settings
    settings = {**settings, "attack_batch_statistics": False}  # crafting moves no averages either
    without = model_of(recipe(**settings, attack=ATTACK if in_loss else None))
    expected_terms = without.train_step(batch)
    assert len(without.classifier.seen) == own
    model = model_of(recipe(**settings, attack=ATTACK, statistics_passes=True))
    terms = model.train_step(batch)
    # Losses are those without: nothing but the averages is moved.
    assert {k: float(v) for k, v in terms.items()} == pytest.approx(
        {k: float(v) for k, v in expected_terms.items()}
    )
    clean = batch[0].numpy()
    passed = [np.array(images) for images in model.classifier.seen]
    of_clean = [len(images) for images in passed if np.isin(images, clean).all()]
    adversarial = [images for images in passed if not np.isin(images, clean).all()]
    assert sorted(of_clean) == [4, 4, 8, 8]
    assert [len(images) for images in adversarial] == [8] * (1 + in_loss)
    mean = np.zeros(784)
    for images in passed:
        mean = 0.9 * mean + 0.1 * images.reshape(len(images), -1).mean(axis=0)
    np.testing.assert_allclose(moving_mean(model), mean, atol=1e-5)


def test_statistics_passes_need_an_attack_and_batch_norm() -> None:
    with pytest.raises(InputError, match="no training attack is given"):
        recipe(statistics_passes=True)
    with pytest.raises(InputError, match=r"statistics_passes: .*batch norm"):
        compiled_model(recipe(statistics_passes=True, attack=ATTACK))


def test_statistics_passes_are_stored_where_they_are_made() -> None:
    plain, moving = recipe(), recipe(statistics_passes=True, attack=ATTACK)
    assert "statistics_passes" not in plain.to_json()  # what was stored before stays the same
    assert Recipe.from_json(moving.to_json(), source="here") == moving
    assert settings.changes(plain, moving)["statistics_passes"] == (False, True)
    assert settings.changes(moving, plain)["statistics_passes"] == (True, False)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_halves_are_the_pairs_of_clean_logit_pairing(count: int) -> None:
    logits = tf.random.stateless_normal([count, 10], [1, 2])
    first, second = halves(logits)
    assert len(first) == len(second) == max(1, count // 2)
    together = losses.clean_logit_pairing(tf.concat([first, second], axis=0))
    assert float(together) == pytest.approx(float(losses.clean_logit_pairing(logits)))


# Shares of a batch, as on eight devices


def test_virtual_replicas_are_normalised_and_paired_apart(batch: Any) -> None:
    images, labels = batch[0].numpy(), batch[1].numpy()
    model = model_of(recipe(penalties={"clp": 0.5}, virtual_replicas=2), learning_rate=1.0)
    _, bias = model.classifier.logits.get_weights()
    shares = [normalised(model, part) for part in np.split(images, 2)]
    found = model.train_step(batch)
    pairs = np.mean([np.mean((z[:2] - z[2:]) ** 2) for z in shares])
    assert float(found["clp"]) == pytest.approx(0.5 * pairs, rel=1e-3)
    logits = np.concatenate(shares)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert float(found["clean_ce"]) == pytest.approx(-log_p[np.arange(8), labels].mean(), rel=1e-3)
    assert float(found["accuracy"]) == pytest.approx(np.mean(logits.argmax(axis=1) == labels))
    # The averages are the mean of what each share makes of them.
    expected = 0.1 * images.reshape(8, -1).mean(axis=0)
    np.testing.assert_allclose(moving_mean(model), expected, atol=1e-5)
    squares = [part.reshape(4, -1).var(axis=0) for part in np.split(images, 2)]
    np.testing.assert_allclose(
        model.classifier.norm.moving_variance.numpy(),
        0.9 + 0.1 * np.mean(squares, axis=0),
        atol=1e-4,
    )
    assert not np.allclose(model.classifier.logits.get_weights()[1], bias)


def test_crafting_with_batch_statistics_sees_shares(batch: Any) -> None:
    classifier = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(10),
        ]
    )

    def crafted(images: tf.Tensor, labels: tf.Tensor, virtual: int) -> np.ndarray:
        settings = recipe(
            clean_weight=0.0, adversarial_weight=1.0, attack=ATTACK, virtual_replicas=virtual
        )
        seed = tf.constant([0, 1], tf.int64)
        crafter = Crafter(classifier, settings)
        return crafter.craft(images, labels, step=tf.constant(0), seed=seed).numpy()

    images, labels = batch
    apart = np.concatenate([crafted(images[i : i + 4], labels[i : i + 4], 1) for i in (0, 4)])
    np.testing.assert_array_equal(crafted(images, labels, 2), apart)
    assert np.mean(crafted(images, labels, 1) != apart) > 0.01


@pytest.mark.slow
def test_steps_may_end_a_training_within_an_epoch(tmp_path: Path) -> None:
    pixels = np.zeros((20, 28, 28, 1), np.uint8)
    data = Images(pixels, np.arange(20, dtype=np.int32) % 10, np.arange(20), "made up")
    run, whole = runs.RunDir(tmp_path / "run"), runs.RunDir(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        # All is done, but nothing says so yet: the next call trains no step more.
        patch.setattr(runs, "weights_hash", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(recipe(epochs=9, max_steps=4), run, data, verbose=0)
    trained = run.model.read_bytes()
    train(recipe(epochs=9, max_steps=4), run, data, verbose=0)
    assert run.model.read_bytes() == trained
    assert [line.split(",")[0] for line in run.log.read_text().splitlines()] == ["epoch", "0", "1"]
    train(
        recipe(epochs=1, max_steps=4), whole, data, verbose=0
    )  # three steps: the epochs end first
    assert len(whole.log.read_text().splitlines()) == 2
    model = compiled_model(recipe(epochs=9, max_steps=4))
    order = EpochOrder(data, recipe())
    step = tf.function(model.train_step, reduce_retracing=True)
    for number, count in ((0, 3), (1, 1)):
        order.on_epoch_begin(number)
        for images, labels in order.dataset().take(count):
            step((images, labels))
    trained_weights = runs.load_model(run.model).get_weights()
    for a, b in zip(trained_weights, model.classifier.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_adams_epsilon_is_the_recipes() -> None:
    assert compiled_model(recipe()).optimizer.epsilon == 1e-6
    assert compiled_model(recipe(adam_epsilon=1e-8)).optimizer.epsilon == 1e-8


# A penalty is one function and one entry


def logit_variance(adversarial_logits: tf.Tensor) -> tf.Tensor:
    return tf.math.reduce_variance(adversarial_logits)


def test_a_toy_penalty_is_an_entry_away(
    tmp_path: Path, batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PENALTIES, "toy", Penalty("Toy", logit_variance, needs=("adversarial",)))
    values = settings.parse(
        [
            "--dataset=mnist",
            "--model_width=1",
            "--epochs=1",
            "--batch_size=8",
            "--regularizer=toy",
            "--regularizer_weight=0.25",
            "--train_eps=76.5",
            "--train_eps_iter=25.5",
            "--train_nb_iter=1",
        ]
    )
    chosen = settings.recipe(values)
    assert chosen.penalties == {"toy": 0.25} and chosen.uses_adversarial
    assert chosen.to_json()["toy"] == 0.25 and chosen.to_json()["clp"] == 0.0
    assert Recipe.from_json(chosen.to_json(), source="here") == chosen
    data = Images(batch[0].numpy(), batch[1].numpy(), np.arange(8), "made up")
    run = runs.RunDir(tmp_path)
    train(chosen, run, data, verbose=0)
    header, line = (text.split(",") for text in run.log.read_text().splitlines())
    logged = dict(zip(header, map(float, line), strict=True))
    assert logged["toy"] > 0
    assert logged["loss"] == pytest.approx(logged["clean_ce"] + logged["toy"])
    assert read_log(run.log)["toy"] == pytest.approx([logged["toy"]])
    assert curves.term_labels()["toy"] == "Toy"
