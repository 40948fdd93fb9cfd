"""Computes the batches of an evaluation on the workers of a cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro.attacks.batches import BatchOutcome, Execution
from alp_repro.evaluation.heat_maps import StepSize
from alp_repro.evaluation.restarts import AttackJob, Executor, ItemBatch
from alp_repro.tasks.plans import AttackBlock, ModelFile, ModelPlan, attack_plan
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
        plan = attack_plan(work)

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
        execution: Execution,
        **setting: Any,
    ) -> Iterator[np.ndarray]:
        execution = Execution(batch_size=execution.batch_size)
        make = functools.partial(
            StepSize, images=images, labels=labels, execution=execution, **setting
        )
        plan = ModelPlan(ModelFile.of(model), make)
        sizes = iter(eps_iters.tolist())
        early: dict[int, np.ndarray] = {}
        yielded = 0
        for number, column in workers.results(plan, lambda: next(sizes, None), idle=lambda: None):
            early[number] = column
            while yielded in early:
                yield early.pop(yielded)
                yielded += 1

    return run_columns
