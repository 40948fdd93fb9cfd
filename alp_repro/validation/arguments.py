"""Checks the arguments of library calls, with errors in one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from alp_repro.errors import InputError, one_line
from alp_repro.validation.decoding import from_plain
from alp_repro.validation.plain_numbers import quoted

if TYPE_CHECKING:
    import tensorflow as tf

T = TypeVar("T")


def checked_instance(value: Any, kind: type[T], *, name: str) -> T:
    """Return the value if it is of this type; InputError if it is not."""
    if not isinstance(value, kind):
        raise InputError(f"{name} is a {type(value).__name__}: expected {_named(kind)}")
    return value


def checked_function(value: Any, *, name: str) -> Callable[..., Any]:
    """Return the value if it is callable; InputError if it is not."""
    if not callable(value):
        raise InputError(f"{name} is a {type(value).__name__}: expected a function")
    return value


def checked_strategy(strategy: Any) -> tf.distribute.Strategy | None:
    """Return the value if it is a strategy of `tf.distribute` or None; InputError if not."""
    if strategy is None:
        return None
    import tensorflow as tf

    if not isinstance(strategy, tf.distribute.Strategy):
        raise InputError(
            f"strategy is a {type(strategy).__name__}: expected a tf.distribute.Strategy, or None"
        )
    return strategy


def checked_bool(value: Any, *, name: str) -> bool:
    """Return a boolean as a bool of Python; InputError if it is something else, as "no" is."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} {quoted(value)}: expected True or False")
    return bool(value)


def checked_array(value: Any, *, name: str) -> np.ndarray:
    """Return the value as an array; InputError if it is not one, as lists of unequal lengths."""
    try:
        return np.asarray(value)
    except Exception as error:  # a value's own __array__ may raise anything
        raise InputError(f"{name}: expected an array ({one_line(error)})") from error


def fits(shape: Sequence[int | None], wanted: Sequence[int | None]) -> bool:
    """Return whether a shape is the wanted one, in which None stands for any length."""
    return len(shape) == len(wanted) and all(
        right in (None, length) for right, length in zip(wanted, shape, strict=True)
    )


def checked_details(details: Any) -> dict[str, Any]:
    """Return further provenance as it comes back from JSON; None: none.

    Raises:
      InputError: it has values that JSON cannot store.
    """
    return {} if details is None else from_plain(details, dict[str, Any], source="details")


def _named(kind: type) -> str:
    plain = dataclasses.is_dataclass(kind)
    return f"{'an' if kind.__name__[0] in 'AEIO' else 'a'} {kind.__name__}" + (
        "" if plain else f" of {kind.__module__.partition('.')[0]}"
    )
