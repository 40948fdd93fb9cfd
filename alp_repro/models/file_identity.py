"""Which model a `.keras` file holds, told from the file alone where that is beyond doubt.

Building a model takes TensorFlow, seconds and hundreds of megabytes; to show a stored table only
its identity is asked for.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alp_repro.models.identity import configuration_hash
from alp_repro.runs import hash_of_arrays

# Keras' own layers whose weights are their variables in order, and which compute nothing but what
# their settings say; each with its name in the file of weights.
_PLAIN_LAYERS = {
    "Add": "add",
    "BatchNormalization": "batch_normalization",
    "Conv2D": "conv2d",
    "Dense": "dense",
    "Flatten": "flatten",
    "GlobalAveragePooling2D": "global_average_pooling2d",
    "InputLayer": "input_layer",
    "MaxPooling2D": "max_pooling2d",
    "ReLU": "re_lu",
    "Rescaling": "rescaling",
    "ZeroPadding2D": "zero_padding2d",
}


@dataclasses.dataclass(frozen=True)
class FileIdentity:
    """The identity of the model in a file: `runs.weights_hash`, `identity.architecture_hash`."""

    weights: str
    architecture: str


def file_identity(path: Path) -> FileIdentity | None:
    """Return the identity of a model of plain float32 layers; None: the model must be built.

    None is also returned for a file that is damaged or not a model: building it reports why.
    """
    import h5py

    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            content = io.BytesIO(archive.read("model.weights.h5"))
        layers = _plain_layers(config)
        with h5py.File(content, "r") as file:
            weights = hash_of_arrays(_arrays(file, layers))
        return FileIdentity(weights, configuration_hash(config["class_name"], config["config"]))
    except Exception:  # of many kinds: the file is anybody's
        return None


def _plain_layers(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Return class and name of each layer; ValueError if one is not plain."""
    if config["class_name"] != "Functional" or not _is_keras_own(config, "keras.src.models"):
        raise ValueError("not a functional model")
    layers = config["config"]["layers"]
    for layer in layers:
        if layer["class_name"] not in _PLAIN_LAYERS or not _is_keras_own(layer, "keras.layers"):
            raise ValueError(f"{layer['class_name']} is not a plain layer")
        dtype = layer["config"]["dtype"]
        name = dtype["config"]["name"] if isinstance(dtype, dict) else dtype
        if name != "float32":
            raise ValueError(f"{name} is not float32")
    return [(layer["class_name"], layer["config"]["name"]) for layer in layers]


def _is_keras_own(config: dict[str, Any], module: str) -> bool:
    return config["module"].startswith(module) and config["registered_name"] in (
        None,
        config["class_name"],
    )


def _arrays(file: Any, layers: list[tuple[str, str]]) -> Iterator[np.ndarray]:
    """Yield the weights in the model's order; ValueError if the file names them otherwise."""
    met: dict[str, int] = {}
    for kind, name in layers:
        count = met[kind] = met.get(kind, -1) + 1
        group = _PLAIN_LAYERS[kind] + (f"_{count}" if count else "")
        variables = file["layers"][group]["vars"]
        if variables.attrs["name"] != name:
            raise ValueError(f"{group} is not {name}")
        for number in range(len(variables)):
            array = variables[str(number)][()]
            if array.dtype != np.float32:
                raise ValueError(f"{array.dtype} is not float32")
            yield array
    if len(file["layers"]) != len(layers):
        raise ValueError("weights of other layers")
