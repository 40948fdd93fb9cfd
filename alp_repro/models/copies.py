"""Copies of a model that compute in another dtype, and its function from images to logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from alp_repro.errors import InputError, one_line, sys_exit_refused
from alp_repro.models.probes import full_float32, probe_images, rounding_explains
from alp_repro.system import kernels, machine
from alp_repro.system.dtypes import Dtype

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

LogitsFunction = Callable[["tf.Tensor"], "tf.Tensor"]

_ANY_SIDE = 64  # side of the images to compare a model on that takes images of any size


def logits_function(model: keras.Model, *, training: bool = False) -> LogitsFunction:
    """Return the function from float32 images to float32 logits, whatever the model's dtype.

    Args:
      model: maps images to logits.
      training: use the batch's statistics in batch norm; its moving averages then change, unless
        the model is a `copy_in_dtype`.
    """
    import tensorflow as tf

    def logits(images: tf.Tensor) -> tf.Tensor:
        with sys_exit_refused("the model"):
            outputs = model(tf.cast(images, model.compute_dtype), training=training)
        return tf.cast(outputs, tf.float32)

    return logits


def copy_in_dtype(model: keras.Model, dtype: Dtype | Literal["mixed_bfloat16"]) -> keras.Model:
    """Return a copy of a model that computes in another dtype and has its weights in that dtype.

    Unlike mixed precision, this needs no cast of every weight in each step; `copy_weights` updates
    the copy.

    Raises:
      InputError: the model cannot be copied, or its copy computes something else.
    """
    import keras

    if dtype != "float32" and kernels.lack_bfloat16():
        raise InputError(
            f"the model {model.name!r} cannot be copied to {dtype}: ONEDNN_MAX_CPU_ISA disables "
            "instructions that TensorFlow requires; unset it, or use float32"
        )

    def copied(layer: keras.Operation) -> keras.Operation:
        # Operations between layers, as in `inputs * 255`, have no dtype of their own.
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
            f"the model {model.name!r} cannot be copied to {dtype} ({one_line(error)}): "
            + _way_out(model, dtype)
        ) from error
    finally:
        keras.config.set_dtype_policy(policy)
    check_copy(copy, model, dtype)
    return copy


def check_copy(copy: keras.Model, model: keras.Model, dtype: str) -> None:
    """Check that a copy gives the same logits on fixed images up to rounding.

    Raises:
      InputError: it does not, or this machine cannot compute in the copy's dtype.
    """
    import tensorflow as tf

    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        return  # not a model of images, which evaluation and training report
    images = tf.constant(probe_images(tuple(side or _ANY_SIDE for side in shape[1:])))
    with full_float32():
        expected = logits_function(model)(images)
        try:
            found = logits_function(copy)(images)
        except tf.errors.OpError as error:
            raise InputError(
                f"this machine ({machine.describe()}) cannot compute {model.name!r} in {dtype} "
                f"({one_line(error)}): use float32, which is what `auto` selects here"
            ) from error
    exact = dtype == "float32" and computes_in_float32(model)
    rounding = "float32" if exact else "bfloat16"
    if not rounding_explains(found.numpy(), expected.numpy(), dtype=rounding):
        raise InputError(
            f"the copy of the model {model.name!r} in {dtype} gives different logits: a layer has "
            f"state that is not copied; {_way_out(model, dtype)}"
        )


def _way_out(model: keras.Model, dtype: str) -> str:
    """Return what to do about a model that cannot be copied, by the purpose of the copy."""
    if dtype != "float32":
        return "craft or train in float32, or use a functional or Sequential model"
    if not computes_in_float32(model):
        return "build it with the dtype policy float32, in which images are judged"
    return "use one device, without a strategy, or a functional or Sequential model"


def float32_copy(model: keras.Model) -> keras.Model:
    """Return a copy of a model that computes in float32, with the same weights."""
    return copy_in_dtype(model, "float32")


def copy_weights(source: keras.Model, destination: keras.Model) -> None:
    """Assign every weight of a model to its `copy_in_dtype`, cast to the copy's dtype."""
    import tensorflow as tf

    for theirs, ours in zip(source.weights, destination.weights, strict=True):
        ours.assign(tf.cast(theirs.value, ours.dtype))
    if tf.executing_eagerly():
        _refresh(destination)


def _refresh(layer: keras.Layer) -> None:
    """Update mean and variance of each adapted `Normalization` from its weights."""
    import keras

    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()
    for inner in getattr(layer, "layers", ()):
        _refresh(inner)


def float32_model(model: keras.Model) -> keras.Model:
    """Return the model, or a float32 copy if it computes in another dtype."""
    if computes_in_float32(model):
        return model
    return float32_copy(model)


def computes_in_float32(layer: keras.Layer) -> bool:
    """Return whether a layer and all layers in it do; a model's own dtype does not tell."""
    inner = getattr(layer, "layers", ())
    return layer.compute_dtype == "float32" and all(computes_in_float32(one) for one in inner)
