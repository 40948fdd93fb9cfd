"""The base class of attacks: their settings, crafting, cost, description and stored form.

Sizes are on the model's input scale, [0, 1]. Each attack is a frozen dataclass in a separate
module, together with its algorithm; `registry` finds them by name.
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
# How the steps are computed, not which steps: results in another dtype or by Cleverhans' own loop
# are compared with the paper's numbers, and say so.
EXECUTION = ("dtype", "engine")
# The settings that a table's columns vary, and their short names in a line.
VARIED = {"eps": "eps", "eps_iter": "eps_iter", "learning_rate": "learning_rate"} | {
    "nb_iter": "n",
    "restarts": "r",
}
# Every stored result has these settings, whether its attack does or not: the first version wrote
# them. Any other setting is stored only where it differs from its default, so that results from
# before the setting existed are still found.
ALWAYS_STORED: Mapping[str, Any] = {
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
# Settings of version 0.1 that are gone, each with the value at which it had no effect.
REMOVED_SETTINGS: Mapping[str, Any] = {"budget": 0, "search": 0, "plain_step": 1.0}
# The cost of a query in gradients: a query is a forward pass, a gradient a forward and a backward.
QUERY_COST = 0.5
MAX_STEPS, MAX_RESTARTS = 10**6, 10**7
SIZE = {"size": True}  # marks a field that people read and write on the 0-255 scale
STEPS = {"most": MAX_STEPS}  # marks a count from 1


class Cost(NamedTuple):
    """The most passes over the model that one restart of an attack makes for an image."""

    gradients: int = 0
    queries: int = 0


class Crafted(NamedTuple):
    """The images that a run of an attack crafted.

    adversarial: float32 like the images; nonfinite_gradients: int32 [batch], steps whose gradient
    had entries that are not finite, which counted as 0.
    """

    adversarial: tf.Tensor
    nonfinite_gradients: tf.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack(abc.ABC):
    """The base class of all L∞ attacks; sizes are on the model's input scale, [0, 1].

    To write an attack, inherit from this class in a frozen dataclass that defines `name`, `craft`
    and `cost`, and register it with `registry.register`.

    Attributes:
      eps: radius of the ball; 0 leaves the clean images.
      restarts: independent full runs, each with its own random numbers (paper: r).
      dtype: of the crafting passes; the verdict is always float32.
      name: the attack's name in flags and results.
      tensor_settings: settings that a compiled program takes as tensors, so that attacks which
        differ only in these share a program; the others are part of the program.
      needs_gradient: the attack follows the model's gradient and cannot move without one.
      is_paper_attack: the defaults are the paper's attack.

    Raises:
      InputError: a size or count out of range, or an unknown choice; the message says what is
        allowed.
    """

    eps: float = dataclasses.field(metadata=SIZE)
    restarts: int = dataclasses.field(default=1, metadata={"most": MAX_RESTARTS})
    dtype: Dtype = "float32"

    name: ClassVar[str]
    tensor_settings: ClassVar[tuple[str, ...]] = ("eps",)
    needs_gradient: ClassVar[bool] = True
    is_paper_attack: ClassVar[bool] = False

    @abc.abstractmethod
    def craft(self, logits: LogitsFunction, items: CraftItems) -> Crafted:
        """Craft an adversarial image for each item, with no gradient through the crafting.

        Random numbers depend only on an item's seed, restart and image index, and the outcome of an
        item on no other item of the batch. Unless `compiled` is False, everything is TensorFlow
        with static shapes and stateless random numbers. The caller clips the images to the ball and
        classifies them.

        Args:
          logits: the crafting model, float32 images to float32 logits.
          items: a batch.
        """

    @property
    @abc.abstractmethod
    def cost(self) -> Cost:
        """The most that one restart takes for an image."""

    def cost_of(self, restarts: np.ndarray | int) -> np.ndarray:
        """Return the cost of an image's first restarts in gradients, int; a query counts half."""
        gradients, queries = self.cost
        return np.asarray(restarts * (gradients + QUERY_COST * queries)).astype(np.int64)

    @property
    def gradients(self) -> int:
        """The most gradients per image, on average over the images; see `cost_of`."""
        return int(self.cost_of(self.restarts))

    @property
    def compiled(self) -> bool:
        """True if `craft` can be traced into a program."""
        return True

    @property
    def min_classes(self) -> int:
        """The fewest classes for which the attack is defined."""
        return 2

    def __post_init__(self) -> None:
        """Convert NumPy numbers to Python's and check every setting."""
        for name, kind in setting_types(type(self)).items():
            value = getattr(self, name)
            if kind in (float, int, bool):
                object.__setattr__(self, name, _plain(name, value, kind))
            elif get_origin(kind) is Literal and value not in get_args(kind):
                choices = ", ".join(map(str, get_args(kind)))
                raise InputError(f"attack {name}={quoted(value)}: expected one of {choices}")
        self.check()

    def check(self) -> None:
        """Raise InputError on settings out of range or in conflict; subclasses add their own."""
        smallest = float(np.finfo(np.float32).tiny)
        if not (self.eps == 0 or smallest <= self.eps <= 1):
            raise InputError(
                f"attack eps {self.eps * 255:g}: expected 0, or a size up to 255 (0-255 scale) "
                "that float32 can represent"
            )
        for field in dataclasses.fields(self):
            most, value = field.metadata.get("most"), getattr(self, field.name)
            if most is None:
                continue
            if value < 1:
                raise InputError(f"attack {field.name} {quoted(value)}: expected 1 or more")
            if value > most:
                raise InputError(f"attack {field.name} {quoted(value)}: expected at most {most:,}")

    def replace_unchecked(self: A, **values: Any) -> A:
        """Return a copy with other values, which may be tensors and are not checked."""
        held = copy.copy(self)
        for name, value in values.items():
            object.__setattr__(held, name, value)
        return held

    def non_default_settings(self, *, leaving_out: Collection[str] = ()) -> dict[str, Any]:
        """Return how this attack differs from the paper's PGD: {setting: value}, sizes on [0, 1].

        The paper varies eps, eps_iter, nb_iter and restarts. Any other field is included if its
        value is not its default, and so is any other method. Tables, captions, progress lines, file
        names and error messages all use this, so that no field can be forgotten.

        Args:
          leaving_out: fields that do not count, such as `EXECUTION` when comparing attacks.
        """
        found = {} if self.is_paper_attack else {"method": self.name}
        found |= {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in VARIED and getattr(self, field.name) != field.default
        }
        return {name: value for name, value in found.items() if name not in leaving_out}

    def non_default_text(self, *, leaving_out: Collection[str] = ()) -> str:
        """Format `non_default_settings` as in flags, sizes on the 0-255 scale; "" for none."""
        found = self.non_default_settings(leaving_out=leaving_out)
        return " ".join(f"{name}={self._shown(name, value)}" for name, value in found.items())

    @property
    def varied(self) -> dict[str, str]:
        """The settings that a table's columns vary, as text, sizes on the 0-255 scale."""
        own = {field.name for field in dataclasses.fields(self)}
        return {name: self._shown(name, getattr(self, name)) for name in VARIED if name in own}

    def __str__(self) -> str:
        """Describe the attack in one line for captions and progress, sizes on the 0-255 scale."""
        words = [self.name, *(f"{VARIED[name]}={text}" for name, text in self.varied.items())]
        return " ".join([*words, self.non_default_text(leaving_out=("method",))]).rstrip()

    def _shown(self, name: str, value: Any) -> str:
        if name in size_settings(type(self)):
            return f"{value * 255:g}"
        if isinstance(value, bool):
            return str(value).lower()
        return f"{value:g}" if name in VARIED and isinstance(value, float) else str(value)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as results store them; equal attacks give equal settings."""
        changed = self.non_default_settings()
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        kept = {n: v for n, v in own.items() if n in VARIED or n in ALWAYS_STORED or n in changed}
        stored = {"method": self.name, **self.extra_stored_settings(), **kept}
        # File names list the settings in this order.
        return {n: stored[n] for n in ("method", *VARIED, *ALWAYS_STORED) if n in stored} | stored

    def extra_stored_settings(self) -> Mapping[str, Any]:
        """Return what `to_json` stores besides the attack's own settings."""
        return {}

    @classmethod
    def from_stored(cls: type[A], stored: Mapping[str, Any]) -> A:
        """Return the attack of stored settings without the method, of this version or earlier.

        Raises:
          InputError: an unknown or missing setting, or a value out of range.
        """
        own = {field.name: field for field in dataclasses.fields(cls)}
        for name, value in stored.items():
            if not cls.accepts_setting(name) and REMOVED_SETTINGS.get(name) != value:
                raise InputError(f"{name}: the attack {cls.name} has no such setting")
        needed = [n for n, f in own.items() if f.default is dataclasses.MISSING and n not in stored]
        if needed:
            raise InputError(f"{needed[0]} is missing: the attack {cls.name} requires it")
        return cls(**{name: value for name, value in stored.items() if name in own})

    @classmethod
    def accepts_setting(cls, name: str) -> bool:
        """Return whether stored settings of this attack may have one of this name."""
        return name in setting_types(cls) or name in ALWAYS_STORED or name in VARIED

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Have `decoding` read a field of this type by the name of its method."""
        from pydantic import PlainValidator

        from alp_repro.attacks.registry import attack_from_json

        return handler.generate_schema(Annotated[Any, PlainValidator(attack_from_json)])


@functools.cache
def size_settings(attack: type[Attack]) -> frozenset[str]:
    """Return the names of the settings that flags and tables have on the 0-255 scale."""
    return frozenset(f.name for f in dataclasses.fields(attack) if f.metadata.get("size"))


@functools.cache
def setting_types(attack: type[Attack]) -> dict[str, Any]:
    """Return the type of each setting."""
    hints = get_type_hints(attack)
    return {field.name: hints[field.name] for field in dataclasses.fields(attack)}


def _plain(name: str, value: Any, kind: type) -> Any:
    """Return a value as a plain Python number: results are written as JSON."""
    if kind is bool and isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, bool | np.bool_) or kind is bool:
        pass
    elif kind is int and isinstance(value, numbers.Integral):
        return int(value)
    elif kind is float and isinstance(value, numbers.Real):
        with contextlib.suppress(OverflowError):
            return float(value)
    expected = {int: "a whole number", float: "a number", bool: "True or False"}[kind]
    raise InputError(f"attack {name}={quoted(value)}: expected {expected}")
