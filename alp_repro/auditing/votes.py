"""The passes over a random model: which class each image got how often."""

from __future__ import annotations

import dataclasses

import numpy as np

from alp_repro.evaluation import wilson_interval


@dataclasses.dataclass(frozen=True)
class Votes:
    """The predictions of many passes over each image, clean or as the strongest attack left it.

    Attributes:
      passes: over each image.
      right: int [n], passes that gave the label.
      other: int [n], passes that gave the other class that most of them gave.
    """

    passes: int
    right: np.ndarray
    other: np.ndarray

    @property
    def lead(self) -> np.ndarray:
        """Int [n]: by how many passes the label leads."""
        return self.right - self.other

    @property
    def undecided(self) -> np.ndarray:
        """Bool [n]: the 95% interval of the label's share of the two classes contains one half."""
        found = []
        for right, other in zip(self.right.tolist(), self.other.tolist(), strict=True):
            low, high = wilson_interval(right, max(right + other, 1))
            found.append(low <= 0.5 <= high)
        return np.array(found, bool)

    def at(self, places: np.ndarray) -> Votes:
        """Return the votes over these images alone."""
        return Votes(self.passes, self.right[places], self.other[places])

    def updated(self, places: np.ndarray, votes: Votes) -> Votes:
        """Return the votes with those of the images at these places replaced."""
        right, other = self.right.copy(), self.other.copy()
        right[places], other[places] = votes.right, votes.other
        return Votes(self.passes, right, other)


def votes_of(counts: np.ndarray, labels: np.ndarray) -> Votes:
    """Return the votes of counted predictions, int [n, classes]."""
    rows = np.arange(len(labels))
    others = counts.copy()
    others[rows, labels] = -1
    passes = int(counts[0].sum()) if len(counts) else 0
    return Votes(passes, counts[rows, labels], others.max(axis=1))
