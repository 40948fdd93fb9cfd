"""Copies of a model that compute in another dtype, and a model as a function to logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from alp_repro.errors import InputError, exits_refused, one_line
from alp_repro.models.probes import full_float32, probe_images, rounding_explains
from alp_repro.system import kernels, machine
from alp_repro.system.dtypes import Dtype

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

LogitsFunction = Callable[["tf.Tensor"], "tf.Tensor"]

_ANY_SIDE = 64  # of the images on which a model for images of any size is compared


def logits_function(model: keras.Model, *, training: bool = False) -> LogitsFunction:
    """Float32 images to float32 logits, whatever the model computes in.

    Args:
      model: maps images to logits.
      training: True lets batch norm use the batch's statistics; its moving averages then change
        unless the model is a `crafting_copy`.
    """
    import tensorflow as tf

    def logits(images: tf.Tensor) -> tf.Tensor:
        with exits_refused("the model"):
            outputs = model(tf.cast(images, model.compute_dtype), training=training)
        return tf.cast(outputs, tf.float32)

    return logits


def crafting_copy(model: keras.Model, dtype: Dtype | Literal["mixed_bfloat16"]) -> keras.Model:
    """A copy of a model that computes in another dtype, with the same weights, in that dtype.

    Weights in the crafting dtype, rather than mixed precision, spare a cast of every weight in each
    step; `copy_weights` brings them up to date.

    Raises:
      InputError: the model cannot be copied, or its copy is another function.
    """
    import keras

    if dtype != "float32" and kernels.lack_bfloat16():
        raise InputError(
            f"the model {model.name!r} cannot be copied in {dtype}: ONEDNN_MAX_CPU_ISA keeps "
            "oneDNN from the instructions that TensorFlow asks for; unset it, or use float32"
        )

    def copied(layer: keras.Operation) -> keras.Operation:
        # What stands between layers, as in `inputs * 255`, has no dtype of its own.
        own = {"dtype": dtype} if isinstance(layer, keras.layers.Layer) else {}
        return layer.__class__.from_config({**layer.get_config(), **own})

    policy = keras.config.dtype_policy()
    # A model takes the policy that is set when it is built, and casts its input to it.
    keras.config.set_dtype_policy(dtype)
    try:
        copy = keras.models.clone_model(model, clone_function=copied, recursive=True)
        copy_weights(model, copy)
    except Exception as error:  # Keras and the user's layers raise errors of many kinds
        raise InputError(
            f"the model {model.name!r} cannot be copied in {dtype} ({one_line(error)}): "
            + _way_out(model, dtype)
        ) from error
    finally:
        keras.config.set_dtype_policy(policy)
    check_copy(copy, model, dtype)
    return copy


def check_copy(copy: keras.Model, model: keras.Model, dtype: str) -> None:
    """Refuses a copy that gives other logits on fixed images than rounding explains.

    Raises:
      InputError: it does, or there is no kernel of the copy's dtype on this machine.
    """
    import tensorflow as tf

    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        return  # no model of images, as whoever evaluates or trains it will say
    images = tf.constant(probe_images(tuple(side or _ANY_SIDE for side in shape[1:])))
    with full_float32():
        expected = logits_function(model)(images)
        try:
            found = logits_function(copy)(images)
        except tf.errors.OpError as error:
            raise InputError(
                f"this machine ({machine.describe()}) cannot compute {model.name!r} in {dtype} "
                f"({one_line(error)}): float32 is right here, and what `auto` is"
            ) from error
    exact = dtype == "float32" and computes_in_float32(model)
    rounding = "float32" if exact else "bfloat16"
    if not rounding_explains(found.numpy(), expected.numpy(), dtype=rounding):
        raise InputError(
            f"the copy of the model {model.name!r} in {dtype} gives other logits than the model: a "
            f"layer has state that a copy does not take over; {_way_out(model, dtype)}"
        )


def _way_out(model: keras.Model, dtype: str) -> str:
    """What to do about a model that has no copy: it depends on what the copy is for."""
    if dtype != "float32":
        return "craft or train in float32, or give a functional or Sequential model"
    if not computes_in_float32(model):
        return "build it with the dtype policy float32, in which verdicts are given"
    return "work on one device, without a strategy, or give a functional or Sequential model"


def float32_copy(model: keras.Model) -> keras.Model:
    """A copy of a model that computes in float32, with the same weights."""
    return crafting_copy(model, "float32")


def copy_weights(source: keras.Model, destination: keras.Model) -> None:
    """Assigns every weight of one model to its `crafting_copy`, cast to the copy's dtype."""
    import tensorflow as tf

    for theirs, ours in zip(source.weights, destination.weights, strict=True):
        ours.assign(tf.cast(theirs.value, ours.dtype))
    if tf.executing_eagerly():
        _refresh(destination)


def _refresh(layer: keras.Layer) -> None:
    """Has each adapted `Normalization` take its mean and variance from its weights."""
    import keras

    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()
    for inner in getattr(layer, "layers", ()):
        _refresh(inner)


def float32_model(model: keras.Model) -> keras.Model:
    """The model itself, or a float32 copy of one that computes in another dtype."""
    if computes_in_float32(model):
        return model
    return float32_copy(model)


def computes_in_float32(layer: keras.Layer) -> bool:
    """Whether a layer does, and every layer in it: a model's own dtype says nothing of theirs."""
    inner = getattr(layer, "layers", ())
    return layer.compute_dtype == "float32" and all(computes_in_float32(one) for one in inner)
