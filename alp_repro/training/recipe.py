"""A training recipe: everything that makes one row of a table (paper, section 2; protocol)."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from alp_repro.losses import PENALTIES
from alp_repro.training.objective import Objective
from alp_repro.training.schedule import Schedule
from alp_repro.validation import decoding
from alp_repro.validation.arguments import checked_instance, checked_switch
from alp_repro.validation.plain_numbers import whole_number

P = TypeVar("P")
_ALWAYS_STORED = ("clp", "lsq", "alp")
_LARGEST_WIDTH = 4096
_LARGEST_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """What is trained, and on what.

    Attributes:
      dataset, model: names known to `data.specs` and `models`.
      model_width: narrows the model (None: the paper's width).
      augment: random crop, flip and saturation (Tiny ImageNet).
      seed: of the weights, the order, the noise and the training attack.

    Raises:
      InputError: a value out of range.
    """

    dataset: str
    model: str
    model_width: int | None = None
    augment: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Makes plain numbers of all numbers, and checks each."""
        for name in ("dataset", "model"):
            checked_instance(getattr(self, name), str, name=name)
        object.__setattr__(self, "augment", checked_switch(self.augment, name="augment"))
        if self.model_width is not None:
            width = whole_number(self.model_width, name="model_width", low=1, high=_LARGEST_WIDTH)
            object.__setattr__(self, "model_width", width)
        seed = whole_number(self.seed, name="seed", low=0, high=_LARGEST_SEED)
        object.__setattr__(self, "seed", seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Schedule, Objective, Subject):
    """How one model is trained: a subject, an objective and a schedule, whose fields it has.

    Each part goes where it is needed: the training step gets the `objective` and the seed, and
    knows neither data set nor epochs.

    Raises:
      InputError: a value out of range or settings that contradict each other.
    """

    def __post_init__(self) -> None:
        """Checks the parts, and that they agree."""
        for part in (Subject, Schedule, Objective):
            part.__post_init__(self)
        self.check_batch(self.batch_size)

    @property
    def subject(self) -> Subject:
        """What is trained, and on what."""
        return self._part(Subject)

    @property
    def objective(self) -> Objective:
        """What a training step minimises."""
        return self._part(Objective)

    @property
    def schedule(self) -> Schedule:
        """How the training proceeds."""
        return self._part(Schedule)

    def _part(self, kind: type[P]) -> P:
        names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
        return kind(**{name: getattr(self, name) for name in names})

    def to_json(self) -> dict[str, Any]:
        """Plain data that `json` writes and that tells two recipes apart.

        A penalty is a key of its own; the paper's are there, as 0, where they are not used.
        """
        described = super().to_json()
        if self.cyclic_peak is None:
            del described["cyclic_peak"]  # as before there was one: what is stored stays the same
        weights, seed = described.pop("penalties"), described.pop("seed")
        # The seed comes last, as it always has: captions tell settings in this order.
        return {
            **described,
            "seed": seed,
            **{
                name: weights.get(name, 0.0)
                for name in PENALTIES
                if name in weights or name in _ALWAYS_STORED
            },
        }

    @classmethod
    def from_json(cls, found: Any, *, source: str) -> Recipe:
        """What `to_json` described, in this version or before; what was no setting then is default.

        Args:
          found: plain data, as JSON gives it.
          source: what it was read from, for the error.

        Raises:
          InputError: it is no recipe, in one line.
        """
        described = decoding.from_plain(found, dict[str, Any], source=source)
        weights = {name: described.pop(name) for name in PENALTIES if name in described}
        recipe: Recipe = decoding.from_plain(
            {**described, "penalties": weights}, cls, source=source, advice="it is no recipe"
        )
        return recipe
