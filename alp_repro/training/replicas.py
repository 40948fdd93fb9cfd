"""Helpers for trainings with several replicas or machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Return whether this process writes: the only one of a training, or the chief of several."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type or resolver.task_type == "chief":
        return True
    first = resolver.task_type == "worker" and resolver.task_id == 0
    return first and "chief" not in resolver.cluster_spec().jobs


def spans_machines(strategy: tf.distribute.Strategy) -> bool:
    """Return whether the replicas of a strategy are on several machines."""
    replicas = strategy.num_replicas_in_sync
    return replicas > 1 and replicas > len(strategy.extended.worker_devices)


def replica_slice(draw: Any, images: tf.Tensor) -> tf.Tensor:
    """Draw for the whole batch and return this replica's rows, so that replicas do not matter."""
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas == 1:
        return draw(tf.shape(images))
    rows = tf.shape(images)[0]
    context = tf.distribute.get_replica_context()
    everything = draw(tf.concat([[rows * replicas], tf.shape(images)[1:]], axis=0))
    return everything[context.replica_id_in_sync_group * rows :][:rows]
