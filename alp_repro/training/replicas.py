"""What a training with several replicas or machines must know of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this is the only process of a training, or the one of several that writes."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type or resolver.task_type == "chief":
        return True
    first = resolver.task_type == "worker" and resolver.task_id == 0
    return first and "chief" not in resolver.cluster_spec().jobs


def spans_machines(strategy: tf.distribute.Strategy) -> bool:
    """Whether the replicas of a strategy are on several machines."""
    replicas = strategy.num_replicas_in_sync
    return replicas > 1 and replicas > len(strategy.extended.worker_devices)


def replica_slice(draw: Any, images: tf.Tensor) -> tf.Tensor:
    """This replica's rows of what the whole batch draws, so that replicas change no result."""
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas == 1:
        return draw(tf.shape(images))
    rows = tf.shape(images)[0]
    context = tf.distribute.get_replica_context()
    everything = draw(tf.concat([[rows * replicas], tf.shape(images)[1:]], axis=0))
    return everything[context.replica_id_in_sync_group * rows :][:rows]
