"""The training step against hand computation, and trainings that are killed and go on."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro import files, runs, training
from alp_repro.attacks import PGD
from alp_repro.data import Images
from alp_repro.errors import InputError
from alp_repro.losses import PENALTIES
from alp_repro.models import build_model, copies
from alp_repro.training import (
    LogitPairing,
    Recipe,
    compiled_model,
    train,
)
from alp_repro.training.backup import Backup
from alp_repro.training.callbacks import StopWhenNotFinite, learning_rate_at
from alp_repro.training.crafter import Crafter
from alp_repro.training.order import EpochOrder
from alp_repro.training.ownership import Owner

ATTACK = PGD(eps=0.3, eps_iter=0.1, nb_iter=2)
TERMS = ("clean_ce", "adversarial_ce", "clp", "lsq", "alp", "weight_decay")


def recipe(**changes: Any) -> Recipe:
    """A small recipe with changes, among them λ of penalties by their names."""
    weights = {name: changes.pop(name) for name in PENALTIES if name in changes}
    small = {"dataset": "mnist", "model": "lenet", "model_width": 2, "epochs": 3, "batch_size": 8}
    return Recipe(**{**small, "penalties": weights, **changes})


def some_images(count: int = 20) -> Images:
    """Three batches, the last of them half full."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)
    return Images(pixels, np.arange(count, dtype=np.int32) % 10, np.arange(count), "test")


@pytest.fixture
def batch() -> tuple[tf.Tensor, tf.Tensor]:
    data = some_images(8)
    return tf.constant(data.images), tf.constant(data.labels)


class Spy(keras.Model):
    """A classifier that remembers what it was given and what it gave (in eager mode)."""

    def __init__(self, classifier: keras.Model) -> None:
        super().__init__()
        self.classifier = classifier
        self.calls: list[tuple[np.ndarray, np.ndarray, bool]] = []

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        logits = self.classifier(images, training=training)
        if tf.executing_eagerly():
            self.calls.append((np.array(images), np.array(logits), training))
        return logits


def lenet() -> keras.Model:
    return build_model("lenet", image_shape=(28, 28, 1), num_classes=10, width=2)


def of_recipe(classifier: keras.Model, settings: Recipe) -> LogitPairing:
    """The model that trains the classifier as `compiled_model` would."""
    return LogitPairing(
        classifier, objective=settings.objective, seed=settings.seed, check_inputs=False
    )


def spied(settings: Recipe) -> LogitPairing:
    spy = Spy(lenet())
    spy(tf.zeros([1, 28, 28, 1]))
    model = of_recipe(spy, settings)
    model.compile(optimizer=keras.optimizers.Adam(settings.learning_rate, epsilon=1e-6))
    model.classifier.calls.clear()
    return model


def inputs_of_a_step(model: LogitPairing, batch: Any) -> list[np.ndarray]:
    """Return the classifier's inputs in one step: the calls that follow the crafting."""
    model.classifier.calls.clear()
    model.train_step(batch)
    settings = model.objective
    used = settings.uses_clean + settings.uses_adversarial - settings.joint_batch
    return [images for images, _, _ in model.classifier.calls[-used:]]


# The loss


def by_hand(
    settings: Recipe,
    weights: list[np.ndarray],
    labels: np.ndarray,
    clean: np.ndarray | None,
    adversarial: np.ndarray | None,
) -> dict[str, float]:
    """The weighted terms in NumPy, by the protocol's equations."""

    def cross_entropy(logits: np.ndarray) -> float:
        z = logits.astype(np.float64)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        s = settings.label_smoothing
        targets = (1 - s) * np.eye(10)[labels] + s / 10
        return float(-np.mean(np.sum(targets * log_p, axis=1)))

    terms = {}
    if settings.clean_weight:
        terms["clean_ce"] = settings.clean_weight * cross_entropy(clean)
    if settings.adversarial_weight:
        terms["adversarial_ce"] = settings.adversarial_weight * cross_entropy(adversarial)
    if "clp" in settings.penalties:
        half = len(clean) // 2
        terms["clp"] = settings.penalties["clp"] * np.mean((clean[:half] - clean[half:]) ** 2)
    if "lsq" in settings.penalties:
        terms["lsq"] = settings.penalties["lsq"] * np.mean(np.linalg.norm(clean, axis=1))
    if "alp" in settings.penalties:
        terms["alp"] = settings.penalties["alp"] * np.mean((clean - adversarial) ** 2)
    if settings.weight_decay:
        terms["weight_decay"] = settings.weight_decay * sum(0.5 * np.sum(w**2) for w in weights)
    return terms


ROWS: list[dict[str, Any]] = [
    {},
    {"clp": 0.5, "noise_stddev": 0.5},
    {"lsq": 0.5, "noise_stddev": 0.5},
    {"alp": 1.0, "attack": ATTACK},
    {"clean_weight": 0.5, "adversarial_weight": 0.5, "attack": ATTACK},
    {"clean_weight": 0.5, "adversarial_weight": 0.5, "alp": 1.0, "attack": ATTACK},
    {"clean_weight": 0.0, "adversarial_weight": 1.0, "attack": ATTACK},
    {"clean_weight": 0.0, "adversarial_weight": 1.0, "alp": 0.7, "attack": ATTACK},
    {
        "clean_weight": 0.3,
        "adversarial_weight": 0.6,
        "clp": 0.2,
        "lsq": 0.1,
        "alp": 0.4,
        "noise_stddev": 0.1,
        "label_smoothing": 0.1,
        "weight_decay": 0.01,
        "attack": ATTACK,
        "joint_batch": True,
    },
]


@pytest.mark.parametrize("changes", ROWS, ids=lambda changes: " ".join(changes))
def test_the_loss_of_a_step_is_the_one_by_hand(batch: Any, changes: dict[str, Any]) -> None:
    settings = recipe(**changes)
    model = spied(settings)
    before = model.classifier.get_weights()
    found = {name: float(value) for name, value in model.train_step(batch).items()}

    given = [logits for _, logits, _ in model.classifier.calls]
    clean_logits = adversarial_logits = given[-1]
    if settings.joint_batch:
        clean_logits, adversarial_logits = np.split(given[-1], 2)
    elif settings.uses_clean and settings.uses_adversarial:
        clean_logits = given[-2]
    expected = by_hand(settings, before, batch[1].numpy(), clean_logits, adversarial_logits)
    assert set(found) & set(TERMS) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name
    assert found["loss"] == pytest.approx(sum(expected.values()), rel=1e-4)
    if settings.uses_clean:
        accuracy = np.mean(clean_logits.argmax(axis=1) == batch[1])
        assert found["accuracy"] == pytest.approx(accuracy)
    if settings.uses_adversarial:
        accuracy = np.mean(adversarial_logits.argmax(axis=1) == batch[1])
        assert found["adversarial_accuracy"] == pytest.approx(accuracy)


def test_a_step_updates_by_adam_on_the_gradient_by_hand(batch: Any) -> None:
    settings = recipe(lsq=0.3, clp=0.2, alp=0.5, adversarial_weight=0.5, attack=ATTACK)
    model, twin = spied(settings), lenet()
    clean, adversarial = inputs_of_a_step(model, batch)
    labels = batch[1]
    with tf.GradientTape() as tape:
        z, z_adversarial = twin(clean), twin(adversarial)
        cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
        loss = (
            tf.reduce_mean(cross_entropy(labels, z))
            + 0.5 * tf.reduce_mean(cross_entropy(labels, z_adversarial))
            + 0.2 * tf.reduce_mean((z[:4] - z[4:]) ** 2)
            + 0.3 * tf.reduce_mean(tf.norm(z, axis=1))
            + 0.5 * tf.reduce_mean((z - z_adversarial) ** 2)
        )
    gradients = tape.gradient(loss, twin.trainable_variables)
    optimizer = keras.optimizers.Adam(0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-6)
    optimizer.apply(gradients, twin.trainable_variables)
    for found, expected in zip(model.classifier.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_papers_optimizer() -> None:
    optimizer = compiled_model(recipe()).optimizer
    config = optimizer.get_config()
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert [config[key] for key in ("beta_1", "beta_2", "epsilon")] == [0.9, 0.999, 1e-6]
    assert config["learning_rate"] == pytest.approx(0.001)
    assert not config["use_ema"] and not config["weight_decay"]


# Noise


def test_images_without_noise_are_pixels_over_255(batch: Any) -> None:
    (found,) = inputs_of_a_step(spied(recipe()), batch)
    np.testing.assert_allclose(found, batch[0].numpy() / 255, atol=1e-7)


def test_noise_is_gaussian_and_clipped_to_the_pixel_range() -> None:
    grey = (tf.fill([50, 28, 28, 1], 0.5), tf.zeros([50], tf.int32))
    (found,) = inputs_of_a_step(spied(recipe(noise_stddev=0.5)), grey)
    assert found.min() == 0 and found.max() == 1
    # 0.5 is one deviation from either end: 15.87% are cut off at each.
    assert np.mean(found == 0) == pytest.approx(0.1587, abs=0.01)
    assert np.mean(found == 1) == pytest.approx(0.1587, abs=0.01)
    (found,) = inputs_of_a_step(spied(recipe(noise_stddev=0.5, clip_noise=False)), grey)
    assert found.min() < -1 and found.max() > 2
    assert np.mean(found) == pytest.approx(0.5, abs=0.02)
    assert np.std(found) == pytest.approx(0.5, abs=0.02)


def test_noise_is_fresh_each_step_and_a_function_of_seed_and_step(batch: Any) -> None:
    settings = recipe(noise_stddev=0.5, clip_noise=False)
    model = spied(settings)
    steps = [inputs_of_a_step(model, batch)[0] for _ in range(3)]
    again = spied(settings)
    np.testing.assert_array_equal(inputs_of_a_step(again, batch)[0], steps[0])
    again.optimizer.iterations.assign(2)
    np.testing.assert_array_equal(inputs_of_a_step(again, batch)[0], steps[2])
    other = spied(dataclasses.replace(settings, seed=1))
    noises = [x - batch[0].numpy() / 255 for x in (*steps, inputs_of_a_step(other, batch)[0])]
    for i, a in enumerate(noises):
        for b in noises[:i]:
            assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.06
        assert abs(np.corrcoef(a[0].ravel(), a[1].ravel())[0, 1]) < 0.15


# Crafting


def test_adversarial_images_are_crafted_on_the_noisy_ones(batch: Any) -> None:
    settings = recipe(alp=1.0, noise_stddev=0.2, attack=ATTACK)
    model, twin = spied(settings), lenet()
    clean, adversarial = inputs_of_a_step(model, batch)
    assert np.any(clean != batch[0].numpy() / 255)
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    distance = np.abs(adversarial - clean)
    assert 0.2 < distance.max() <= 0.3 + 1e-6
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
    assert np.mean(cross_entropy(batch[1], twin(adversarial))) > np.mean(
        cross_entropy(batch[1], twin(clean))
    )


def test_starts_are_random_fresh_and_a_function_of_the_step(batch: Any) -> None:
    barely = dataclasses.replace(ATTACK, eps_iter=1e-6)
    settings = recipe(alp=1.0, attack=barely)
    model = spied(settings)
    moves = []
    for _ in range(2):
        clean, adversarial = inputs_of_a_step(model, batch)
        moves.append(adversarial - clean)
    assert abs(np.corrcoef(moves[0].ravel(), moves[1].ravel())[0, 1]) < 0.2
    assert np.mean(np.abs(moves[0])) == pytest.approx(0.13, abs=0.02)  # eps/2, but for clipping
    clean, adversarial = inputs_of_a_step(spied(settings), batch)
    np.testing.assert_array_equal(adversarial - clean, moves[0])
    fixed = recipe(alp=1.0, attack=dataclasses.replace(barely, random_start=False))
    clean, adversarial = inputs_of_a_step(spied(fixed), batch)
    np.testing.assert_allclose(adversarial, clean, atol=3e-6)


def test_a_warm_up_grows_the_ball_linearly(batch: Any) -> None:
    model = spied(recipe(alp=1.0, attack=ATTACK, attack_warmup_steps=4))
    for step in range(6):
        clean, adversarial = inputs_of_a_step(model, batch)
        eps = 0.3 * min(1.0, (step + 1) / 4)
        assert 0.9 * eps < np.abs(adversarial - clean).max() <= eps + 1e-6


def test_a_warm_up_may_have_fewer_iterations(batch: Any) -> None:
    counts = []
    for iterations in (None, 1):
        settings = recipe(
            alp=1.0, attack=ATTACK, attack_warmup_steps=3, attack_warmup_nb_iter=iterations
        )
        model = spied(settings)
        counts.append([])
        for _ in range(4):
            before = len(model.classifier.calls)
            model.train_step(batch)
            counts[-1].append(len(model.classifier.calls) - before - 2)
    assert counts == [[ATTACK.nb_iter] * 4, [1, 1, ATTACK.nb_iter, ATTACK.nb_iter]]


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_crafting_sees_the_model_in_the_mode_that_is_asked_for(
    batch: Any, batch_statistics: bool
) -> None:
    model = spied(recipe(alp=1.0, attack=ATTACK, attack_batch_statistics=batch_statistics))
    model.train_step(batch)
    modes = [training for _, _, training in model.classifier.calls]
    assert modes == [batch_statistics] * ATTACK.nb_iter + [True, True]


def with_batch_norm() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.Dense(10),
        ]
    )


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_crafting_leaves_the_averages_of_batch_norm_alone(
    batch: Any, batch_statistics: bool
) -> None:
    tiny = PGD(eps=1e-6, eps_iter=1e-7, nb_iter=5)
    settings = recipe(
        clean_weight=0.0,
        adversarial_weight=1.0,
        attack=tiny,
        attack_batch_statistics=batch_statistics,
    )
    classifier = with_batch_norm()
    model = of_recipe(classifier, settings)
    model.compile(optimizer=keras.optimizers.Adam(0.001))
    model.train_step(batch)
    # One pass, on images that are as good as the clean ones: 0.9 · 0 + 0.1 · mean.
    expected = 0.1 * (batch[0].numpy() / 255).reshape(8, -1).mean(axis=0)
    (moving_mean,) = (w for w in classifier.weights if w.path.endswith("moving_mean"))
    np.testing.assert_allclose(moving_mean.numpy(), expected, atol=1e-5)


def test_batch_statistics_are_what_the_attack_sees(batch: Any) -> None:
    """With moving averages far from the batch's, the two modes craft other images."""

    def crafted(batch_statistics: bool) -> np.ndarray:
        classifier = with_batch_norm()
        generator = np.random.default_rng(0)
        for weight in classifier.weights:
            weight.assign(generator.uniform(0.1, 1, weight.shape))
        settings = recipe(alp=1.0, attack=ATTACK, attack_batch_statistics=batch_statistics)
        crafter = Crafter(classifier, settings)
        images = tf.cast(batch[0], tf.float32) / 255
        seed = tf.constant([0, 1], tf.int64)
        return crafter.craft(images, batch[1], step=tf.constant(0), seed=seed).numpy()

    assert np.mean(crafted(True) != crafted(False)) > 0.05


def test_crafting_in_bfloat16_follows_the_weights(batch: Any) -> None:
    settings = recipe(alp=1.0, attack=dataclasses.replace(ATTACK, dtype="bfloat16"))
    model = compiled_model(settings)
    losses = [float(model.train_step(batch)["loss"]) for _ in range(8)]
    model.reset_metrics()
    last = float(model.train_step(batch)["loss"])
    assert np.isfinite(losses).all() and last < losses[0]
    names = {weight.dtype for weight in model.weights}
    assert "bfloat16" not in names  # the copy is no part of the model


def test_targeted_training_attacks_go_towards_the_least_likely_class(batch: Any) -> None:
    aimed = dataclasses.replace(ATTACK, target="least_likely")
    model, twin = spied(recipe(alp=1.0, attack=aimed)), lenet()
    clean, adversarial = inputs_of_a_step(model, batch)
    target = twin(clean).numpy().argmin(axis=1)
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
    before, after = (np.mean(cross_entropy(target, twin(x))) for x in (clean, adversarial))
    assert after < before


# The order


def epoch(order: EpochOrder, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    order.on_epoch_begin(number)
    return [(images.numpy(), labels.numpy()) for images, labels in order.dataset()]


def test_every_image_is_seen_once_an_epoch_the_partial_batch_included() -> None:
    data = some_images()
    data = dataclasses.replace(data, labels=np.arange(20, dtype=np.int32))
    order = EpochOrder(data, recipe())
    seen = []
    for number in range(3):
        batches = epoch(order, number)
        assert [len(labels) for _, labels in batches] == [8, 8, 4]
        seen.append(np.concatenate([labels for _, labels in batches]))
        images = np.concatenate([images for images, _ in batches])
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, data.images[seen[-1]])
        np.testing.assert_array_equal(np.sort(seen[-1]), np.arange(20))
    assert len({tuple(labels) for labels in seen}) == 3  # shuffled each epoch
    again = EpochOrder(data, recipe())
    np.testing.assert_array_equal(
        np.concatenate([labels for _, labels in epoch(again, 2)]), seen[2]
    )
    other = EpochOrder(data, recipe(seed=1))
    assert np.any(np.concatenate([labels for _, labels in epoch(other, 0)]) != seen[0])


def test_replicas_share_the_batches_of_one_device() -> None:
    data = dataclasses.replace(some_images(), labels=np.arange(20, dtype=np.int32))
    alone = EpochOrder(data, recipe())
    shared = EpochOrder(data, recipe(), replicas=2)
    context = tf.distribute.InputContext(1, 0, num_replicas_in_sync=2)
    shares = list(shared.shares(context).take(2 * 3 * 2))  # two epochs of three batches
    batches = [labels for number in range(2) for _, labels in epoch(alone, number)]
    for number, labels in enumerate(batches):
        pair = shares[2 * number : 2 * number + 2]
        assert len({len(share[1]) for share in pair}) == 1
        np.testing.assert_array_equal(np.concatenate([share[1] for share in pair]), labels)


# Whole trainings

RECIPE = recipe(
    lsq=0.1,
    alp=0.5,
    noise_stddev=0.3,
    attack=ATTACK,
    learning_rate_drops=(1, 2),
    average_decay=0.7,
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> runs.RunDir:
    run = runs.RunDir(tmp_path_factory.mktemp("runs") / "mnist" / "undisturbed")
    train(RECIPE, run, some_images(), verbose=0, details={"scale": "tiny"})
    return run


def rows(run: runs.RunDir) -> list[dict[str, str]]:
    if not run.log.exists():
        return []
    with run.log.open() as file:
        return list(csv.DictReader(file))


def weights(path: Path) -> list[np.ndarray]:
    return runs.load_model(path).get_weights()


def assert_same_weights(found: Path, expected: Path) -> None:
    for a, b in zip(weights(found), weights(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_finished_run_holds_everything(undisturbed: runs.RunDir) -> None:
    assert undisturbed.finished
    names = {path.name for path in undisturbed.path.iterdir()}
    assert names - {".model.keras.lock"} == {
        "model.keras",
        "averages.keras",
        "recipe.json",
        "settings.json",
        "training.csv",
    }
    told = files.read_json(undisturbed.recipe)
    assert told["recipe"] == files.as_json_data(RECIPE.to_json())
    assert told["weights"] == runs.weights_hash(runs.load_model(undisturbed.model))
    assert told["scale"] == "tiny" and told["data_source"] == "test"
    assert {"date", "revision", "versions"} <= set(told)
    fresh = compiled_model(RECIPE).classifier.get_weights()
    assert all(np.any(a != b) for a, b in zip(weights(undisturbed.model), fresh, strict=True))


def test_the_log_has_a_line_an_epoch_with_every_term(undisturbed: runs.RunDir) -> None:
    lines = rows(undisturbed)
    assert [line["epoch"] for line in lines] == ["0", "1", "2"]
    for line in lines:
        total = sum(float(line[name]) for name in ("clean_ce", "lsq", "alp"))
        assert float(line["loss"]) == pytest.approx(total, rel=1e-5)
        assert 0 <= float(line["adversarial_accuracy"]) <= 1


def test_the_learning_rate_drops_by_ten(undisturbed: runs.RunDir) -> None:
    rates = [float(line["learning_rate"]) for line in rows(undisturbed)]
    assert rates == pytest.approx([1e-3, 1e-4, 1e-5], rel=1e-5)
    tiny_imagenet = recipe(learning_rate_drops=(80, 90), epochs=100)
    rates = [learning_rate_at(tiny_imagenet, e) for e in (0, 79, 80, 89, 90, 99)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_a_finished_run_is_returned_as_it_is(
    undisturbed: runs.RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LogitPairing, "fit", None)
    before = undisturbed.model.read_bytes()
    found = train(RECIPE, undisturbed, some_images(), verbose=0)
    assert runs.weights_hash(found) == files.read_json(undisturbed.recipe)["weights"]
    assert undisturbed.model.read_bytes() == before


def test_another_recipe_in_the_same_folder_is_refused(undisturbed: runs.RunDir) -> None:
    before = {path: path.read_bytes() for path in undisturbed.path.iterdir()}
    for changes, told in (
        ({"penalties": {"lsq": 0.2, "alp": 0.5}}, "lsq: 0.1 .*0.2 requested"),
        ({"epochs": 5}, "epochs: 3 .*5 requested"),
        ({"attack": dataclasses.replace(ATTACK, nb_iter=3)}, "attack: .*'nb_iter': 2"),
    ):
        with pytest.raises(InputError, match=told) as caught:
            train(dataclasses.replace(RECIPE, **changes), undisturbed, some_images(), verbose=0)
        assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in undisturbed.path.iterdir()} == before


def test_the_model_holds_raw_weights_and_averages_their_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after: list[list[np.ndarray]] = []
    on_epoch_end = Backup.on_epoch_end

    def remember(self: Backup, epoch: int, logs: Any = None) -> None:
        after.append(self.model.classifier.get_weights())
        on_epoch_end(self, epoch, logs)

    monkeypatch.setattr(Backup, "on_epoch_end", remember)
    run = runs.RunDir(tmp_path)
    train(recipe(average_decay=0.7), run, some_images(8), verbose=0)  # one step an epoch
    for raw, last in zip(weights(run.model), after[-1], strict=True):
        np.testing.assert_array_equal(raw, last)
    for average, first, second, third in zip(weights(run.averages), *after, strict=True):
        expected = 0.7 * (0.7 * first + 0.3 * second) + 0.3 * third  # Keras begins with the first
        np.testing.assert_allclose(average, expected, atol=1e-6)
        assert np.any(average != third)


def interrupt(*args: Any, **kwargs: Any) -> None:
    raise KeyboardInterrupt


def interrupt_when(function: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
    """The function, but an interruption when its arguments are such."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if when(*args, **kwargs):
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    return wrapped


def half_written(file: Any, *args: Any, **kwargs: Any) -> None:
    """Dies, as `kill -9` does, in the middle of writing a backup."""
    file.write(b"half of it")
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_training_that_is_killed_anywhere_ends_as_if_undisturbed(
    tmp_path: Path, undisturbed: runs.RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit on one machine: the model, its averages and the log."""
    run = runs.RunDir(tmp_path)
    stop, write_json = StopWhenNotFinite, files.write_json
    interruptions: list[tuple[Any, str, Any]] = [
        # In the first epoch, when nothing is saved yet; in the middle of the second.
        (stop, "on_train_batch_end", interrupt),
        (
            stop,
            "on_train_batch_end",
            interrupt_when(
                stop.on_train_batch_end, lambda self, step, logs=None: (self._epoch, step) == (1, 1)
            ),
        ),
        # While the state after the second epoch is being written.
        (np.lib.format, "write_array", half_written),
        # When all epochs are done, but nothing says so yet.
        (
            files,
            "write_json",
            interrupt_when(write_json, lambda path, value: path.name == "recipe.json"),
        ),
    ]
    done = []
    for place, name, replacement in interruptions:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, replacement)
            with pytest.raises(KeyboardInterrupt):
                train(RECIPE, run, some_images(), verbose=0)
        assert not run.finished
        done.append(len(rows(run)))
    assert done == [0, 1, 2, 3]
    train(RECIPE, run, some_images(), verbose=0)
    assert run.finished and not run.backup.exists()
    assert_same_weights(run.model, undisturbed.model)
    assert_same_weights(run.averages, undisturbed.averages)
    assert run.log.read_text() == undisturbed.log.read_text()
    sessions = files.read_json(run.recipe)["sessions"]
    assert len(sessions) > 1 and sum(session["epochs"] for session in sessions) == RECIPE.epochs
    assert all(session["cpu_seconds"] > 0 and session["machine"] for session in sessions)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    tmp_path: Path, undisturbed: runs.RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.RunDir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(
            importlib.import_module("alp_repro.training.train"),
            "learning_rate_at",
            lambda settings, epoch: 1e-3 if epoch == 0 else 1e30,
        )
        with pytest.raises(
            InputError, match=r"the loss is (nan|inf) at epoch 2, step [23]"
        ) as told:
            train(RECIPE, run, some_images(), verbose=0)
    assert "\n" not in str(told.value)
    assert not run.finished and not run.model.exists()
    train(RECIPE, run, some_images(), verbose=0)
    assert_same_weights(run.model, undisturbed.model)


def test_a_damaged_backup_is_told_in_one_line(tmp_path: Path) -> None:
    run = runs.RunDir(tmp_path)
    run.backup.mkdir()
    (run.backup / "latest.npz").write_bytes(b"half of it")
    with pytest.raises(InputError, match=r"latest\.npz is damaged") as caught:
        train(recipe(), run, some_images(), verbose=0)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_two_replicas_train_as_one_device(
    tmp_path: Path, undisturbed: runs.RunDir, two_replicas: tf.distribute.Strategy
) -> None:
    """Up to the rounding of sums that are added in another order, at most 1e-6 here."""
    run = runs.RunDir(tmp_path)
    train(RECIPE, run, some_images(), verbose=0, strategy=two_replicas)
    for found, expected in zip(rows(run), rows(undisturbed), strict=True):
        for name in ("loss", "clean_ce", "lsq", "alp", "accuracy", "learning_rate"):
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-4), name
    for name in ("model", "averages"):
        pairs = zip(weights(getattr(run, name)), weights(getattr(undisturbed, name)), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_state_of_two_replicas_is_restored(
    tmp_path: Path, two_replicas: tf.distribute.Strategy
) -> None:
    run = runs.RunDir(tmp_path)

    def fresh(seed: int) -> tuple[LogitPairing, Backup]:
        settings = recipe(average_decay=0.9, seed=seed)
        with two_replicas.scope():
            model = compiled_model(settings)
        backup = Backup(run, Owner(recipe()))
        backup.set_model(model)
        return model, backup

    model, backup = fresh(0)
    assert backup.restore(model, steps_per_epoch=3) == 0  # nothing is there
    for number, variable in enumerate(model.optimizer.variables):
        variable.assign(tf.ones_like(variable) * (number + 2))
    model.optimizer.iterations.assign(6)
    backup.on_train_begin()
    backup.on_epoch_end(1)
    other, backup = fresh(1)
    assert backup.restore(other, steps_per_epoch=3) == 2
    for a, b in zip(
        (*other.classifier.weights, *other.optimizer.variables),
        (*model.classifier.weights, *model.optimizer.variables),
        strict=True,
    ):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    backup.remove()
    assert not run.backup.exists()


def test_the_first_images_are_used_and_more_than_there_are_refused(tmp_path: Path) -> None:
    data = some_images()
    few, first = runs.RunDir(tmp_path / "few"), runs.RunDir(tmp_path / "first")
    train(recipe(train_images=8, epochs=1), few, data, verbose=0)
    eight = Images(data.images[:8], data.labels[:8], data.indices[:8], data.source)
    train(recipe(epochs=1), first, eight, verbose=0)
    assert_same_weights(few.model, first.model)
    with pytest.raises(InputError, match=r"train_images 21: .*20"):
        train(recipe(train_images=21), runs.RunDir(tmp_path / "more"), data, verbose=0)
    # What was refused has not taken the folder: the corrected training may have it.
    train(recipe(train_images=8, epochs=1), runs.RunDir(tmp_path / "more"), data, verbose=0)


def test_a_training_starts_from_a_given_model(tmp_path: Path) -> None:
    source = build_model("lenet", image_shape=(28, 28, 1), num_classes=10, width=2, weight_seed=77)
    frozen = recipe(learning_rate=1e-12, epochs=1)
    found = train(frozen, runs.RunDir(tmp_path / "a"), some_images(8), verbose=0, init_from=source)
    for a, b in zip(found.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    with pytest.raises(InputError, match=r"model with other settings \(init_from"):
        train(frozen, runs.RunDir(tmp_path / "a"), some_images(8), verbose=0, init_from=lenet())
    wider = build_model("lenet", image_shape=(28, 28, 1), num_classes=10, width=3)
    fewer = build_model("lenet", image_shape=(28, 28, 1), num_classes=7, width=2)
    for name, other in (("wider", wider), ("fewer", fewer)):
        run = runs.RunDir(tmp_path / name)
        with pytest.raises(InputError, match="the model to start from") as caught:
            train(frozen, run, some_images(8), verbose=0, init_from=other)
        assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write to"):
        train(recipe(), runs.RunDir(tmp_path / "file" / "run"), some_images(), verbose=0)


def test_the_duration_is_estimated_from_timed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 101.0, 102.0, 103.0, 200.0, 230.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    settings = recipe(epochs=7)
    # Three steps in three seconds, three steps an epoch.
    assert training.estimate_seconds(settings, some_images(), steps=3) == 1.0 * 3 * 7
    # One step takes so long that no other is needed.
    assert training.estimate_seconds(settings, some_images(), steps=3) == 30.0 * 3 * 7


def test_the_crafting_copy_is_no_part_of_what_is_saved(undisturbed: runs.RunDir) -> None:
    saved = runs.load_model(undisturbed.model)
    assert saved.count_params() == lenet().count_params()
    assert copies.logits_function(saved)(tf.zeros([1, 28, 28, 1])).shape == (1, 10)
