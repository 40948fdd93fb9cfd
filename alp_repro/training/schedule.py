"""The schedule of a training: epochs, batches, the optimizer and its learning rate."""

from __future__ import annotations

import dataclasses
from typing import get_args

from alp_repro.errors import InputError
from alp_repro.system.dtypes import Dtype
from alp_repro.validation.arguments import checked_bool
from alp_repro.validation.plain_numbers import number, quoted, whole_number

_MAX_EPOCHS = 10**6
# The smallest and the largest value of a count; the largest is far beyond any real training.
_COUNTS = {"epochs": (1, _MAX_EPOCHS), "batch_size": (1, 10**6)}
_OPTIONAL_COUNTS = {"max_steps": (1, 10**9), "train_images": (1, 10**8)}
_POSITIVE = (("learning_rate", 1e-12, 1e3), ("adam_epsilon", 1e-30, 1.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """The length and the optimizer of a training.

    Attributes:
      learning_rate: of Adam (β 0.9 and 0.999).
      adam_epsilon: Adam's ε: 1e-6, but 1e-8 on Tiny ImageNet.
      learning_rate_drops: epochs (from 0) at which the learning rate is divided by 10.
      cyclic_peak: use a cyclic learning rate (`rates.TriangularRate`) that is largest after this
        share of the steps: 0.4 in fast adversarial training on MNIST, 0.5 on CIFAR-10; None:
        constant.
      average_decay: decay of a moving average of the weights, saved with the raw ones; 0: none.
      epochs, batch_size: the last batch of an epoch may be smaller.
      max_steps: the training ends after this many steps if its epochs have more.
      train_images: use only the first images of the training set; None: all.
      dtype: of the forward and backward passes; weights, losses, penalties and the optimizer are
        always float32. For crafting see `attack.dtype`.
      round_weights: round the finished model's weights to bfloat16 (stored as float32), so that
        they compress to half the size.

    Raises:
      InputError: a value out of range.
    """

    learning_rate: float = 0.001
    adam_epsilon: float = 1e-6
    learning_rate_drops: tuple[int, ...] = ()
    cyclic_peak: float | None = None
    average_decay: float = 0.0
    epochs: int
    max_steps: int | None = None
    batch_size: int
    train_images: int | None = None
    dtype: Dtype = "float32"
    round_weights: bool = False

    def __post_init__(self) -> None:
        """Convert NumPy numbers to Python's and check each setting."""
        given = {k: v for k, v in _OPTIONAL_COUNTS.items() if getattr(self, k) is not None}
        for name, (low, high) in {**_COUNTS, **given}.items():
            value = whole_number(getattr(self, name), name=name, low=low, high=high)
            object.__setattr__(self, name, value)
        for name, least, largest in _POSITIVE:
            rate = number(getattr(self, name), name=name, low=least, high=largest)
            object.__setattr__(self, name, rate)
        decay = number(self.average_decay, name="average_decay", low=0, high=1, below=True)
        object.__setattr__(self, "average_decay", decay)
        if self.cyclic_peak is not None:
            object.__setattr__(self, "cyclic_peak", self._checked_peak(self.cyclic_peak))
        object.__setattr__(self, "learning_rate_drops", self._checked_drops())
        rounded = checked_bool(self.round_weights, name="round_weights")
        object.__setattr__(self, "round_weights", rounded)
        if self.dtype not in get_args(Dtype):
            raise InputError(f"dtype {self.dtype!r}: expected one of {', '.join(get_args(Dtype))}")

    def _checked_peak(self, given: float) -> float:
        if self.learning_rate_drops:
            raise InputError("cyclic_peak and learning_rate_drops contradict each other")
        return number(given, name="cyclic_peak", low=0, high=1, above=True, below=True)

    def _checked_drops(self) -> tuple[int, ...]:
        if not isinstance(self.learning_rate_drops, list | tuple):
            raise InputError(
                f"learning_rate_drops {quoted(self.learning_rate_drops)}: expected epochs, such as "
                "(10, 20)"
            )
        drops = tuple(
            whole_number(drop, name="learning_rate_drops", low=1, high=_MAX_EPOCHS)
            for drop in self.learning_rate_drops
        )
        if list(drops) != sorted(set(drops)):
            given = ", ".join(map(str, drops))
            raise InputError(f"learning_rate_drops {given}: expected ascending epochs")
        return drops
