"""The head of a model: from probabilities back to logits, from one output to two.

A softmax or sigmoid is removed if the model's layers are accessible, and the result is compared
with the given model on fixed images; the given model is not changed.
"""

from __future__ import annotations

import copy
from typing import Any

import keras
import numpy as np

from alp_repro.errors import InputError, one_line
from alp_repro.models.copies import computes_in_float32

_OF_A_SUM = 1e-2  # rounding of the sum of a row of probabilities, also in bfloat16
LOGITS_ADVICE = (
    "remove the softmax or sigmoid so that the model returns logits, e.g. with activation=None in "
    "the last layer"
)

_PROBABILITIES = ("softmax", "sigmoid")
# How far recomputed probabilities may be from the given model's, by rounding.
_FLOAT32_ROUNDING, _ROUGH_ROUNDING = 1e-4, 3e-2


def is_graph(model: Any) -> bool:
    """Return whether a model is a graph of layers: functional or Sequential.

    This includes subclasses that do not override `call`: others may compute something else than
    their graph of layers.
    """
    if not isinstance(model, keras.Model) or not getattr(model, "outputs", None):
        return False
    methods = (type(model).call, type(model).__call__)
    return all(method.__module__.partition(".")[0] == "keras" for method in methods)


def without_probabilities(
    model: keras.Model, images: np.ndarray, outputs: np.ndarray
) -> tuple[keras.Model, str | None]:
    """Return a functional model without its last softmax or sigmoid, and what was removed.

    Args:
      model: functional or Sequential.
      images: float32 [n, ...], the model's inputs.
      outputs: the model's outputs for them, float32 [n, classes]. If they leave [0, 1], they are
        not probabilities, and the model itself is returned with None.

    Raises:
      InputError: the last layer cannot be rebuilt, or the rebuilt model computes something else.
    """
    found = _last_activation(model) if within_unit(outputs) else None
    if found is None:
        return model, None
    kind, what = found
    if kind == "softmax" and outputs.shape[1] == 1:
        raise InputError(
            "the model ends in a softmax of one unit, which is always 1: use a sigmoid, or one "
            "unit for each class"
        )
    taken = keras.Input(model.inputs[0].shape[1:], dtype=model.inputs[0].dtype)
    try:
        rebuilt = keras.Model(taken, _logits(model, taken), name=f"{model.name}_logits")
        logits = np.asarray(keras.ops.convert_to_numpy(rebuilt(images, training=False)), np.float32)
    except InputError:
        raise
    except Exception as error:  # Keras and the user's layers raise errors of many kinds
        raise InputError(
            f"{what} cannot be removed automatically ({one_line(error)}): {LOGITS_ADVICE}"
        ) from error
    again = np.asarray(getattr(keras.activations, kind)(logits), np.float32)
    close = _FLOAT32_ROUNDING if computes_in_float32(model) else _ROUGH_ROUNDING
    same = again.shape == outputs.shape and np.abs(again - outputs).max() <= close
    # A random model returns other outputs each time anyway.
    if same or (_is_random(model, images, outputs, close) and _is_of_keras(model)):
        return rebuilt, what
    raise InputError(
        f"{what} cannot be removed automatically: the model without it makes other predictions "
        f"(does the layer compute something after its {kind}?); {LOGITS_ADVICE}"
    )


def _is_random(model: keras.Model, images: np.ndarray, outputs: np.ndarray, close: float) -> bool:
    again = np.asarray(keras.ops.convert_to_numpy(model(images, training=False)), np.float32)
    return bool(np.abs(again - outputs).max() > close)


def _is_of_keras(model: keras.Model) -> bool:
    """Return whether the last layer is a Keras layer that applies its activation last."""
    last, _ = last_operation(model)
    if is_graph(last):
        return _is_of_keras(last)
    return type(last).__module__.partition(".")[0] == "keras" and not isinstance(
        last, keras.layers.RNN
    )


def last_operation(model: keras.Model) -> tuple[keras.Operation, Any]:
    """Return the operation that computes a functional model's output, and its input tensor.

    From the history that Keras keeps of the output tensor: `layer.input` of a nested model is that
    model's own input, not the tensor it is called on.
    """
    history = model.outputs[0]._keras_history  # noqa: SLF001 - no public name for it
    inputs = _inputs_of_last(model)
    return history.operation, inputs[0] if inputs else model.inputs[0]


def _inputs_of_last(model: keras.Model) -> list[Any]:
    history = model.outputs[0]._keras_history  # noqa: SLF001 - no public name for it
    nodes = history.operation._inbound_nodes  # noqa: SLF001 - no public name for it
    return list(nodes[history.node_index].input_tensors)


def _last_activation(model: keras.Model) -> tuple[str, str] | None:
    """Return "softmax" or "sigmoid" and a description of where it is; None: the end is neither."""
    last, _ = last_operation(model)
    if is_graph(last):
        return _last_activation(last)
    kind = _kind(last)
    if kind is not None:  # a separate layer or operation
        return kind, f"the {kind} at the end"
    kind = _kind(getattr(last, "activation", None))
    return None if kind is None else (kind, f"the {kind} of the last layer ({last.name})")


def _kind(function: Any) -> str | None:
    """Return whether a function, an operation or a layer is a softmax or a sigmoid, by its name."""
    if isinstance(function, keras.layers.Activation):
        return _kind(function.activation)
    if isinstance(function, keras.layers.Lambda):
        return _kind(function.function)
    name = getattr(function, "__name__", type(function).__name__).lower()
    name = name.removesuffix("_v2")  # tf.nn.softmax calls itself softmax_v2
    return name if name in _PROBABILITIES else None


def _logits(model: keras.Model, images: Any) -> Any:
    """Return the logits for another input: the graph with the last layer's activation linear."""
    last, given = last_operation(model)
    if len(model.inputs) != 1 or len(_inputs_of_last(model)) > 1:
        raise InputError(
            f"the model's last layer ({last.name}) has several inputs, so its softmax or sigmoid "
            f"cannot be removed automatically: {LOGITS_ADVICE}"
        )
    before = images if given is model.inputs[0] else keras.Model(model.inputs[0], given)(images)
    if is_graph(last):
        return _logits(last, before)
    if _kind(last) is not None:
        return before
    linear = type(last).from_config({**_config(last), "activation": "linear"})
    linear.build(given.shape)
    linear.set_weights(last.get_weights())
    return linear(before)


def _config(layer: Any) -> dict[str, Any]:
    """Return the layer's configuration, even if Keras cannot serialize its activation."""
    try:
        return dict(layer.get_config())
    except ValueError:
        bare = copy.copy(layer)
        object.__setattr__(bare, "activation", keras.activations.linear)
        return dict(bare.get_config())


def two_logits(logit: Any) -> Any:
    """Return logits [n, 2] from a model's one output [n, 1]: 0 for class 0, the output for 1."""
    return keras.ops.concatenate([keras.ops.zeros_like(logit), logit], axis=-1)


def within_unit(outputs: np.ndarray) -> bool:
    """Return whether all of a model's outputs lie in [0, 1], as probabilities do."""
    return bool(outputs.size and outputs.min() >= 0 and outputs.max() <= 1)


def sum_to_one(outputs: np.ndarray) -> bool:
    """Return whether each row of a model's outputs [n, classes] is a softmax's, up to rounding."""
    return bool(outputs.min() >= 0 and np.abs(outputs.sum(axis=1) - 1).max() < _OF_A_SUM)


def why_not_logits(outputs: np.ndarray) -> str | None:
    """Return why a model's outputs [n, classes] are not logits, and what to do; None: they may be.

    Rows of sum 1 are a softmax's. Others that all lie in [0, 1] may be sigmoids' or logits: the
    message says what to do in either case.
    """
    several = outputs.shape[1] > 1
    if several and sum_to_one(outputs):
        return f"the model's outputs are probabilities: {LOGITS_ADVICE}"
    if within_unit(outputs) and outputs.any():
        return (
            "the model's outputs all lie in [0, 1], as probabilities do: "
            f"{LOGITS_ADVICE}; if they are logits, subtract 1 from each, which does not change "
            "predictions"
            if several
            else "the model's one output lies in [0, 1], as a probability does: expected the logit "
            f"of class 1; {LOGITS_ADVICE}"
        )
    return None
