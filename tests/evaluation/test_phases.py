"""A budget shares out restarts: who gets them follows from the first ones alone, exactly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from alp_repro.attacks import PGD, Ensemble, Phase, Square, attack_named, strong_attack
from alp_repro.errors import InputError
from alp_repro.evaluation import AttackRecord, Progress, evaluate
from alp_repro.evaluation.record_file import load_record, save_record
from tests.evaluation.naive_budget import allowance
from tests.marks import slow_unless

FIRST, SECOND, RESTARTS = 2, 7, 19
SHOWN = ("first_break", "next_restart", "best_early_loss")
SMALL = 16  # items in a batch of the search
NB_ITER, QUERIES = 3, 50


def runs(restarts: int) -> PGD:
    return PGD(eps=0.05, eps_iter=0.02, nb_iter=NB_ITER, restarts=restarts)


def phases(budget: int, *, search: bool) -> Ensemble:
    """Two runs of every image, five of those that came closest, twelve of the closest of these."""
    if search:
        square = Phase(Square(eps=0.05, nb_iter=QUERIES), on="same", batch_size=SMALL)
        again = Phase(runs(SECOND - FIRST - 1), on="closest", budget=budget, first=FIRST)
        second: tuple[Phase, ...] = (again, square)
    else:
        second = (Phase(runs(SECOND - FIRST), on="closest", budget=budget, first=FIRST),)
    last = Phase(runs(RESTARTS - SECOND), on="closest", budget=budget, first=SECOND)
    return Ensemble("phases", (Phase(runs(FIRST)), *second, last))


@pytest.fixture(scope="module", params=[False, True], ids=["gradients", "and a search"])
def search(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module", params=slow_unless(["last"], ["second", "last"]))
def attack(search: bool, request: pytest.FixtureRequest) -> Ensemble:
    """Under a budget that binds in this round."""
    budgets = {"second": 12, "last": 20} if search else {"second": 8, "last": 15}
    return phases(budgets[request.param], search=search)


@pytest.fixture(scope="module")
def free(model: keras.Model, images: np.ndarray, labels: np.ndarray, search: bool) -> AttackRecord:
    """Every restart of every image."""
    unbounded = phases(1, search=search).without_budget()
    return evaluate(model, images, labels, attack=unbounded, record_losses=True, batch_size=16)


@pytest.fixture(scope="module")
def bounded(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, attack: Ensemble
) -> AttackRecord:
    return evaluate(model, images, labels, attack=attack, batch_size=16)


def test_a_phase_is_its_attack_and_leaves_the_other_runs_as_they_are(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    options: dict[str, Any] = {"record_losses": True, "batch_size": SMALL}
    found, plain = (
        evaluate(model, images, labels, attack=one, **options)
        for one in (phases(1, search=True).without_budget(), runs(RESTARTS))
    )
    square = Square(eps=0.05, nb_iter=QUERIES)  # it counts its own restarts
    searched = evaluate(model, images, labels, attack=square, **options)
    assert found.losses is not None and plain.losses is not None and searched.losses is not None
    np.testing.assert_array_equal(found.losses[:, SECOND - 1], searched.losses[:, 0])
    same = np.flatnonzero((found.losses == plain.losses).all(axis=0))
    assert set(same) == set(range(RESTARTS)) - {SECOND - 1}


def test_a_later_phase_does_what_its_attack_alone_does_to_what_is_left(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    pgd = PGD(eps=0.05, eps_iter=0.005, nb_iter=1)  # which leaves something to find
    square = Square(eps=0.05, nb_iter=4 * QUERIES)
    both = Ensemble("both", (Phase(pgd), Phase(square, seed=3)))
    found = evaluate(model, images, labels, attack=both, batch_size=SMALL)
    first = evaluate(model, images, labels, attack=pgd, batch_size=SMALL)
    left = np.flatnonzero(first.standing)
    options: dict[str, Any] = {"image_index": left, "batch_size": SMALL, "seed": 3}
    second = evaluate(model, images[left], labels[left], attack=square, **options)
    expected = np.where(first.standing, -1, 0)
    expected[left[~second.standing]] = 1
    np.testing.assert_array_equal(found.broken_by, expected)
    assert set(expected) == {-1, 0, 1}
    assert found.attack == both


def test_a_name_and_eps_are_an_attack_or_an_ensemble(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    named = evaluate(model, images, labels, attack="pgd", eps=0.05)
    plain = evaluate(model, images, labels, attack=PGD(eps=0.05, eps_iter=0.0125, nb_iter=40))
    assert named.settings["attack"] == plain.settings["attack"]
    assert attack_named("strong", eps=0.3) == strong_attack(0.3)
    assert attack_named("autoattack", eps=0.3).restarts == 1 + 9 + 9 + 1
    with pytest.raises(InputError, match=r"'pgd': .*eps="):
        evaluate(model, images, labels, attack="pgd")
    with pytest.raises(InputError, match="unknown method 'fgsm'"):
        evaluate(model, images, labels, attack="fgsm", eps=0.05)


def naive_allowance(free: AttackRecord, attack: Ensemble) -> np.ndarray:
    assert free.losses is not None
    costs = [NB_ITER] * RESTARTS
    if any(phase.on == "same" for phase in attack.phases):
        costs[SECOND - 1] = QUERIES // 2
    broke = np.where(free.first_break < 0, RESTARTS, free.first_break)
    return allowance(
        broke,
        free.losses,
        costs,
        budget=attack.phases[1].budget,
        ends=(FIRST, SECOND, RESTARTS),
    )


def test_the_images_that_came_closest_go_on_as_far_as_the_budget_goes(
    free: AttackRecord, bounded: AttackRecord, attack: Ensemble
) -> None:
    assert free.losses is not None
    allowed = naive_allowance(free, attack)
    assert FIRST in allowed and np.sum(allowed > FIRST) >= 2, "or this shows nothing"
    expected = np.where(free.first_break < allowed, free.first_break, -1)
    np.testing.assert_array_equal(bounded.first_break, expected)
    stands = expected < 0
    np.testing.assert_array_equal(bounded.next_restart[stands], allowed[stands])
    assert np.any(bounded.first_break >= FIRST), "a further restart should break something"
    assert bounded.gradients_spent(attack.restarts).mean() <= attack.phases[1].budget
    assert bounded.robust_at(attack.restarts) == stands.sum()
    assert bounded.complete_to(attack.restarts)
    assert f"after {allowed[stands].max()} restarts" in repr(bounded)


@pytest.mark.parametrize("batch_size", slow_unless([7], [1, 7, 64]))
def test_batches_and_the_order_of_the_images_change_nothing(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    bounded: AttackRecord,
    attack: Ensemble,
    batch_size: int,
) -> None:
    found = evaluate(model, images, labels, attack=attack, batch_size=batch_size)
    np.testing.assert_array_equal(found.first_break, bounded.first_break)
    spent = [record.restarts_spent(attack.restarts) for record in (found, bounded)]
    np.testing.assert_array_equal(*spent)


@pytest.mark.slow
def test_stopped_after_any_batch_it_ends_the_same(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    bounded: AttackRecord,
    attack: Ensemble,
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
    attack: Ensemble,
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"batch_size": 16, "folder": tmp_path}
    for restarts in (1, FIRST, FIRST + 2, SECOND - 1, SECOND, RESTARTS):
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
    search: bool,
) -> None:
    found = evaluate(model, images, labels, attack=phases(1000, search=search), batch_size=16)
    np.testing.assert_array_equal(found.first_break, free.first_break)
    none_left = phases(1, search=search)
    found = evaluate(model, images, labels, attack=none_left, batch_size=16)
    assert found.next_restart.max() == FIRST and found.complete_to(none_left.restarts)
    first = np.where(free.first_break < FIRST, free.first_break, -1)
    np.testing.assert_array_equal(found.first_break, first)


def test_a_record_comes_back_and_one_without_its_array_is_refused(
    bounded: AttackRecord, tmp_path: Path
) -> None:
    save_record(tmp_path / "a.npz", bounded)
    found = load_record(tmp_path / "a.npz")
    for name in SHOWN:
        np.testing.assert_array_equal(getattr(found, name), getattr(bounded, name))
    save_record(tmp_path / "b.npz", dataclasses.replace(bounded, best_early_loss=None))
    with pytest.raises(InputError, match=r"array closest .*budget"):
        load_record(tmp_path / "b.npz")
    unknown = np.full(len(bounded.labels), np.nan, np.float32)
    save_record(tmp_path / "c.npz", dataclasses.replace(bounded, best_early_loss=unknown))
    with pytest.raises(InputError, match="closest has entries"):
        load_record(tmp_path / "c.npz")


def test_what_an_ensemble_cannot_be(
    model: keras.Model, images: np.ndarray, labels: np.ndarray
) -> None:
    with pytest.raises(InputError, match=r"budget above 0 .*on=closest"):
        Phase(runs(1), on="closest")
    with pytest.raises(InputError, match=r"one of standing, .*'most'"):
        Phase(runs(1), on="most")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"restarts 20: .* {RESTARTS}"):
        dataclasses.replace(phases(1, search=True), restarts=RESTARTS + 1)
    with pytest.raises(InputError, match="first phase on=standing"):
        Ensemble("none", (Phase(runs(1), on="same"),))
    with pytest.raises(InputError, match="same eps"):
        Ensemble("two", (Phase(runs(1)), Phase(Square(eps=0.1))))
    with pytest.raises(InputError, match="none of them on all images"):
        Ensemble("all", (Phase(runs(1)), Phase(runs(1), on="all")))
    with pytest.raises(InputError, match="of one attack each"):
        Ensemble("nested", (Phase(runs(1)), Phase(phases(1, search=True))))
    with pytest.raises(InputError, match=r"record_losses.*budget"):
        evaluate(model, images, labels, attack=phases(9, search=False), record_losses=True)


@pytest.mark.parametrize(
    ("attack", "gradients"),
    [
        (runs(RESTARTS), 57),
        (phases(15, search=False), 15),
        (phases(5, search=False), 6),
        (phases(1000, search=False), 57),
        (dataclasses.replace(phases(15, search=False), restarts=2), 6),
        (strong_attack(0.3), 450),
        (phases(1, search=True).without_budget(), 54 + 25),
        (dataclasses.replace(phases(1, search=True).without_budget(), restarts=6), 18),
        (strong_attack(0.3).without_budget(), 1800 + 2500),
    ],
    ids=str,
)
def test_what_an_image_costs(attack: PGD | Ensemble, gradients: int) -> None:
    assert attack.gradients == gradients
