"""Other attack libraries on the same weights; each is left out with a line where it is absent."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

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
        weights = {f"w{i}": w for i, w in enumerate(model.get_weights())}
        np.savez(work, images=images, labels=labels, eps=np.float64(eps), **weights)
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
