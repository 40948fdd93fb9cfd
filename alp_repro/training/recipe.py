"""A training recipe: all settings of one row of a table (paper, section 2; protocol)."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from alp_repro.losses import PENALTIES
from alp_repro.training.objective import Objective
from alp_repro.training.schedule import Schedule
from alp_repro.validation import decoding
from alp_repro.validation.arguments import checked_bool, checked_instance
from alp_repro.validation.plain_numbers import checked_seed, number, whole_number

P = TypeVar("P")
_ALWAYS_STORED = ("clp", "lsq", "alp")
_LARGEST_WIDTH = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """The model and the data set of a training.

    Attributes:
      dataset, model: names known to `data.specs` and `models`.
      model_width: narrows the model (None: the paper's width).
      batch_norm_decay: decay of batch norm's moving averages (None: the model's own, which is 0.999
        in ResNet20-v2 and 0.997 in ResNet50-v2).
      augment: random crop, flip and saturation (Tiny ImageNet).
      seed: seeds the weights, the order, the noise and the training attack.

    Raises:
      InputError: a value out of range.
    """

    dataset: str
    model: str
    model_width: int | None = None
    batch_norm_decay: float | None = None
    augment: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Convert NumPy numbers to Python's and check each setting."""
        for name in ("dataset", "model"):
            checked_instance(getattr(self, name), str, name=name)
        object.__setattr__(self, "augment", checked_bool(self.augment, name="augment"))
        if self.model_width is not None:
            width = whole_number(self.model_width, name="model_width", low=1, high=_LARGEST_WIDTH)
            object.__setattr__(self, "model_width", width)
        if self.batch_norm_decay is not None:
            decay = number(
                self.batch_norm_decay, name="batch_norm_decay", low=0, high=1, below=True
            )
            object.__setattr__(self, "batch_norm_decay", decay)
        object.__setattr__(self, "seed", checked_seed(self.seed))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Schedule, Objective, Subject):
    """The settings of a training: the fields of a subject, an objective and a schedule.

    Each part is used where it is needed: the training step gets only the `objective` and the seed,
    not the data set or the epochs.

    Raises:
      InputError: a value out of range or settings in conflict.

    Examples:
      >>> recipe = alp_repro.Recipe(
      ...     dataset="mnist", model="lenet", epochs=1, batch_size=50, penalties={"clp": 0.5}
      ... )
      >>> recipe.objective.penalties
      {'clp': 0.5}
    """

    def __post_init__(self) -> None:
        """Check the parts and their combination."""
        for part in (Subject, Schedule, Objective):
            part.__post_init__(self)
        self.check_batch(self.batch_size)

    @property
    def subject(self) -> Subject:
        """The model and the data set."""
        return self._part(Subject)

    @property
    def objective(self) -> Objective:
        """The loss of a training step."""
        return self._part(Objective)

    @property
    def schedule(self) -> Schedule:
        """The length and the optimizer of the training."""
        return self._part(Schedule)

    def _part(self, kind: type[P]) -> P:
        names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
        return kind(**{name: getattr(self, name) for name in names})

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data, different for different recipes.

        Each penalty has its own key; the paper's are always present, with 0 if not used.
        """
        described = super().to_json()
        for newer in ("cyclic_peak", "batch_norm_decay"):  # what is stored stays as before
            if described[newer] is None:
                del described[newer]
        weights, seed = described.pop("penalties"), described.pop("seed")
        # The seed comes last: captions list the settings in this order.
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
        """Return the recipe that `to_json` wrote; settings newer than its version get defaults.

        Args:
          found: JSON data.
          source: where it was read from, for the error.

        Raises:
          InputError: it is not a recipe, in one line.
        """
        described = decoding.from_plain(found, dict[str, Any], source=source)
        weights = {name: described.pop(name) for name in PENALTIES if name in described}
        recipe: Recipe = decoding.from_plain(
            {**described, "penalties": weights}, cls, source=source, advice="it is not a recipe"
        )
        return recipe
