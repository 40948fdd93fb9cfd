"""Learning rates that change from step to step."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from alp_repro.validation.plain_numbers import number, whole_number

_LARGEST_RATE = 1e3
_MOST_STEPS = 10**12


@keras.saving.register_keras_serializable(package="alp_repro")
class TriangularRate(keras.optimizers.schedules.LearningRateSchedule):
    """One cycle of a cyclic learning rate: from 0 up to the largest rate and back to 0, in lines.

    Smith 2017, arXiv:1506.01186, as Wong et al. 2020 (arXiv:2001.03994) use it for fast adversarial
    training: with the peak after 2/5 of the steps on MNIST (largest rate 0.005, Adam, 10 epochs)
    and after half of them on CIFAR-10 (0.2, SGD, 15 epochs). For any Keras optimizer:
    `keras.optimizers.Adam(TriangularRate(0.005, steps=6000, peak=0.4))`. After its steps it is 0.

    Args:
      largest_rate: at the peak.
      steps: of the whole training.
      peak: where the peak is, as a share of the steps.

    Raises:
      InputError: a number out of range.
    """

    def __init__(self, largest_rate: float, *, steps: int, peak: float = 0.5) -> None:
        self._largest_rate = number(largest_rate, name="largest_rate", low=0, high=_LARGEST_RATE)
        self._steps = whole_number(steps, name="steps", low=1, high=_MOST_STEPS)
        self._peak = number(peak, name="peak", low=0, high=1, above=True, below=True)

    def __call__(self, step: Any) -> tf.Tensor:
        """Return the rate of a step, counted from 0, float32 []: that of its end, as theirs is."""
        done = (tf.cast(step, tf.float32) + 1.0) / self._steps
        share = tf.minimum(done / self._peak, (1.0 - done) / (1.0 - self._peak))
        return self._largest_rate * tf.clip_by_value(share, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        return {
            "largest_rate": self._largest_rate,
            "steps": self._steps,
            "peak": self._peak,
        }
