"""Arguments of library calls, checked where they come in: what does not fit is told in one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from alp_repro.errors import InputError, one_line
from alp_repro.validation.plain_numbers import shown

if TYPE_CHECKING:
    import tensorflow as tf

T = TypeVar("T")


def checked_instance(value: Any, kind: type[T], *, name: str) -> T:
    """Return a value of this type; InputError when it is of another."""
    if not isinstance(value, kind):
        raise InputError(f"{name} is a {type(value).__name__}: expected {_named(kind)}")
    return value


def checked_function(value: Any, *, name: str) -> Callable[..., Any]:
    """Return what can be called; InputError when it cannot."""
    if not callable(value):
        raise InputError(f"{name} is a {type(value).__name__}: expected a function")
    return value


def checked_strategy(strategy: Any) -> tf.distribute.Strategy | None:
    """Return a strategy of `tf.distribute`, or None; InputError when it is neither."""
    if strategy is None:
        return None
    import tensorflow as tf

    if not isinstance(strategy, tf.distribute.Strategy):
        raise InputError(
            f"strategy is a {type(strategy).__name__}: expected a tf.distribute.Strategy, or None"
        )
    return strategy


def checked_switch(value: Any, *, name: str) -> bool:
    """Return a truth value as plain Python has it; InputError when it is none, as "no" is."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} {shown(value)}: expected True or False")
    return bool(value)


def checked_array(value: Any, *, name: str) -> np.ndarray:
    """Return a value as an array; InputError when it is none, as lists of several lengths are."""
    try:
        return np.asarray(value)
    except Exception as error:  # a value's own __array__ may raise anything
        raise InputError(f"{name} that are no array ({one_line(error)})") from error


def _named(kind: type) -> str:
    plain = dataclasses.is_dataclass(kind)
    return f"{'an' if kind.__name__[0] in 'AEIO' else 'a'} {kind.__name__}" + (
        "" if plain else f" of {kind.__module__.partition('.')[0]}"
    )
