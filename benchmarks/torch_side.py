"""The PyTorch half of the benchmarks: AutoAttack's parts, and other libraries' PGD.

    python benchmarks/torch_side.py autoattack|authors|throughput work.npz

Imports nothing of the project, so that an interpreter with torch alone can run it. work.npz is
what `other_libraries.run_torch` writes: layers and their weights, images [n, height, width,
channels], labels and eps; the answer is JSON on the last line of the output.
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


class Shift(nn.Module):
    """Pixels minus a mean, over a standard deviation, of each channel or of all."""

    def __init__(self, mean: np.ndarray, deviation: np.ndarray) -> None:
        super().__init__()
        self.mean, self.deviation = (
            torch.from_numpy(np.asarray(value, np.float32).reshape(1, -1, 1, 1).copy())
            for value in (mean, deviation)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.deviation


class FlattenChannelsLast(nn.Module):
    """As Keras flattens images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 2, 3, 1).flatten(1)


def layer(kind: str, values: list[np.ndarray], settings: list[int]) -> nn.Module:
    """A layer as `other_libraries.layers_of` tells it: its kind, its arrays, its whole numbers."""
    if kind == "shift":
        return Shift(*values)
    if kind == "pad":
        top, bottom, left, right = settings
        return nn.ZeroPad2d((left, right, top, bottom))
    if kind == "relu":
        return nn.ReLU()
    if kind == "max_pool":
        return nn.MaxPool2d(settings[0])
    if kind == "flatten":
        return FlattenChannelsLast()
    kernel, bias = (torch.from_numpy(value.copy()) for value in values)
    if kind == "convolve":
        height, width, channels, filters = kernel.shape
        made: Any = nn.Conv2d(channels, filters, (height, width), stride=settings[0])
        made.weight.data = kernel.permute(3, 2, 0, 1).contiguous()
    else:
        made = nn.Linear(*kernel.shape)
        made.weight.data = kernel.T.contiguous()
    made.bias.data = bias
    return made


def load(path: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor, float]:
    with np.load(path) as file:
        told = json.loads(str(file["layers"]))
        model = nn.Sequential(
            *(layer(kind, [file[name] for name in names], sizes) for kind, names, sizes in told)
        )
        images = torch.from_numpy(file["images"].transpose(0, 3, 1, 2).copy())
        labels = torch.from_numpy(file["labels"].astype(np.int64))
        eps = float(file["eps"])
    return model.eval().requires_grad_(False), images, labels, eps


def autoattack(path: str) -> dict[str, Any]:
    """AutoAttack's parts by torchattacks, each on all images that begin correct."""
    import torchattacks

    model, images, labels, eps = load(path)
    return of_parts(
        model,
        images,
        labels,
        eps,
        {
            "APGD-CE": (torchattacks.APGD(model, eps=eps, steps=100, loss="ce"), 100),
            "APGD-T": (torchattacks.APGDT(model, eps=eps, steps=100, n_classes=10), 900),
            "Square": (torchattacks.Square(model, eps=eps, n_queries=5000), 0),
        },
    )


def authors(path: str) -> dict[str, Any]:
    """AutoAttack's parts by its authors' own package, each on all images that begin correct."""
    import pyautoattack

    model, images, labels, eps = load(path)

    def part(name: str) -> Any:
        attack = pyautoattack.AutoAttack(model, eps=eps, seed=0, version="standard")
        attack.attacks_to_run = [name]
        return lambda x, y: attack.run_standard_evaluation(x, y, batch_size=len(x))[0]

    told = {"APGD-CE": ("apgd-ce", 100), "APGD-T": ("apgd-t", 900), "FAB-T": ("fab-t", 900)}
    told["Square"] = ("square", 0)
    parts = {name: (part(theirs), gradients) for name, (theirs, gradients) in told.items()}
    return of_parts(model, images, labels, eps, parts)


def of_parts(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, eps: float, parts: dict[str, Any]
) -> dict[str, Any]:
    """Which images each part leaves standing, and its seconds: on the clock, of the processor."""
    with torch.no_grad():
        clean = model(images).argmax(1) == labels
    answer: dict[str, Any] = {"clean": clean.tolist(), "parts": {}}
    for name, (attack, gradients) in parts.items():
        started, used = time.monotonic(), time.process_time()
        adversarial = attack(images[clean], labels[clean]).clamp(0, 1)
        seconds, processor = time.monotonic() - started, time.process_time() - used
        assert (adversarial - images[clean]).abs().max() < eps + 1e-5
        with torch.no_grad():
            standing = model(adversarial).argmax(1) == labels[clean]
        everywhere = clean.clone()
        everywhere[clean] = standing
        answer["parts"][name] = {
            "standing": everywhere.tolist(),
            "gradients": gradients,
            "seconds": seconds,
            "processor_seconds": processor,
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
        json.dumps(
            {"autoattack": autoattack, "authors": authors, "throughput": throughput}[sys.argv[1]](
                sys.argv[2]
            )
        )
    )
