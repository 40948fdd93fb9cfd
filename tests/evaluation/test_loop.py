"""The loop over (image, run) items with outcomes that are made up: who gets what, in any order."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from alp_repro.attacks import PGD, Ensemble, Phase, Square
from alp_repro.attacks.batches import BatchOutcome, Execution
from alp_repro.evaluation import AttackRecord
from alp_repro.evaluation.record import new_record
from alp_repro.evaluation.restarts import AttackJob, ItemBatch, attack_with_restarts
from alp_repro.evaluation.store import attack_settings
from tests.evaluation.naive_budget import allowance

IMAGES, FIRST, SECOND, RUNS = 60, 2, 7, 19
_generator = np.random.default_rng(0)
BREAKS = _generator.uniform(size=(IMAGES, RUNS)) < _generator.uniform(0, 0.25, (IMAGES, 1))
LOSSES = _generator.normal(5, 1, (IMAGES, RUNS)).astype(np.float32)
COSTS = [3] * (SECOND - 1) + [25] + [3] * (RUNS - SECOND)
BROKE = np.where(BREAKS.any(axis=1), BREAKS.argmax(axis=1), RUNS)

NextItems = Callable[[], ItemBatch | None]
Outcomes = Iterator[tuple[int, BatchOutcome]]


def outcome(items: ItemBatch) -> BatchOutcome:
    image, run, n = items.image, items.restart, len(items.image)
    none, finite = np.zeros((n, 0), np.float32), np.ones(n, bool)
    return BatchOutcome(BREAKS[image, run], LOSSES[image, run], none, finite, np.zeros(n, np.int32))


def one_by_one(work: AttackJob, next_items: NextItems) -> Outcomes:
    for number in itertools.count():
        items = next_items()
        if items is None:
            return
        (place,) = {*work.attack.phase_at(items.restart)}
        phase = work.attack.phases[place]
        own = work.attack.restarts_of(place, items.restart) - phase.first
        assert own.min() >= 0 and own.max() < phase.attack.restarts
        assert phase.batch_size is None or len(items.image) == phase.batch_size
        yield number, outcome(items)


def ahead_in_any_order(work: AttackJob, next_items: NextItems) -> Outcomes:
    """Three batches are out at a time, as on three workers."""
    out: list[tuple[int, ItemBatch]] = []
    numbers, order = itertools.count(), np.random.default_rng(1)
    while True:
        while len(out) < 3 and (items := next_items()) is not None:
            out.append((next(numbers), items))
        if not out:
            return
        number, items = out.pop(int(order.integers(len(out))))
        yield number, outcome(items)


def pgd(restarts: int) -> PGD:
    return PGD(eps=0.05, eps_iter=0.02, nb_iter=3, restarts=restarts)


def phases(budget: int) -> Ensemble:
    square = Phase(Square(eps=0.05, nb_iter=50), on="same", batch_size=16)
    second = Phase(pgd(SECOND - FIRST - 1), on="closest", budget=budget, first=FIRST)
    last = Phase(pgd(RUNS - SECOND), on="closest", budget=budget)
    return Ensemble("phases", (Phase(pgd(FIRST)), second, square, last))


def attacked(
    attack: Ensemble, *, batch_size: int = 16, record: AttackRecord | None = None, **options: Any
) -> AttackRecord:
    zeros = np.zeros(IMAGES, np.int32)
    fresh = new_record(
        labels=zeros,
        indices=np.arange(IMAGES),
        clean_predictions=zeros,
        settings={"attack": attack_settings(attack)},
    )
    return attack_with_restarts(
        None,  # type: ignore[arg-type]
        np.zeros((IMAGES, 4, 4, 1), np.float32),
        record or fresh,
        attack=attack,
        seed=0,
        execution=Execution(batch_size=batch_size),
        **{"executor": one_by_one, **options},
    )


def naive_allowance(budget: int) -> np.ndarray:
    return allowance(BROKE, LOSSES, COSTS, budget=budget, ends=(FIRST, SECOND, RUNS))


@pytest.mark.parametrize("budget", [8, 12, 20, 30, 1000])
def test_a_budget_goes_to_the_closest_whatever_computes_the_batches(budget: int) -> None:
    allowed = naive_allowance(budget)
    expected = np.where(allowed > BROKE, BROKE, -1)
    for executor, batch_size in itertools.product((one_by_one, ahead_in_any_order), (7, 64)):
        found = attacked(phases(budget), batch_size=batch_size, executor=executor)
        np.testing.assert_array_equal(found.first_break, expected)
        stands = expected < 0
        np.testing.assert_array_equal(found.next_restart[stands], allowed[stands])
        assert found.gradients_spent(RUNS).mean() <= budget and not found.waiting


def test_stopped_after_any_batch_it_ends_the_same() -> None:
    expected, kept, stops = attacked(phases(20)), None, 0

    def save(record: AttackRecord) -> None:
        nonlocal kept
        kept = record

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    while True:
        options = {"record": kept, "save": save, "report": stop, "executor": ahead_in_any_order}
        try:
            found = attacked(phases(20), **options)  # type: ignore[arg-type]
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 3
    for name in ("first_break", "next_restart", "best_early_loss"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_fewer_runs_first_and_more_later_change_nothing() -> None:
    expected, found = attacked(phases(20)), None
    for runs in (1, FIRST, FIRST + 2, SECOND - 1, SECOND, RUNS):
        found = attacked(dataclasses.replace(phases(20), restarts=runs), record=found)
        assert found.complete_to(runs) and found.robust_at(runs) == expected.robust_at(runs)
    np.testing.assert_array_equal(found.first_break, expected.first_break)


def test_it_is_known_which_phase_broke_an_image() -> None:
    found = attacked(phases(1000))
    runs = np.where(found.standing, -1, np.searchsorted([2, 6, 7], found.first_break, side="right"))
    np.testing.assert_array_equal(found.broken_by, runs)
    assert set(found.broken_by) == {-1, 0, 1, 2, 3}
