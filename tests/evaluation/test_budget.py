"""A budget shares out restarts: who gets them follows from the first ones alone, exactly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from alp_repro.attacks import PGD, Attack, strong_attack
from alp_repro.attacks.pgd import BUDGET_ROUNDS, SEARCH_RESTART
from alp_repro.attacks.search import SEARCH_BATCH, search_attack
from alp_repro.errors import InputError
from alp_repro.evaluation import AttackRecord, Progress, evaluate
from alp_repro.evaluation.record_file import load_record, save_record

FIRST, SECOND, RESTARTS = BUDGET_ROUNDS
FREE = PGD(eps=0.05, eps_iter=0.02, nb_iter=3, restarts=RESTARTS)
ATTACK = dataclasses.replace(FREE, budget=15)
SEARCHING = dataclasses.replace(FREE, search=50)
SHOWN = ("first_break", "next_restart", "closest")


@pytest.fixture(scope="module", params=[FREE, SEARCHING], ids=["gradients", "and a search"])
def unbounded(request: pytest.FixtureRequest) -> Attack:
    return request.param


@pytest.fixture(scope="module", params=["second", "last"])
def attack(unbounded: Attack, request: pytest.FixtureRequest) -> Attack:
    """The same under a budget that binds in this round."""
    budgets = {"second": 12, "last": 20} if unbounded.search else {"second": 8, "last": 15}
    return dataclasses.replace(unbounded, budget=budgets[request.param])


@pytest.fixture(scope="module")
def free(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, unbounded: Attack
) -> AttackRecord:
    """Every restart of every image."""
    return evaluate(model, images, labels, attack=unbounded, record_losses=True, batch_size=16)


@pytest.fixture(scope="module")
def bounded(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, attack: Attack
) -> AttackRecord:
    return evaluate(model, images, labels, attack=attack, batch_size=16)


def test_the_search_is_square_and_leaves_the_other_restarts_as_they_are(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    options: dict[str, Any] = {"record_losses": True, "batch_size": SEARCH_BATCH}
    found = evaluate(model, images, labels, attack=SEARCHING, **options)
    free = evaluate(model, images, labels, attack=FREE, **options)
    square = dataclasses.replace(search_attack(SEARCHING), restarts=SECOND)
    searched = evaluate(model, images, labels, attack=square, **options)
    assert found.losses is not None and free.losses is not None and searched.losses is not None
    np.testing.assert_array_equal(
        found.losses[:, SEARCH_RESTART], searched.losses[:, SEARCH_RESTART]
    )
    same = np.flatnonzero((found.losses == free.losses).all(axis=0))
    assert set(same) == set(range(RESTARTS)) - {SEARCH_RESTART}


def naive_allowance(free: AttackRecord, attack: Attack) -> np.ndarray:
    """What each image may see, told image by image from what all restarts would have done."""
    assert free.losses is not None
    costs = [attack.nb_iter] * RESTARTS
    if attack.search:
        costs[SEARCH_RESTART] = attack.search // 2
    broke = np.where(free.first_break < 0, RESTARTS, free.first_break)
    left = attack.budget * len(broke)
    left -= sum(sum(costs[: min(int(b) + 1, FIRST)]) for b in broke)
    allowed = np.full(len(broke), FIRST)
    closest = np.argsort(-free.losses[:, :FIRST].max(axis=1), kind="stable")
    going_on = [int(i) for i in closest if broke[i] >= FIRST]
    for begin, end in ((FIRST, SECOND), (SECOND, RESTARTS)):
        chosen = []
        for i in going_on:
            if sum(costs[begin:end]) > left:
                break
            left -= sum(costs[begin : min(int(broke[i]) + 1, end)])
            allowed[i] = end
            chosen.append(i)
        going_on = [i for i in chosen if broke[i] >= end]
    return allowed


def test_the_images_that_came_closest_go_on_as_far_as_the_budget_goes(
    free: AttackRecord, bounded: AttackRecord, attack: Attack
) -> None:
    assert free.losses is not None
    allowed = naive_allowance(free, attack)
    assert FIRST in allowed and np.sum(allowed > FIRST) >= 2, "or this shows nothing"
    expected = np.where(free.first_break < allowed, free.first_break, -1)
    np.testing.assert_array_equal(bounded.first_break, expected)
    stands = expected < 0
    np.testing.assert_array_equal(bounded.next_restart[stands], allowed[stands])
    assert np.any(bounded.first_break >= FIRST), "a further restart should break something"
    assert bounded.gradients_spent(attack.restarts).mean() <= attack.budget
    assert bounded.robust_at(attack.restarts) == stands.sum()
    assert bounded.complete_to(attack.restarts)
    assert f"after {allowed[stands].max()} restarts" in repr(bounded)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_and_the_order_of_the_images_change_nothing(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    bounded: AttackRecord,
    attack: Attack,
    batch_size: int,
) -> None:
    found = evaluate(model, images, labels, attack=attack, batch_size=batch_size)
    np.testing.assert_array_equal(found.first_break, bounded.first_break)
    spent = [record.restarts_spent(attack.restarts) for record in (found, bounded)]
    np.testing.assert_array_equal(*spent)


def test_stopped_after_any_batch_it_ends_the_same(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    bounded: AttackRecord,
    attack: Attack,
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"attack": attack, "batch_size": 16, "folder": tmp_path}
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
    attack: Attack,
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"batch_size": 16, "folder": tmp_path}
    for restarts in (1, FIRST, FIRST + 2, SEARCH_RESTART, SECOND, RESTARTS):
        fewer = dataclasses.replace(attack, restarts=restarts)
        found = evaluate(model, images, labels, attack=fewer, **options)
        assert found.complete_to(restarts)
        assert found.robust_at(restarts) == bounded.robust_at(restarts)
    np.testing.assert_array_equal(found.first_break, bounded.first_break)
    assert len(list(tmp_path.glob("*.npz"))) == 1


def test_a_large_budget_is_none_and_a_small_one_stops_after_the_first(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    free: AttackRecord,
    attack: Attack,
) -> None:
    ample = dataclasses.replace(attack, budget=attack.nb_iter * RESTARTS + attack.search)
    found = evaluate(model, images, labels, attack=ample, batch_size=16)
    np.testing.assert_array_equal(found.first_break, free.first_break)
    none_left = dataclasses.replace(attack, budget=1)
    found = evaluate(model, images, labels, attack=none_left, batch_size=16)
    assert found.next_restart.max() == FIRST and found.complete_to(attack.restarts)
    first = np.where(free.first_break < FIRST, free.first_break, -1)
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
    with pytest.raises(InputError, match=f"at most {RESTARTS} restarts"):
        dataclasses.replace(ATTACK, restarts=RESTARTS + 1)
    with pytest.raises(InputError, match=r"attack search -1: 0 .none. or a count"):
        dataclasses.replace(FREE, search=-1)
    with pytest.raises(InputError, match=r"record_losses.*budget=0 works"):
        evaluate(model, images, labels, attack=ATTACK, record_losses=True)


@pytest.mark.parametrize(
    ("attack", "gradients"),
    [
        (FREE, 57),
        (ATTACK, 15),
        (dataclasses.replace(ATTACK, budget=5), 6),
        (dataclasses.replace(ATTACK, budget=1000), 57),
        (dataclasses.replace(ATTACK, restarts=2), 6),
        (strong_attack(0.3), 450),
        (SEARCHING, 54 + 25),
        (dataclasses.replace(SEARCHING, restarts=SEARCH_RESTART), 18),
        (dataclasses.replace(strong_attack(0.3), budget=0), 1800 + 2500),
    ],
)
def test_what_an_image_costs(attack: Attack, gradients: int) -> None:
    assert attack.gradients == gradients
