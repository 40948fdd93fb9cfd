"""The contract of all attacks: those of the registry, and one from outside the package."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro.attacks import (
    ATTACKS,
    Attack,
    Cost,
    Crafted,
    CraftItems,
    Execution,
    WorkItems,
    attack_class,
    attack_from_json,
    cleverhans_engines,
    exact_bounds,
    register,
)
from alp_repro.attacks.draws import random_starts
from alp_repro.attacks.programs import attack_program
from alp_repro.errors import InputError
from alp_repro.evaluation import Progress, evaluate
from alp_repro.models.copies import logits_function
from experiments.flags import settings
from tests.marks import slow_unless
from tests.small_model import IMAGE_SHAPE

EPS, BATCH, SEED, SAMPLES = 0.05, 16, 3, 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corners(Attack):
    """The toy: a random corner of the ball, whatever the model says."""

    sharpness: float = 1.0

    name: ClassVar[str] = "corners"
    needs_gradient: ClassVar[bool] = False

    @property
    def cost(self) -> Cost:
        return Cost()

    def craft(self, logits: Any, items: CraftItems) -> Crafted:
        seen = random_starts(items.images, eps=self.eps, **items.random_keys)
        corner = self.eps * self.sharpness * tf.sign(seen - items.images)
        return Crafted(items.images + corner, tf.zeros_like(items.labels))


NAMES = [*ATTACKS, Corners.name]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cleverhans_engines, "SPSA_SAMPLES", SAMPLES)
    register(Corners)
    yield
    del ATTACKS[Corners.name]


def made(name: str, *, eps: float = EPS, **changes: Any) -> Attack:
    """An attack that takes a moment: what it needs, few steps, else its defaults."""
    attack = attack_class(name)
    few: dict[str, Any] = {"eps_iter": eps / 3, "nb_iter": 4, "climbs": 3}
    if name == "spsa":
        few["nb_iter"] = 2  # nothing is compiled
    own = {field.name for field in dataclasses.fields(attack)}
    return attack(eps=eps, **{n: v for n, v in few.items() if n in own}, **changes)


def few(name: str) -> int:
    """Images of a batch; SPSA's loop is not compiled."""
    return 4 if name == "spsa" else BATCH


def batch(images: np.ndarray, labels: np.ndarray, index: np.ndarray) -> WorkItems:
    restart = (index % 3).astype(np.int32)
    bounds = exact_bounds(images[index], EPS)
    return WorkItems(images[index], labels[index], index.astype(np.int64), restart, *bounds)


@pytest.mark.parametrize("name", NAMES)
def test_an_outcome_is_in_the_ball_and_depends_on_seed_restart_and_image_alone(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, name: str
) -> None:
    size = few(name)

    def crafted(index: np.ndarray, seed: int = SEED) -> np.ndarray:
        program = attack_program(
            model,
            attack=made(name),
            image_shape=IMAGE_SHAPE,
            seed=seed,
            execution=Execution(batch_size=size),
        )
        return program(batch(images, labels, index)).adversarial

    index = np.arange(size)
    found = crafted(index)
    assert np.abs(found.astype(np.float64) - images[:size]).max() <= EPS
    assert found.min() >= 0 and found.max() <= 1
    np.testing.assert_array_equal(crafted(index), found)
    apart = size // 4
    others = np.concatenate([np.arange(size, size + apart), index[: size - apart][::-1]])
    np.testing.assert_array_equal(crafted(others)[apart:][::-1], found[: size - apart])
    # SPSA's samples, not its start, are random: a sign seldom turns. FAB's first restarts draw
    # nothing, they begin at the image.
    if name not in ("spsa", "fab"):
        assert np.any(crafted(index, seed=SEED + 1) != found)


@pytest.mark.parametrize("name", slow_unless(["pgd"], NAMES))
def test_stopped_after_any_batch_it_ends_the_same(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, name: str, tmp_path: Path
) -> None:
    given = {"attack": made(name, restarts=3), "batch_size": few(name) // 2}
    images, labels = images[: few(name)], labels[: few(name)]
    expected = evaluate(model, images, labels, **given)
    found = None

    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    for _ in range(20):
        try:
            found = evaluate(model, images, labels, folder=tmp_path, report=stop, **given)
            break
        except KeyboardInterrupt:
            continue
    assert found is not None and len(found.sessions) > 1
    np.testing.assert_array_equal(found.first_break, expected.first_break)
    np.testing.assert_array_equal(found.next_restart, expected.next_restart)


@pytest.mark.parametrize("name", NAMES)
def test_it_costs_what_it_says(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Passes over the model that an image takes, but for that of the clean image and of the end."""
    monkeypatch.setattr(cleverhans_engines, "SPSA_SAMPLES", 8192)
    seen, logits = 0, logits_function(model)
    attack = made(name, eps=1e-4)  # no run ends early
    count = 1 if name == "spsa" else 4

    def counting(points: tf.Tensor) -> tf.Tensor:
        nonlocal seen
        seen += int(points.shape[0])
        return logits(points)

    items = [tf.constant(value) for value in batch(images, labels, np.arange(count))[:4]]
    attack.craft(counting, CraftItems(*items, tf.constant(SEED), logits))
    said = attack.cost.gradients + attack.cost.queries
    assert said <= math.ceil(seen / count) <= said + 1
    thrice = dataclasses.replace(attack, restarts=3).gradients
    assert 3 * attack.gradients <= thrice < 3 * (attack.gradients + 1)  # a query is half of one


@pytest.mark.parametrize("name", slow_unless(["pgd"], NAMES))
def test_without_a_verdict_there_is_no_number(
    images: np.ndarray, labels: np.ndarray, name: str
) -> None:
    """A model whose logits are no numbers wherever an image was changed."""
    images, labels = images[: few(name)], labels[: few(name)]
    clean = tf.constant(images)

    def logits(points: tf.Tensor) -> tf.Tensor:
        apart = tf.reduce_min(tf.reduce_max(tf.abs(points[:, None] - clean), axis=[2, 3, 4]), 1)
        return tf.where(apart[:, None] > 1e-3, np.nan, 1.0) * tf.reduce_sum(points, axis=[1, 2])

    class Nowhere(keras.layers.Layer):
        def call(self, points: tf.Tensor) -> tf.Tensor:
            return tf.tile(logits(points), [1, 10]) * tf.range(1.0, 11.0)

    model = keras.Sequential([keras.Input(IMAGE_SHAPE), Nowhere()])
    with pytest.raises(InputError, match="not finite"):
        evaluate(model, images, np.full_like(labels, 9), attack=made(name))


@pytest.mark.parametrize("name", NAMES)
def test_two_classes_are_enough_for_its_defaults(images: np.ndarray, name: str) -> None:
    model = keras.Sequential([keras.Input(IMAGE_SHAPE), keras.layers.Flatten()])
    model.add(keras.layers.Dense(2, kernel_initializer=keras.initializers.RandomNormal(seed=1)))
    first, second = np.asarray(model(images)).T
    images = images[np.argsort(np.abs(first - second))[: few(name)]]  # SPSA's few steps are short
    labels = np.argmax(model(images), axis=1)
    attack = made(name, eps=0.3, restarts=2)
    assert attack.min_classes == 2
    found = evaluate(model, images, labels, attack=attack)
    assert found.accuracy_at(2) < 1


@pytest.mark.parametrize("name", slow_unless(["pgd"], NAMES))
def test_without_a_ball_the_clean_accuracy_is_left(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, name: str
) -> None:
    found = evaluate(model, images, labels, attack=made(name, eps=0.0))
    assert found.accuracy_at(1) == found.clean_accuracy < 1


@pytest.mark.parametrize("name", NAMES)
def test_flags_results_and_lines_know_it(name: str) -> None:
    parsed = settings.parse_attack(f"{name},eps=25.5,restarts=2", settings.parse([]))
    assert (type(parsed), parsed.eps, parsed.restarts) == (ATTACKS[name], 0.1, 2)
    assert attack_from_json(parsed.to_json()) == parsed
    assert str(parsed).startswith(f"{name} eps=25.5 ") and "r=2" in str(parsed)


def test_a_setting_of_ones_own_is_kept_and_a_foreign_one_refused() -> None:
    attack = Corners(eps=0.1, sharpness=0.5)
    assert attack_from_json(attack.to_json()) == attack and "sharpness=0.5" in str(attack)
    with pytest.raises(InputError, match=r"bluntness.*corners"):
        attack_from_json({**attack.to_json(), "bluntness": 1})


def test_a_name_is_taken_once_and_by_an_attack() -> None:
    register(Corners)
    mine = dataclasses.make_dataclass("Mine", [], bases=(ATTACKS["pgd"],), frozen=True)
    with pytest.raises(InputError, match=r"'pgd' .*taken by PGD"):
        register(mine)
    with pytest.raises(InputError, match="frozen dataclass"):
        register(dict)  # type: ignore[type-var]
