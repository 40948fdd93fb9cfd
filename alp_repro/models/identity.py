"""The identity of a model as a function, beside its weights (`runs.weights_hash`).

Two models with the same weights are different functions if an activation, a Rescaling's factor or
an attribute differs. A result belongs to a function.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro.models.copies import logits_function
from alp_repro.models.probes import full_float32, probe_images, rounding_explains
from alp_repro.validation.decoding import from_json

if TYPE_CHECKING:
    import keras

_DIGITS = 16  # of a hash, hexadecimal
# Parts of a layer's configuration that do not change its function: initialisation, training, names,
# and the dtype (results are judged in float32).
_NO_FUNCTION = {
    "batch_input_shape",
    "batch_shape",
    "build_config",
    "build_input_shape",
    "compile_config",
    "dtype",
    "module",
    "name",
    "registered_name",
    "seed",
    "shared_object_id",
    "trainable",
}
_NO_FUNCTION_ENDINGS = ("_initializer", "_regularizer", "_constraint")
_NAMES_LAYERS = ("input_layers", "output_layers")


@dataclasses.dataclass(frozen=True)
class FunctionIdentity:
    """A model's function, beside its weights; plain data, stored in results as a dict.

    Attributes:
      architecture: sixteen hex digits of the layers, their settings and connections.
      logits: on `probe_images`, with all nine digits of a float32 (six in version 0.1), as a large
        offset may use most of them; None where they are not finite.
    """

    architecture: str
    logits: tuple[tuple[float | None, ...], ...]

    def difference_from(self, kept: Any) -> str | None:
        """Describe how this function differs from a result's; None if it does not.

        Args:
          kept: `dataclasses.asdict` of an identity, from a file; None: the result is too old to
            have one, so there is nothing to compare.

        Raises:
          InputError: `kept` is something else.
        """
        if kept is None:
            return None
        other = from_json(json.dumps(kept), FunctionIdentity, source="the model's function")
        if self.architecture != other.architecture:
            return "the same weights, but other layers, or other settings of layers"
        if not rounding_explains(_array(self.logits), _array(other.logits)):
            return "the same weights, but its logits on fixed images differ"
        return None


def architecture_of(kept: Any) -> str:
    """Return the architecture of a stored identity; arguments as of `difference_from`."""
    source = "the model's function"
    return from_json(json.dumps(kept), FunctionIdentity, source=source).architecture


def function_identity(model: keras.Model, image_shape: tuple[int, ...]) -> FunctionIdentity:
    """Return the identity of a model as a function of images.

    Names of layers, dtype policies, initialisers and the like do not change it, and logits that
    another machine rounds differently count as the same (`FunctionIdentity.difference_from`).

    Args:
      model: float32 images in [0, 1] to logits; for another dtype pass its float32 copy.
      image_shape: height, width, channels.
    """
    import tensorflow as tf

    with full_float32():
        logits = logits_function(model)(tf.constant(probe_images(image_shape))).numpy()
    rounded = tuple(
        tuple(float(f"{value:.9g}") if np.isfinite(value) else None for value in row)
        for row in logits
    )
    return FunctionIdentity(architecture_hash(model), rounded)


def architecture_hash(model: keras.Model) -> str:
    """Return sixteen hex digits that change with a layer, its settings, or its connections."""
    return _hash(_layer(model, {}))


def configuration_hash(class_name: str, config: dict[str, Any]) -> str:
    """Return the `architecture_hash` of a functional model from its configuration."""
    return _hash([class_name, _plain(config, {}), []])


def _hash(plain: Any) -> str:
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _layer(layer: keras.Layer, places: dict[str, int]) -> Any:
    """Describe a layer as plain data; a user's layer may have only its class and inner layers."""
    try:
        config = layer.get_config()
    except Exception:  # whatever a class of the user's raises; Keras: NotImplementedError
        config = {}
    inner = [] if "layers" in config else [_layer(one, {}) for one in getattr(layer, "layers", ())]
    return [type(layer).__name__, _plain(config, places), inner]


def _plain(value: Any, places: dict[str, int]) -> Any:
    """Return a configuration reduced to what is computed; layers are named by their position."""
    if isinstance(value, dict):
        if value.get("class_name") in ("__lambda__", "InputLayer"):
            # A lambda's code holds its file's name and line; the logits tell lambdas apart.
            return value["class_name"]
        if value.get("class_name") == "__keras_tensor__":
            return _by_place(value["config"]["keras_history"], places)
        if isinstance(value.get("layers"), list):
            names = [_name(one) for one in value["layers"]]
            places = {name: place for place, name in enumerate(names)}
        return {
            key: _by_place(inner, places) if key in _NAMES_LAYERS else _plain(inner, places)
            for key, inner in value.items()
            if inner is not None and not _says_no_function(key)
        }
    if isinstance(value, (list, tuple)):
        return [_plain(one, places) for one in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (str, int, float)) or value is None:
        return value
    return type(value).__name__  # its text may hold an address, which is another each time


def _says_no_function(key: Any) -> bool:
    return key in _NO_FUNCTION or str(key).endswith(_NO_FUNCTION_ENDINGS)


def _name(config: Any) -> str:
    """Return a layer's name, which a user's layer may lack."""
    inner = config.get("config") if isinstance(config, dict) else None
    found = isinstance(config, dict) and config.get("name")
    return str(found or (isinstance(inner, dict) and inner.get("name")) or "")


def _by_place(value: Any, places: dict[str, int]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_by_place(one, places) for one in value]
    return places.get(value, value) if isinstance(value, str) else value


def _array(logits: tuple[tuple[float | None, ...], ...]) -> np.ndarray:
    return np.array([[np.nan if v is None else v for v in row] for row in logits], np.float64)
