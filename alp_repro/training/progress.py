"""Where a training is, told after each step."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import keras

from alp_repro.training.recipe import Recipe


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


class Report(keras.callbacks.Callback):
    """Calls a function with a `TrainingProgress` after each step and each epoch.

    It belongs at the end of the callbacks, behind the one that saves.
    """

    def __init__(
        self,
        report: Callable[[TrainingProgress], None],
        recipe: Recipe,
        *,
        epochs: int,
        steps: int,
    ) -> None:
        """Takes what to call, and how many epochs of how many steps there are."""
        super().__init__()
        self._report, self._batch, self._epochs, self._steps = (
            report,
            recipe.batch_size,
            epochs,
            steps,
        )
        self._last = recipe.max_steps or epochs * steps
        self._epoch, self._loss = 0, float("nan")
        self._first: float | None = None
        self._done = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Tells of a step."""
        self._loss = float((logs or {}).get("loss", self._loss))
        if self._first is None:
            self._first = time.monotonic()
        else:
            self._done += 1
        self._tell(batch + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Tells of an epoch."""
        self._tell(self._steps)

    def _tell(self, step: int) -> None:
        rate = left = None
        if self._first is not None and self._done:
            per_step = (time.monotonic() - self._first) / self._done
            rate = self._batch / per_step
            left = (self._last - self._epoch * self._steps - step) * per_step
        self._report(
            TrainingProgress(
                self._epoch + 1, self._epochs, step, self._steps, self._loss, rate, left
            )
        )
