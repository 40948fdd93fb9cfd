"""Models whose robustness is known from outside, with the images that it is known for.

A folder of such models holds `<name>.keras`, and beside them

    mnist_200_indices.txt, cifar_200.npz   the images that brackets are of: test positions; x and y
    hard_<name>.txt                        test positions that an exact method breaks
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from alp_repro import data


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A model, images of it, a radius on [0, 1], and what share of them is known to withstand.

    low, high: bounds of the robust accuracy in percent; None: not known.
    """

    name: str
    model: Path
    images: np.ndarray
    labels: np.ndarray
    eps: float
    low: float | None
    high: float | None

    @property
    def truth(self) -> str:
        """The bounds as a table has them."""
        if self.low is None:
            return "" if self.high is None else f"≤ {self.high:g}"
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g} to {self.high:g}"


def cases(folder: Path, *, data_dir: str | None = None, trades_images: int = 10_000) -> list[Case]:
    """The cases whose files are there.

    Args:
      folder: of the models.
      data_dir: TFDS folder of MNIST.
      trades_images: of the test split, from the first.
    """
    found = []
    test = data.load_split("mnist", "test", data_dir=data_dir)

    def mnist(name: str, model: str, chosen: str | int, low: float | None, high: float) -> None:
        if (folder / f"{model}.keras").exists():
            places = np.arange(chosen) if isinstance(chosen, int) else positions(chosen)
            images, labels = test.unit_scale[places], test.labels[places]
            found.append(Case(name, folder / f"{model}.keras", images, labels, 0.3, low, high))

    def positions(name: str) -> np.ndarray:
        return np.loadtxt(folder / name, dtype=np.int64, ndmin=1).reshape(-1)

    mnist("MNIST CNN-A", "mnist_cnn_a_adv", "mnist_200_indices.txt", 76.0, 76.5)
    if (folder / "cifar_cnn_a_adv.keras").exists():
        with np.load(folder / "cifar_200.npz") as file:
            images, labels = file["x"], file["y"]
        network = folder / "cifar_cnn_a_adv.keras"
        found.append(Case("CIFAR-10 CNN-A", network, images, labels, 2 / 255, 48.5, 50.0))
    for name, model in (("hard, CNN-A", "mnist_cnn_a_adv"), ("hard, Madry", "madry_tiny")):
        mnist(name, model, f"hard_{model}.txt", 0.0, 0.0)
    # AutoAttack leaves 92.81% of the 10,000, the A³ attack 92.71%.
    mnist("TRADES", "trades_mnist", trades_images, None, 92.71)
    return found
