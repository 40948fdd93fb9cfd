"""A budget shares out restarts: who gets them follows from the first ones alone, exactly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from alp_repro.attacks import Attack, strong_attack
from alp_repro.attacks.settings import BUDGET_FIRST, BUDGET_RESTARTS
from alp_repro.errors import InputError
from alp_repro.evaluation import AttackRecord, Progress, evaluate
from alp_repro.evaluation.record import load_record, save_record

FREE = Attack(eps=0.05, eps_iter=0.02, nb_iter=3, restarts=BUDGET_RESTARTS)
ATTACK = dataclasses.replace(FREE, budget=15)
SHOWN = ("first_break", "next_restart", "closest")


@pytest.fixture(scope="module")
def free(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> AttackRecord:
    """Every restart of every image."""
    return evaluate(model, images, labels, attack=FREE, record_losses=True, batch_size=16)


@pytest.fixture(scope="module")
def bounded(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> AttackRecord:
    return evaluate(model, images, labels, attack=ATTACK, batch_size=16)


def test_the_images_that_came_closest_go_on_as_far_as_the_budget_goes(
    free: AttackRecord, bounded: AttackRecord
) -> None:
    assert free.losses is not None
    left = (free.first_break < 0) | (free.first_break >= BUDGET_FIRST)
    spent = np.where(left, BUDGET_FIRST, free.first_break + 1).sum() * ATTACK.nb_iter
    further = BUDGET_RESTARTS - BUDGET_FIRST
    count = (ATTACK.budget * len(left) - spent) // (further * ATTACK.nb_iter)
    assert 2 <= count <= left.sum() - 2, "the budget should bind, or this shows nothing"
    loss = np.where(left, free.losses[:, :BUDGET_FIRST].max(axis=1), -1)
    chosen = np.zeros_like(left)
    chosen[np.argsort(-loss, kind="stable")[:count]] = True
    allowed = np.where(chosen, BUDGET_RESTARTS, BUDGET_FIRST)
    expected = np.where(free.first_break < allowed, free.first_break, -1)
    np.testing.assert_array_equal(bounded.first_break, expected)
    stands = expected < 0
    np.testing.assert_array_equal(bounded.next_restart[stands], allowed[stands])
    assert np.any(bounded.first_break >= BUDGET_FIRST), "a further restart should break something"
    assert bounded.restarts_spent(BUDGET_RESTARTS).mean() * ATTACK.nb_iter <= ATTACK.budget
    assert bounded.robust_at(BUDGET_RESTARTS) == stands.sum()
    assert bounded.complete_to(BUDGET_RESTARTS)
    assert f"after {BUDGET_RESTARTS} restarts" in repr(bounded)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_and_the_order_of_the_images_change_nothing(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    bounded: AttackRecord,
    batch_size: int,
) -> None:
    found = evaluate(model, images, labels, attack=ATTACK, batch_size=batch_size)
    np.testing.assert_array_equal(found.first_break, bounded.first_break)
    spent = [record.restarts_spent(BUDGET_RESTARTS) for record in (found, bounded)]
    np.testing.assert_array_equal(*spent)


def test_stopped_after_any_batch_it_ends_the_same(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    bounded: AttackRecord,
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"attack": ATTACK, "batch_size": 16, "folder": tmp_path}
    seen = 0

    def interrupt(_: Progress) -> None:
        nonlocal seen
        seen += 1
        raise KeyboardInterrupt

    for _ in range(100):
        try:
            found = evaluate(model, images, labels, report=interrupt, **options)
            break
        except KeyboardInterrupt:
            continue
    assert seen > 5
    for name in SHOWN:
        np.testing.assert_array_equal(getattr(found, name), getattr(bounded, name))


def test_fewer_restarts_first_and_more_later_change_nothing(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    bounded: AttackRecord,
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"batch_size": 16, "folder": tmp_path}
    for restarts in (2, BUDGET_FIRST, 7, BUDGET_RESTARTS):
        attack = dataclasses.replace(ATTACK, restarts=restarts)
        found = evaluate(model, images, labels, attack=attack, **options)
        assert found.complete_to(restarts)
        assert found.robust_at(restarts) == bounded.robust_at(restarts)
    np.testing.assert_array_equal(found.first_break, bounded.first_break)
    assert len(list(tmp_path.glob("*.npz"))) == 1


def test_a_large_budget_is_none_and_a_small_one_stops_after_the_first(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, free: AttackRecord
) -> None:
    ample = dataclasses.replace(ATTACK, budget=ATTACK.nb_iter * BUDGET_RESTARTS)
    found = evaluate(model, images, labels, attack=ample, batch_size=16)
    np.testing.assert_array_equal(found.first_break, free.first_break)
    none_left = dataclasses.replace(ATTACK, budget=1)
    found = evaluate(model, images, labels, attack=none_left, batch_size=16)
    assert found.next_restart.max() == BUDGET_FIRST and found.complete_to(BUDGET_RESTARTS)
    first = np.where(free.first_break < BUDGET_FIRST, free.first_break, -1)
    np.testing.assert_array_equal(found.first_break, first)


def test_a_record_comes_back_and_one_without_its_array_is_refused(
    bounded: AttackRecord, tmp_path: Path
) -> None:
    save_record(tmp_path / "a.npz", bounded)
    found = load_record(tmp_path / "a.npz")
    for name in SHOWN:
        np.testing.assert_array_equal(getattr(found, name), getattr(bounded, name))
    save_record(tmp_path / "b.npz", dataclasses.replace(bounded, closest=None))
    with pytest.raises(InputError, match="an attack with a budget has the array closest"):
        load_record(tmp_path / "b.npz")
    closest = np.full(len(bounded.labels), np.nan, np.float32)
    save_record(tmp_path / "c.npz", dataclasses.replace(bounded, closest=closest))
    with pytest.raises(InputError, match="closest has entries that are no loss"):
        load_record(tmp_path / "c.npz")


def test_what_a_budget_cannot_be(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    with pytest.raises(InputError, match="attack budget -1"):
        dataclasses.replace(FREE, budget=-1)
    with pytest.raises(InputError, match=f"at most {BUDGET_RESTARTS} restarts"):
        dataclasses.replace(ATTACK, restarts=BUDGET_RESTARTS + 1)
    with pytest.raises(InputError, match=r"record_losses.*budget=0 works"):
        evaluate(model, images, labels, attack=ATTACK, record_losses=True)


@pytest.mark.parametrize(
    ("attack", "gradients"),
    [
        (FREE, 54),
        (ATTACK, 15),
        (dataclasses.replace(ATTACK, budget=5), 9),
        (dataclasses.replace(ATTACK, budget=1000), 54),
        (dataclasses.replace(ATTACK, restarts=2), 6),
        (strong_attack(0.3), 450),
        (dataclasses.replace(strong_attack(0.3), budget=0), 1800),
    ],
)
def test_what_an_image_costs(attack: Attack, gradients: int) -> None:
    assert attack.gradients == gradients
