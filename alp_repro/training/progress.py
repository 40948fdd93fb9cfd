"""Progress reports of a training, and the test images on which it is monitored."""

from __future__ import annotations

import dataclasses

import numpy as np

from alp_repro.attacks.base import Attack


@dataclasses.dataclass(frozen=True)
class TrainingProgress:
    """The progress of a training.

    Attributes:
      epoch: the current epoch, from 1.
      epochs: of the whole training.
      step: steps done in this epoch.
      steps: in an epoch.
      loss: mean over this epoch so far.
      images_per_second: without the first step, which compiles; None until it is known.
      seconds_left: at that rate; None until it is known.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images_per_second: float | None
    seconds_left: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Watch:
    """Test images on which a training's clean and adversarial accuracy are logged.

    Attributes:
      images: uint8 or float [n, height, width, channels], attacked as one batch.
      labels: int [n].
      attack: one restart of it is run.
      every: epochs between two evaluations; the last epoch is always evaluated.
    """

    images: np.ndarray
    labels: np.ndarray
    attack: Attack
    every: int
