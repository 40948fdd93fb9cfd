"""The restart loop of an evaluation, its batches shared by the workers of a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from alp_repro.attacks import PGD, Attack
from alp_repro.attacks.batches import BatchOutcome, Execution
from alp_repro.evaluation import AttackRecord, Progress
from alp_repro.evaluation.restarts import SAVE_SECONDS, Items, WorkList, tell_of_gradients
from alp_repro.tasks.plans import AttackBlock, AttackPlan, MapPlan, ModelFile
from alp_repro.tasks.workers import Workers

if TYPE_CHECKING:
    import keras


def attack_on_workers(
    workers: Workers, *, idle: Callable[[], None] = lambda: None
) -> Callable[..., AttackRecord]:
    """What `evaluation.evaluate` takes as `run_restarts`, to run them on a cluster.

    A block is one batch: a shard of the images at one restart and, once few images stand, several
    restarts of each. Batches have the shape that they have in one process, an item's outcome
    depends on nothing else, and the record takes outcomes in restart order; so it is the record of
    one process whatever the number of workers. (Workers run ahead of what they know; what they did
    to an image past the restart that broke it is not taken in.)
    """

    def run_restarts(
        model: keras.Model,
        images: np.ndarray,
        record: AttackRecord,
        *,
        attack: Attack,
        seed: int,
        execution: Execution,
        save: Callable[[AttackRecord], None] = lambda record: None,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> AttackRecord:
        if record.complete_to(attack.restarts):
            return record
        work = WorkList(model, images, record, attack, None)
        batch_size = execution.no_larger_than(len(images) * attack.restarts).batch_size
        plan = AttackPlan(
            ModelFile.of(model),
            images,
            record.labels,
            attack,
            seed,
            batch_size,
            keep_adversarial=record.adversarial is not None,
        )
        given: list[Items] = []

        def next_block() -> AttackBlock | None:
            items = work.next_items(batch_size)
            if items is None:
                return None
            given.append(items)
            return items.image, items.restart

        started = saved = time.monotonic()
        early: dict[int, BatchOutcome] = {}
        taken = 0
        try:
            for number, outcome in workers.results(plan, next_block, idle=idle):
                work.note_broken(given[number], outcome)
                early[number] = outcome
                while taken in early:
                    work.advance(given[taken], early.pop(taken))
                    taken += 1
                if not taken:
                    continue
                now = time.monotonic()
                report(work.progress(now - started))
                if now - saved > SAVE_SECONDS:
                    save(work.record)
                    saved = time.monotonic()
        finally:
            work.forget_unfinished()
            save(work.record)
        tell_of_gradients(work.record)
        return work.record

    return run_restarts


def columns_on_workers(
    workers: Workers, *, idle: Callable[[], None] = lambda: None
) -> Callable[..., Iterator[np.ndarray]]:
    """What `heat_map` takes as `run_columns`: a block is a step size."""

    def run_columns(
        model: keras.Model,
        images: np.ndarray,
        labels: np.ndarray,
        eps_iters: np.ndarray,
        *,
        attack: PGD,
        counts: Sequence[int],
        seed: int,
        execution: Execution,
    ) -> Iterator[np.ndarray]:
        plan = MapPlan(
            ModelFile.of(model), images, labels, attack, tuple(counts), seed, execution.batch_size
        )
        sizes = iter(eps_iters.tolist())
        early: dict[int, np.ndarray] = {}
        yielded = 0
        for number, column in workers.results(plan, lambda: next(sizes, None), idle=idle):
            early[number] = column
            while yielded in early:
                yield early.pop(yielded)
                yielded += 1

    return run_columns
