"""Batches for a compiled program: padded to its size, and split over replicas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from alp_repro.attacks.batches import WorkItems

# A batch and the attack's sizes to arrays with one entry per item.
BatchFunction = Callable[[WorkItems, Any], list[np.ndarray]]


def padded(run: BatchFunction, *, items: int, rows: int) -> BatchFunction:
    """Return a program for batches of `items` that pads them to the `rows` of a given one."""
    if rows == items:
        return run

    def with_filler(batch: WorkItems, sizes: Any) -> list[np.ndarray]:
        filler = np.zeros(rows - items, np.int64)
        whole = WorkItems(*(np.concatenate([value, value[filler]]) for value in batch))
        return [value[:items] for value in run(whole, sizes)]

    return with_filler


def on_replicas(program: Any, strategy: tf.distribute.Strategy) -> BatchFunction:
    """Return a program that splits inputs over the replicas and joins their results in order."""

    @tf.function(autograph=False)
    def everywhere(items: WorkItems, sizes: Any) -> tuple[Any, ...]:
        # In a plain function: `run` would bind the signature to all replicas' values at once.
        return strategy.run(lambda *share: program(WorkItems(*share), sizes), args=tuple(items))

    def distributed(items: WorkItems, sizes: Any) -> list[np.ndarray]:
        shares = [np.split(value, strategy.num_replicas_in_sync) for value in items]
        values = [
            strategy.experimental_distribute_values_from_function(
                lambda context, share=share: tf.constant(share[context.replica_id_in_sync_group])
            )
            for share in shares
        ]
        results = everywhere(WorkItems(*values), [tf.constant(size) for size in sizes])
        return [
            np.concatenate([v.numpy() for v in strategy.experimental_local_results(result)])
            for result in results
        ]

    return distributed
