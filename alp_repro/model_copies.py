"""Copies of a model that compute in another dtype, and a model as a function to logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import keras
import tensorflow as tf

from alp_repro.dtypes import Dtype
from alp_repro.errors import InputError

LogitsFunction = Callable[[tf.Tensor], tf.Tensor]


def logits_function(model: keras.Model, *, training: bool = False) -> LogitsFunction:
    """Float32 images to float32 logits, whatever the model computes in.

    Args:
      model: maps images to logits.
      training: True lets batch norm use the batch's statistics; its moving averages then change
        unless the model is a `crafting_copy`.
    """

    def logits(images: tf.Tensor) -> tf.Tensor:
        outputs = model(tf.cast(images, model.compute_dtype), training=training)
        return tf.cast(outputs, tf.float32)

    return logits


def crafting_copy(model: keras.Model, dtype: Dtype | Literal["mixed_bfloat16"]) -> keras.Model:
    """A copy of a model that computes in another dtype, with weights of its own in that dtype.

    Weights in the crafting dtype, rather than mixed precision, spare a cast of every weight in each
    step; `copy_weights` brings them up to date.

    Raises:
      InputError: the model is neither functional nor sequential, so that it cannot be cloned.
    """

    def copied(layer: keras.Operation) -> keras.Operation:
        # What stands between layers, as in `inputs * 255`, has no dtype of its own.
        own = {"dtype": dtype} if isinstance(layer, keras.layers.Layer) else {}
        return layer.__class__.from_config({**layer.get_config(), **own})

    policy = keras.config.dtype_policy()
    # A model takes the policy that is set when it is built, and casts its input to it.
    keras.config.set_dtype_policy(dtype)
    try:
        copy = keras.models.clone_model(model, clone_function=copied, recursive=True)
    except ValueError as error:
        raise InputError(
            f"the model {model.name!r} cannot be copied in {dtype} ({error}): craft in float32, or "
            "give a functional or Sequential model"
        ) from error
    finally:
        keras.config.set_dtype_policy(policy)
    return copy


def float32_copy(model: keras.Model) -> keras.Model:
    """A copy of a model that computes in float32, with the same weights."""
    copy = crafting_copy(model, "float32")
    copy.set_weights(model.get_weights())
    return copy


def copy_weights(source: keras.Model, destination: keras.Model) -> None:
    """Assigns every weight of one model to its `crafting_copy`, cast to the copy's dtype."""
    for theirs, ours in zip(source.weights, destination.weights, strict=True):
        ours.assign(tf.cast(theirs.value, ours.dtype))


def float32_model(model: keras.Model) -> keras.Model:
    """The model itself, or a float32 copy of one that computes in another dtype."""
    if _computes_in_float32(model):
        return model
    return float32_copy(model)


def _computes_in_float32(layer: keras.Layer) -> bool:
    """Whether a layer does, and every layer in it: a model's own dtype says nothing of theirs."""
    inner = getattr(layer, "layers", ())
    return layer.compute_dtype == "float32" and all(_computes_in_float32(one) for one in inner)
