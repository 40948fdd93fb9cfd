"""The order of the training set in each epoch."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from alp_repro.data.images import Images
from alp_repro.errors import InputError
from alp_repro.training.augmentation import augment_batch
from alp_repro.training.inputs import unit_scale
from alp_repro.training.recipe import Recipe
from alp_repro.training.seeds import AUGMENT, ORDER, step_seed


class EpochOrder(keras.callbacks.Callback):
    """The training set in an order that depends only on (seed, epoch).

    The data set reads the epoch when Keras begins to iterate over it, so a resumed training has the
    same order as one that was not interrupted.
    """

    def __init__(self, data: Images, recipe: Recipe, *, replicas: int = 1) -> None:
        """Store uint8 images and labels, once in memory.

        With several replicas, each with `recipe.virtual_replicas`, all take an equal share of every
        batch; the few images of an epoch's partial batch that do not divide are left out.

        Raises:
          InputError: the batch size is not a multiple of the replicas.
        """
        super().__init__()
        shares = replicas * recipe.virtual_replicas
        if recipe.batch_size % shares:
            raise InputError(
                f"batch_size {recipe.batch_size}: expected a multiple of {shares}, the number of "
                "replicas that share a batch"
            )
        self._epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._images = tf.constant(data.images)
        self._labels = tf.constant(data.labels, tf.int32)
        self._recipe = recipe
        self._count = len(data.labels) - len(data.labels) % recipe.batch_size % shares

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Switch to the order of this epoch."""
        self._epoch.assign(epoch)

    @property
    def steps(self) -> int:
        """The number of batches in an epoch."""
        return -(-self._count // self._recipe.batch_size)

    def dataset(self) -> tf.data.Dataset:
        """Return the batches (images, labels) of the current epoch; the last may be partial."""
        return (
            tf.data.Dataset.from_tensors(0)
            .flat_map(lambda _: self._batches(self._epoch))
            .apply(tf.data.experimental.assert_cardinality(self.steps))
            .prefetch(2)
            .with_options(_fixed())
        )

    def shares(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """Return this machine's shares of the batches of all epochs from the current one on.

        For `distribute_datasets_from_function`: the replicas here take them in turn. Every machine
        makes the whole batch, so that augmentation draws the same numbers as on one device.
        """
        replicas = context.num_replicas_in_sync
        local = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local

        def split(*batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
            shapes = (tf.concat([[replicas, -1], tf.shape(part)[1:]], axis=0) for part in batch)
            shares = map(tf.reshape, batch, shapes)
            return tuple(share[first : first + local] for share in shares)

        return (
            tf.data.Dataset.from_tensors(0)
            .flat_map(lambda _: tf.data.Dataset.range(self._epoch, tf.int64.max))
            .flat_map(self._batches)
            .map(split)
            .unbatch()
            # Keras counts the steps, so TensorFlow need not check all replicas for the end.
            .apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
            .prefetch(2)
            .with_options(_fixed())
        )

    def _batches(self, epoch: tf.Tensor) -> tf.data.Dataset:
        def gather(position: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            images = tf.gather(self._images, indices)
            if self._recipe.augment:
                seed = step_seed(self._recipe.seed, AUGMENT, epoch * self.steps + position)
                images = augment_batch(unit_scale(images), seed=seed)
            return images, tf.gather(self._labels, indices)

        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(self._labels)), step_seed(self._recipe.seed, ORDER, epoch), alg="philox"
        )
        batches = tf.data.Dataset.from_tensor_slices(order[: self._count])
        batches = batches.batch(self._recipe.batch_size).enumerate()
        return batches.map(gather, num_parallel_calls=2)


def _fixed() -> tf.data.Options:
    """Return options without autotuning, since there is nothing to tune.

    Its thread sleeps for up to a minute at a time, and the end of a training waited for it.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def first_images(data: Images, count: int | None) -> Images:
    """Return the first `count` images of a training set (None: all); InputError if it has fewer."""
    if count is None:
        return data
    if count > len(data.labels):
        raise InputError(
            f"train_images {count}: expected at most {len(data.labels)}, the training set's size"
        )
    return Images(data.images[:count], data.labels[:count], data.indices[:count], data.source)
