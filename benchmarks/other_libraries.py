"""Other attack libraries on the same weights; each is left out with a line where it is absent."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from alp_repro.errors import InputError

_TORCH_SIDE = Path(__file__).with_name("torch_side.py")


@dataclasses.dataclass(frozen=True)
class Part:
    """What a part of AutoAttack leaves standing: gradients per image and accuracy, one entry."""

    name: str
    gradients: np.ndarray
    accuracy: np.ndarray
    seconds: float


def auto_attack_parts(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, *, eps: float, python: str | None
) -> list[Part]:
    """AutoAttack's parts and all of them together; empty, with a line, where torch is missing."""
    answer = run_torch("autoattack", model, images, labels, eps=eps, python=python)
    if answer is None:
        return []
    standing = {name: np.array(part["standing"]) for name, part in answer["parts"].items()}
    gradients = {name: part["gradients"] for name, part in answer["parts"].items()}
    seconds = {name: part["seconds"] for name, part in answer["parts"].items()}
    together = np.logical_and.reduce(list(standing.values()))
    parts = [
        Part(f"AutoAttack: {n}", np.array([gradients[n]]), np.array([s.mean()]), seconds[n])
        for n, s in standing.items()
    ]
    total = Part(
        "AutoAttack: all three",
        np.array([sum(gradients.values())]),
        np.array([together.mean()]),
        sum(seconds.values()),
    )
    return [*parts, total]


def run_torch(
    task: str,
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    eps: float,
    python: str | None,
) -> dict[str, Any] | None:
    """Runs `torch_side.py` on the model's weights; None, with a line, where it cannot."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work.npz"
        layers, arrays = layers_of(model)
        given: dict[str, Any] = {"images": images, "labels": labels, "eps": np.float64(eps)}
        np.savez(work, **given, **arrays, layers=json.dumps(layers))
        command = [python or sys.executable, str(_TORCH_SIDE), task, str(work)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            print(f"PyTorch left out: {command[0]} does not start ({error.strerror})", flush=True)
            return None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"PyTorch left out: {reason}", flush=True)
        return None
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def layers_of(
    model: keras.Model,
) -> tuple[list[tuple[str, list[str], list[int]]], dict[str, Any]]:
    """The layers of a chain of them, as `torch_side.layer` takes them, and their arrays by name.

    Raises:
      InputError: a layer that is not known here, or a setting of one.
    """
    told: list[tuple[str, list[str], list[int]]] = []
    arrays: dict[str, Any] = {}

    def tell(kind: str, values: list[Any] | None = None, sizes: list[int] | None = None) -> None:
        names = [f"{len(told)}_{place}" for place in range(len(values or []))]
        arrays.update(zip(names, map(np.asarray, values or []), strict=True))
        told.append((kind, names, sizes or []))

    for layer in model.layers:
        match layer:
            case keras.layers.InputLayer() | keras.layers.Dropout():
                pass
            case keras.layers.Normalization():
                tell("shift", [layer.mean, np.sqrt(layer.variance)])
            case keras.layers.ZeroPadding2D():
                tell("pad", sizes=[side for pair in layer.padding for side in pair])
            case keras.layers.Conv2D() if _is_plain(layer):
                if layer.padding == "same":
                    tell("pad", sizes=_padding(layer))
                tell("convolve", layer.get_weights(), [layer.strides[0]])
                _tell_activation(layer, tell)
            case keras.layers.ReLU():
                tell("relu")
            case keras.layers.MaxPooling2D() if layer.strides == layer.pool_size:
                tell("max_pool", sizes=[layer.pool_size[0]])
            case keras.layers.Flatten():
                tell("flatten")
            case keras.layers.Dense():
                tell("dense", layer.get_weights())
                _tell_activation(layer, tell)
            case _:
                raise InputError(f"layer {layer.name}: {type(layer).__name__} has no PyTorch form")
    return told, arrays


def _is_plain(layer: keras.layers.Conv2D) -> bool:
    return layer.dilation_rate == (1, 1) and layer.groups == 1 and len(set(layer.strides)) == 1


def _padding(layer: keras.layers.Conv2D) -> list[int]:
    """Rows above and below and columns to the left and right that padding `same` adds."""
    sides = []
    for size, kernel, stride in zip(
        layer.input.shape[1:3], layer.kernel_size, layer.strides, strict=True
    ):
        added = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        sides += [added // 2, added - added // 2]
    return sides


def _tell_activation(layer: keras.layers.Layer, tell: Callable[[str], None]) -> None:
    name = keras.activations.serialize(layer.activation)
    if name == "relu":
        tell("relu")
    elif name != "linear":
        raise InputError(f"layer {layer.name}: activation {name} has no PyTorch form")
