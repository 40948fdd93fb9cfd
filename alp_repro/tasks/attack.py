"""Computes the batches of an evaluation on the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from alp_repro.attacks import PGD
from alp_repro.attacks.batches import BatchOutcome, Execution
from alp_repro.evaluation.restarts import AttackJob, Executor, ItemBatch
from alp_repro.tasks.plans import AttackBlock, AttackPlan, MapPlan, ModelFile
from alp_repro.tasks.workers import Workers

if TYPE_CHECKING:
    import keras


def batches_on_workers(workers: Workers, *, idle: Callable[[], None] = lambda: None) -> Executor:
    """Return an `executor` for `evaluation.evaluate` that computes the batches on a cluster.

    A block is one batch: some images at one restart or, once few images are left, several restarts
    of each. Batches have the same shape as in one process, an item's outcome depends on nothing
    else, and the record takes outcomes in the order of restarts; so it equals that of one process,
    whatever the number of workers. (Workers compute ahead; outcomes after the restart that broke
    an image are dropped.)
    """

    def executor(
        work: AttackJob, next_items: Callable[[], ItemBatch | None]
    ) -> Iterator[tuple[int, BatchOutcome]]:
        plan = AttackPlan(
            ModelFile.of(work.model),
            work.images,
            work.labels,
            work.attack,
            work.seed,
            work.execution.batch_size,
            keep_adversarial=work.keep_adversarial,
        )

        def next_block() -> AttackBlock | None:
            items = next_items()
            return None if items is None else (items.image, items.restart)

        return workers.results(plan, next_block, idle=idle)

    return executor


def columns_on_workers(workers: Workers) -> Callable[..., Iterator[np.ndarray]]:
    """Return a `run_columns` for `heat_map` that uses a cluster; a block is a step size."""

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
        for number, column in workers.results(plan, lambda: next(sizes, None), idle=lambda: None):
            early[number] = column
            while yielded in early:
                yield early.pop(yielded)
                yielded += 1

    return run_columns
