"""What an attack is: settings of its own, how it crafts, what it costs, how it is told and kept.

Sizes are on the model's input scale, [0, 1]. An attack is a frozen dataclass in a module of its
own, beside its algorithm; `registry` knows them by name.
"""

from __future__ import annotations

import abc
import contextlib
import copy
import dataclasses
import functools
import numbers
from collections.abc import Collection, Mapping
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from alp_repro.errors import InputError
from alp_repro.system.dtypes import Dtype
from alp_repro.validation.plain_numbers import quoted

if TYPE_CHECKING:
    import tensorflow as tf

    from alp_repro.attacks.batches import CraftItems
    from alp_repro.models.copies import LogitsFunction

A = TypeVar("A", bound="Attack")
# How the steps are computed, not which: results in another dtype or by Cleverhans' own loop are
# compared with the paper's numbers, and say so.
EXECUTION = ("dtype", "engine")
# What a table's columns vary of an attack, and how a line calls it.
VARIED = {"eps": "eps", "eps_iter": "eps_iter", "learning_rate": "learning_rate"} | {
    "nb_iter": "n",
    "restarts": "r",
}
# What every result has said of its attack since results were first kept, whether the attack has
# such a setting or not. Any other is kept where it departs from its default, so that results of
# before it was there are still found.
FIRST_FORM: Mapping[str, Any] = {
    "loss": "cross_entropy",
    "step_schedule": "constant",
    "momentum": 0.0,
    "gradient_noise": 0.0,
    "success": "last",
    "target": "none",
    "random_start": True,
    "dtype": "float32",
    "engine": "loop",
}
# Settings that results of version 0.1 have, each with the value at which it did nothing.
FORMER: Mapping[str, Any] = {"budget": 0, "search": 0, "plain_step": 1.0}
# What a query costs in gradients: a forward pass, where a gradient is a forward and a backward one.
QUERY_COST = 0.5
MOST_STEPS, MOST_RESTARTS = 10**6, 10**7
SIZE = {"size": True}  # marks a field that people read and write on the 0-255 scale
STEPS = {"most": MOST_STEPS}  # marks a count from 1


class Cost(NamedTuple):
    """What one restart of an attack takes of an image at the most: passes over the model."""

    gradients: int = 0
    queries: int = 0


class Crafted(NamedTuple):
    """What a run of an attack ends with.

    adversarial: float32 like the images; nonfinite_gradients: int32 [batch], steps whose gradient
    had entries that are not finite, which counted as 0.
    """

    adversarial: tf.Tensor
    nonfinite_gradients: tf.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack(abc.ABC):
    """What all L∞ attacks have in common; sizes are on the model's input scale, [0, 1].

    An attack of one's own is a frozen dataclass that inherits from this one, names itself, crafts
    and says its cost; `registry.register` makes it known.

    Attributes:
      eps: radius of the ball; 0 leaves the clean images.
      restarts: independent full runs, each with its own random numbers (paper: r).
      dtype: of the crafting passes; the verdict is always float32.
      name: that flags and results have.
      numbers: settings that a compiled program takes as tensors, so that attacks which differ in
        these alone share it; the others are part of the program.
      needs_gradient: it follows the model's own, so that without one it stands still.
      of_the_paper: its defaults are the paper's attack.

    Raises:
      InputError: a size or count out of range, or an unknown choice, named with what is allowed.
    """

    eps: float = dataclasses.field(metadata=SIZE)
    restarts: int = dataclasses.field(default=1, metadata={"most": MOST_RESTARTS})
    dtype: Dtype = "float32"

    name: ClassVar[str]
    numbers: ClassVar[tuple[str, ...]] = ("eps",)
    needs_gradient: ClassVar[bool] = True
    of_the_paper: ClassVar[bool] = False

    @abc.abstractmethod
    def craft(self, logits: LogitsFunction, items: CraftItems) -> Crafted:
        """Craft an adversarial image for each item, with no gradient through the crafting.

        What is drawn depends on an item's seed, restart and image index alone, and its outcome on
        no other item of the batch. All is TensorFlow, of static shapes and stateless, unless
        `compiled` says that it cannot be. Images are clipped to the ball and judged by the caller.

        Args:
          logits: the crafting model, float32 images to float32 logits.
          items: a batch.
        """

    @property
    @abc.abstractmethod
    def cost(self) -> Cost:
        """What one restart takes of an image, at the most."""

    def cost_of(self, restarts: np.ndarray | int) -> np.ndarray:
        """Return what an image's first so many restarts take, int, a query as half a gradient."""
        gradients, queries = self.cost
        return np.asarray(restarts * (gradients + QUERY_COST * queries)).astype(np.int64)

    @property
    def gradients(self) -> int:
        """What an image costs at the most, on average over the images; see `cost_of`."""
        return int(self.cost_of(self.restarts))

    @property
    def compiled(self) -> bool:
        """Whether `craft` may be traced into a program."""
        return True

    @property
    def least_classes(self) -> int:
        """How many classes a model must have for the attack to be defined."""
        return 2

    def __post_init__(self) -> None:
        """Makes numbers of NumPy's plain ones and checks every setting."""
        for name, kind in kinds(type(self)).items():
            value = getattr(self, name)
            if kind in (float, int, bool):
                object.__setattr__(self, name, _plain(name, value, kind))
            elif get_origin(kind) is Literal and value not in get_args(kind):
                choices = ", ".join(map(str, get_args(kind)))
                raise InputError(f"attack {name}={quoted(value)}: one of {choices}")
        self.check()

    def check(self) -> None:
        """Refuse settings out of range, or that contradict each other; a subclass adds its own."""
        smallest = float(np.finfo(np.float32).tiny)
        if not (self.eps == 0 or smallest <= self.eps <= 1):
            raise InputError(
                f"attack eps {self.eps * 255:g}: 0, or a size up to 255 on the 0-255 scale that "
                "float32 holds, is needed"
            )
        for field in dataclasses.fields(self):
            most, value = field.metadata.get("most"), getattr(self, field.name)
            if most is None:
                continue
            if value < 1:
                raise InputError(
                    f"attack {field.name} {quoted(value)}: a count of 1 or more is needed"
                )
            if value > most:
                raise InputError(
                    f"attack {field.name} {quoted(value)}: more than {most:,} is out of reach"
                )

    def holding(self: A, **values: Any) -> A:
        """Return the same attack with a graph's tensors for some of its `numbers`."""
        held = copy.copy(self)
        for name, value in values.items():
            object.__setattr__(held, name, value)
        return held

    def non_default_settings(self, *, leaving_out: Collection[str] = ()) -> dict[str, Any]:
        """How this attack differs from the paper's PGD: {setting: value}, sizes on [0, 1].

        The paper varies eps, eps_iter, nb_iter and restarts; every other field, whichever there
        are, departs where its value is not its default, and so does another method. Tables,
        captions, progress lines, file names and refusals ask here, so that no field can be
        forgotten.

        Args:
          leaving_out: fields that do not count, as `EXECUTION` for whether the attack is another.
        """
        found = {} if self.of_the_paper else {"method": self.name}
        found |= {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in VARIED and getattr(self, field.name) != field.default
        }
        return {name: value for name, value in found.items() if name not in leaving_out}

    def non_default_text(self, *, leaving_out: Collection[str] = ()) -> str:
        """Format `non_default_settings` as flags do, sizes on the 0-255 scale; "" for none."""
        found = self.non_default_settings(leaving_out=leaving_out)
        return " ".join(f"{name}={self._shown(name, value)}" for name, value in found.items())

    @property
    def varied(self) -> dict[str, str]:
        """What a table's columns vary, as text: {setting: value}, sizes on the 0-255 scale."""
        own = {field.name for field in dataclasses.fields(self)}
        return {name: self._shown(name, getattr(self, name)) for name in VARIED if name in own}

    def __str__(self) -> str:
        """One line for captions and progress, sizes on the 0-255 scale."""
        words = [self.name, *(f"{VARIED[name]}={text}" for name, text in self.varied.items())]
        return " ".join([*words, self.non_default_text(leaving_out=("method",))]).rstrip()

    def _shown(self, name: str, value: Any) -> str:
        if name in size_settings(type(self)):
            return f"{value * 255:g}"
        if isinstance(value, bool):
            return str(value).lower()
        return f"{value:g}" if name in VARIED and isinstance(value, float) else str(value)

    def to_json(self) -> dict[str, Any]:
        """The settings as results store them; equal for equal attacks, whichever fields come."""
        departing = self.non_default_settings()
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        kept = {n: v for n, v in own.items() if n in VARIED or n in FIRST_FORM or n in departing}
        told = {"method": self.name, **self.told_besides(), **kept}
        # In the order in which files' names have always told them.
        return {n: told[n] for n in ("method", *VARIED, *FIRST_FORM) if n in told} | told

    def told_besides(self) -> Mapping[str, Any]:
        """What `to_json` says beside the attack's own settings: those of results' first form."""
        return {}

    @classmethod
    def from_stored(cls: type[A], told: Mapping[str, Any]) -> A:
        """Return the attack of what `to_json` wrote, in this version or before, but the method.

        Raises:
          InputError: settings that it does not have, a missing one, or a value out of range.
        """
        own = {field.name: field for field in dataclasses.fields(cls)}
        for name, value in told.items():
            if not cls.knows(name) and FORMER.get(name) != value:
                raise InputError(f"{name}: the attack {cls.name} has no such setting")
        needed = [n for n, f in own.items() if f.default is dataclasses.MISSING and n not in told]
        if needed:
            raise InputError(f"{needed[0]}: missing, which the attack {cls.name} needs")
        return cls(**{name: value for name, value in told.items() if name in own})

    @classmethod
    def knows(cls, name: str) -> bool:
        """Whether a result may say this of such an attack."""
        return name in kinds(cls) or name in FIRST_FORM or name in VARIED

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """For `decoding`: a field of this type is read by the name of its method."""
        from pydantic import PlainValidator

        from alp_repro.attacks.registry import attack_from_json

        return handler.generate_schema(Annotated[Any, PlainValidator(attack_from_json)])


@functools.cache
def size_settings(attack: type[Attack]) -> frozenset[str]:
    """Return the names of the settings that flags and tables have on the 0-255 scale."""
    return frozenset(f.name for f in dataclasses.fields(attack) if f.metadata.get("size"))


@functools.cache
def kinds(attack: type[Attack]) -> dict[str, Any]:
    """Return the type of each setting."""
    hints = get_type_hints(attack)
    return {field.name: hints[field.name] for field in dataclasses.fields(attack)}


def _plain(name: str, value: Any, kind: type) -> Any:
    """A value as plain Python has it: results are written as JSON."""
    if kind is bool and isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, bool | np.bool_) or kind is bool:
        pass
    elif kind is int and isinstance(value, numbers.Integral):
        return int(value)
    elif kind is float and isinstance(value, numbers.Real):
        with contextlib.suppress(OverflowError):
            return float(value)
    needed = {int: "a whole number", float: "a number", bool: "True or False"}[kind]
    raise InputError(f"attack {name}={quoted(value)}: {needed} is needed")
