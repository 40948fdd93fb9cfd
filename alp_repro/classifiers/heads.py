"""The end of a model: from probabilities back to logits, from one output to two.

Softmax and sigmoid are taken off where a model's layers can be reached; nothing of the given model
is changed, and the weights are shared with it.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

_PROBABILITIES = ("softmax", "sigmoid")


def is_graph(model: Any) -> bool:
    """Whether a model's layers can be taken apart: functional or Sequential, of Keras itself."""
    if not isinstance(model, keras.Model) or not getattr(model, "outputs", None):
        return False
    # A subclass that overrides `call` computes something else than its graph of layers.
    return type(model).__module__.partition(".")[0] == "keras"


def without_probabilities(model: keras.Model) -> tuple[keras.Model, str | None]:
    """A functional model without its last softmax or sigmoid, and what was taken off (or None)."""
    removed = _last_activation(model)
    if removed is None:
        return model, None
    images = keras.Input(model.inputs[0].shape[1:], dtype=model.inputs[0].dtype)
    return keras.Model(images, _logits(model, images), name=f"{model.name}_logits"), removed


def last_operation(model: keras.Model) -> tuple[keras.Operation, Any]:
    """What gives a functional model's output, and the tensor that goes into it.

    By Keras' own note on the output tensor: `layer.input` of a model inside a model is that model's
    own input, not what it is given there.
    """
    history = model.outputs[0]._keras_history
    inputs = history.operation._inbound_nodes[history.node_index].input_tensors
    return history.operation, inputs[0] if inputs else model.inputs[0]


def _last_activation(model: keras.Model) -> str | None:
    last, _ = last_operation(model)
    if type(last).__name__ == "Softmax":  # the layer, or keras.ops.softmax
        return "the softmax at the end"
    if is_graph(last):
        return _last_activation(last)
    name = getattr(getattr(last, "activation", None), "__name__", "")
    if name not in _PROBABILITIES:
        return None
    return f"the {name} of the last layer ({last.name})"


def _logits(model: keras.Model, images: Any) -> Any:
    """The model's logits as a function of another input: its graph up to the last layer, linear."""
    last, given = last_operation(model)
    before = images if given is model.inputs[0] else keras.Model(model.inputs[0], given)(images)
    if type(last).__name__ == "Softmax" or isinstance(last, keras.layers.Activation):
        return before
    if is_graph(last):
        return _logits(last, before)
    linear = type(last).from_config({**last.get_config(), "activation": "linear"})
    linear.build(given.shape)
    linear.set_weights(last.get_weights())
    return linear(before)


def two_logits(logit: Any) -> Any:
    """Logits [n, 2] of a model with one, [n, 1]: of class 0, always 0, and of class 1."""
    return keras.ops.concatenate([keras.ops.zeros_like(logit), logit], axis=-1)


def are_probabilities(outputs: np.ndarray) -> bool:
    """Whether outputs [n, classes] look like a softmax's: not negative, each row's sum is 1."""
    return bool(
        outputs.ndim == 2
        and outputs.shape[1] > 1
        and outputs.min() >= 0
        and np.abs(outputs.sum(axis=1) - 1).max() < 1e-3
    )
