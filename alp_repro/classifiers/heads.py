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


def _last_layer(model: keras.Model) -> keras.Layer:
    """The layer whose output is the model's; flattening and dropout after it change nothing."""
    return model.layers[-1] if isinstance(model, keras.Sequential) else _producer(model)


def _producer(model: keras.Model) -> keras.Layer:
    output = model.outputs[0]
    for layer in reversed(model.layers):
        if any(output is candidate for candidate in _outputs(layer)):
            return layer
    return model.layers[-1]


def _outputs(layer: keras.Layer) -> list[Any]:
    try:
        return [layer.output]
    except (AttributeError, ValueError):
        return []


def _last_activation(model: keras.Model) -> str | None:
    last = _last_layer(model)
    if isinstance(last, keras.layers.Softmax):
        return "the Softmax layer"
    if is_graph(last):
        return _last_activation(last)
    name = getattr(getattr(last, "activation", None), "__name__", "")
    if name not in _PROBABILITIES:
        return None
    return f"the {name} of the last layer ({last.name})"


def _logits(model: keras.Model, images: Any) -> Any:
    """The model's logits as a function of another input: its graph up to the last layer, linear."""
    last = _last_layer(model)
    before = (
        keras.Model(model.inputs[0], last.input)(images) if last is not model.layers[0] else images
    )
    if isinstance(last, keras.layers.Softmax | keras.layers.Activation):
        return before
    if is_graph(last):
        return _logits(last, before)
    linear = type(last).from_config({**last.get_config(), "activation": "linear"})
    linear.build(last.input.shape)
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
