"""Where a training is, told after each step, and what it is to be watched on."""

from __future__ import annotations

import dataclasses

import numpy as np

from alp_repro.attacks.base import Attack


@dataclasses.dataclass(frozen=True)
class TrainingProgress:
    """Where a training is.

    Attributes:
      epoch: counted from 1.
      epochs: of the whole training.
      step: steps of this epoch that are done.
      steps: of an epoch.
      loss: mean over this epoch so far.
      images_per_second: since the first step, which compiles, was done; None until then.
      seconds_left: at that rate; None until there is one.
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
    """Test images on which a training's clean and adversarial accuracy are logged now and then.

    Attributes:
      images: uint8 or float [n, height, width, channels], attacked as one batch.
      labels: int [n].
      attack: one restart of it is run.
      every: epochs between two looks; the last epoch is always one.
    """

    images: np.ndarray
    labels: np.ndarray
    attack: Attack
    every: int
