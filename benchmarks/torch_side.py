"""The PyTorch half of the benchmarks: AutoAttack's parts, and other libraries' PGD.

    python benchmarks/torch_side.py autoattack|throughput work.npz

Imports nothing of the project, so that an interpreter with torch alone can run it. work.npz holds
the weights of a LeNet as Keras keeps them (w0 … w7), images [n, height, width, channels], labels
and eps; the answer is JSON on the last line of the output.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import nn

ROUNDS = 3


class LeNet(nn.Module):
    """The paper's MNIST model with a Keras model's weights."""

    def __init__(self, weights: list[np.ndarray]) -> None:
        super().__init__()
        conv1, conv2 = weights[0], weights[2]
        self.conv1 = nn.Conv2d(conv1.shape[2], conv1.shape[3], 3, padding=1)
        self.conv2 = nn.Conv2d(conv2.shape[2], conv2.shape[3], 3, padding=1)
        self.fc1 = nn.Linear(*weights[4].shape)
        self.fc2 = nn.Linear(*weights[6].shape)
        for layer, kernel, bias in zip(
            (self.conv1, self.conv2, self.fc1, self.fc2), weights[::2], weights[1::2], strict=True
        ):
            axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
            layer.weight.data = torch.from_numpy(kernel.transpose(axes).copy())
            layer.bias.data = torch.from_numpy(bias.copy())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.conv1(images)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        # Keras flattens with the channels last.
        x = x.permute(0, 2, 3, 1).flatten(1)
        return self.fc2(torch.relu(self.fc1(x)))


def load(path: str) -> tuple[LeNet, torch.Tensor, torch.Tensor, float]:
    with np.load(path) as file:
        weights = [file[f"w{i}"] for i in range(8)]
        images = torch.from_numpy(file["images"].transpose(0, 3, 1, 2).copy())
        labels = torch.from_numpy(file["labels"].astype(np.int64))
        eps = float(file["eps"])
    return LeNet(weights).eval(), images, labels, eps


def autoattack(path: str) -> dict[str, Any]:
    """Which images each part leaves standing, each part on all images that begin correct."""
    import torchattacks

    model, images, labels, eps = load(path)
    with torch.no_grad():
        clean = model(images).argmax(1) == labels
    parts = {
        "APGD-CE": (torchattacks.APGD(model, eps=eps, steps=100, loss="ce"), 100),
        "APGD-T": (torchattacks.APGDT(model, eps=eps, steps=100, n_classes=10), 900),
        "Square": (torchattacks.Square(model, eps=eps, n_queries=5000), 0),
    }
    answer: dict[str, Any] = {"clean": clean.tolist(), "parts": {}}
    for name, (attack, gradients) in parts.items():
        started = time.monotonic()
        adversarial = attack(images[clean], labels[clean]).clamp(0, 1)
        assert (adversarial - images[clean]).abs().max() < eps + 1e-5
        with torch.no_grad():
            standing = model(adversarial).argmax(1) == labels[clean]
        everywhere = clean.clone()
        everywhere[clean] = standing
        answer["parts"][name] = {
            "standing": everywhere.tolist(),
            "gradients": gradients,
            "seconds": time.monotonic() - started,
        }
    return answer


def throughput(path: str) -> dict[str, Any]:
    """Seconds of a PGD step, on the clock and of processor time, by each library that is there."""
    model, images, labels, eps = load(path)
    nb_iter, step = 10, eps / 4
    calls: dict[str, Any] = {}
    skipped = []
    try:
        import torchattacks

        calls["torchattacks"] = torchattacks.PGD(model, eps=eps, alpha=step, steps=nb_iter)
    except ImportError:
        skipped.append("torchattacks is not installed")
    try:
        import foolbox

        attack = foolbox.attacks.LinfPGD(abs_stepsize=step, steps=nb_iter)
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        calls["Foolbox (PyTorch)"] = lambda x, y: attack.run(wrapped, x, y, epsilon=eps)
    except ImportError:
        skipped.append("foolbox is not installed")
    seconds = {}
    for name, call in calls.items():
        call(images, labels)
        measured = []
        for _ in range(ROUNDS):
            wall, cpu = time.perf_counter(), time.process_time()
            call(images, labels)
            measured.append((time.perf_counter() - wall, time.process_time() - cpu))
        seconds[name] = (np.median(measured, axis=0) / nb_iter).tolist()
    return {"seconds_per_step": seconds, "skipped": skipped}


if __name__ == "__main__":
    print(
        json.dumps({"autoattack": autoattack, "throughput": throughput}[sys.argv[1]](sys.argv[2]))
    )
