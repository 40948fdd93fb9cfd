"""What restarts of an attack did to a set of images, and how it is kept on disk."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from alp_repro.files import note, reading_arrays, write_arrays

_Z95 = 1.959963984540054  # 97.5% quantile of the normal distribution


@dataclasses.dataclass(frozen=True, eq=False)
class AttackRecord:
    """What restarts of one attack did to a set of images; complete or on its way.

    Attributes:
      labels: int32 [n], true classes.
      indices: int64 [n], position of each image in its data set's split.
      clean_predictions: int32 [n], of the clean images.
      first_break: int32 [n], the first restart that broke the image, -1: none yet.
      next_restart: int32 [n], restarts already run on the image.
      nonfinite_gradients: int32 [n], steps on the image whose gradient had entries that are not
        finite; these counted as 0.
      settings: what makes this result: attack, seed, batch, hashes of model and images.
      sessions: provenance of every process that worked on it.
      losses: float32 [n, restarts], cross-entropy of the true label after every restart, NaN where
        none was run; None unless they were asked for.
      broken: bool [n, restarts] beside `losses`.
      adversarial: float32 like the images: the image that broke it; zeros where none did; None
        unless asked for.
    """

    labels: np.ndarray
    indices: np.ndarray
    clean_predictions: np.ndarray
    first_break: np.ndarray
    next_restart: np.ndarray
    nonfinite_gradients: np.ndarray
    settings: dict[str, Any]
    sessions: list[dict[str, Any]]
    losses: np.ndarray | None = None
    broken: np.ndarray | None = None
    adversarial: np.ndarray | None = None

    @property
    def clean_correct(self) -> np.ndarray:
        """Bool [n]: the clean image is classified correctly."""
        return self.clean_predictions == self.labels

    @property
    def clean_accuracy(self) -> float:
        """Share of clean images that are classified correctly."""
        return float(np.mean(self.clean_correct))

    @property
    def standing(self) -> np.ndarray:
        """Bool [n]: no restart so far has broken the image."""
        return self.first_break < 0

    def complete_to(self, restarts: int) -> bool:
        """Whether every image is broken or has seen so many restarts."""
        wanted = self.standing if self.losses is None else np.ones_like(self.standing)
        return bool(np.all(self.next_restart[wanted] >= restarts))

    def restarts_spent(self, restarts: int) -> np.ndarray:
        """Int [n]: restarts an image needed of so many: up to the one that broke it, or all."""
        self._check_complete(restarts)
        broken = ~self.standing & (self.first_break < restarts)
        return np.where(broken, self.first_break + 1, restarts)

    def accuracy_at(self, restarts: int) -> float:
        """Adversarial accuracy after so many restarts: the share that none of them broke.

        Raises:
          ValueError: the record does not reach so far.
        """
        return self.robust_at(restarts) / len(self.labels)

    def robust_at(self, restarts: int) -> int:
        """How many images none of the first `restarts` restarts broke."""
        self._check_complete(restarts)
        return int(np.sum(self.standing | (self.first_break >= restarts)))

    def interval_at(self, restarts: int) -> tuple[float, float]:
        """95% Wilson interval of `accuracy_at`."""
        return wilson_interval(self.robust_at(restarts), len(self.labels))

    def mean_accuracy(self, restarts: int) -> float:
        """Mean over restarts of the accuracy that one alone leaves; needs recorded losses."""
        if self.broken is None:
            raise ValueError("no losses were recorded, so broken images were not attacked again")
        self._check_complete(restarts)
        return float(1.0 - np.mean(self.broken[:, :restarts]))

    def _check_complete(self, restarts: int) -> None:
        if not self.complete_to(restarts):
            raise ValueError(f"the record does not reach restart {restarts}")


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95% interval of a proportion (Wilson 1927, without continuity correction)."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials} is no proportion")
    p, z2 = successes / trials, _Z95**2
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 / (1 + z2 / trials) * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    # At the ends the bound is 0 or 1 exactly; rounding must not push it across.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == trials else min(1.0, centre + half)


def new_record(
    *,
    labels: np.ndarray,
    indices: np.ndarray,
    clean_predictions: np.ndarray,
    settings: dict[str, Any],
    record_losses: bool = False,
    image_shape: tuple[int, ...] | None = None,
) -> AttackRecord:
    """A record before the first restart.

    Args:
      labels, indices, clean_predictions, settings: see `AttackRecord`.
      record_losses: also run, and note, every restart of images that are already broken.
      image_shape: keep the images that broke, of this shape; None: do not.
    """
    n = len(labels)
    return AttackRecord(
        labels=labels.astype(np.int32),
        indices=indices.astype(np.int64),
        clean_predictions=clean_predictions.astype(np.int32),
        first_break=np.full(n, -1, np.int32),
        next_restart=np.zeros(n, np.int32),
        nonfinite_gradients=np.zeros(n, np.int32),
        settings=settings,
        sessions=[],
        losses=np.empty((n, 0), np.float32) if record_losses else None,
        broken=np.empty((n, 0), bool) if record_losses else None,
        adversarial=np.zeros((n, *image_shape), np.float32) if image_shape else None,
    )


_ARRAYS = (
    "labels",
    "indices",
    "clean_predictions",
    "first_break",
    "next_restart",
    "nonfinite_gradients",
)
_OPTIONAL = ("losses", "broken", "adversarial")


def save_record(path: Path, record: AttackRecord) -> None:
    """Writes a record as `.npz`, atomically; settings and sessions are JSON text in it."""
    arrays = {name: getattr(record, name) for name in _ARRAYS}
    arrays |= {name: v for name in _OPTIONAL if (v := getattr(record, name)) is not None}
    write_arrays(path, arrays, settings=record.settings, sessions=record.sessions)


def load_record(path: Path) -> AttackRecord:
    """Reads a record.

    Raises:
      InputError: the file is truncated or no record.
    """
    with reading_arrays(path, what="attack result") as file:
        arrays = {name: file[name] for name in (*_ARRAYS, *_OPTIONAL) if name in file.files}
        # Results of version 0.1 do not have it.
        arrays.setdefault("nonfinite_gradients", np.zeros(len(arrays["labels"]), np.int32))
        return AttackRecord(
            **arrays,
            settings=note(file, "settings"),
            sessions=note(file, "sessions", list[dict[str, Any]]),
        )
