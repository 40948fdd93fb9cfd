"""Converts the numbers of settings to plain Python numbers in a range, with errors in one line."""

from __future__ import annotations

import numbers
from typing import Any

from alp_repro.errors import InputError

LARGEST_SEED = 2**31 - 1
_LONGEST = 60  # characters


def whole_number(value: Any, *, name: str, low: int, high: int) -> int:
    """Convert a whole number of any type (NumPy's too) to an int.

    Args:
      value: the given value.
      name: of the setting, for the error.
      low, high: the least and the largest valid number.

    Raises:
      InputError: it is not a whole number (1.5, True, "3") or is outside the range.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (whole and low <= value <= high):
        raise InputError(f"{name} {quoted(value)}: expected a whole number from {low} to {high}")
    return int(value)


def checked_seed(seed: Any) -> int:
    """Return a seed as a Python int; InputError if it is not valid."""
    return whole_number(seed, name="seed", low=0, high=LARGEST_SEED)


def number(
    value: Any, *, name: str, low: float, high: float, above: bool = False, below: bool = False
) -> float:
    """Convert a real number of any type to a float.

    Args:
      value: the given value.
      name: of the setting, for the error.
      low, high: the ends of the range, which belong to it, except:
      above, below: the range excludes its lower, or upper, end.

    Raises:
      InputError: it is not a number, not finite, or outside the range.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if (
        not (real and low <= value <= high)  # NaN is not; 10**400 is no float to ask isfinite of
        or (above and value == low)
        or (below and value == high)
    ):
        ends = f"{'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"
        raise InputError(f"{name} {quoted(value)}: expected a number in {ends}")
    return float(value)


def quoted(value: Any) -> str:
    """Format a wrong value for an error, shortened to fit into a line."""
    try:
        text = repr(value) if isinstance(value, str) else str(value)
    except ValueError:  # Python prints no int of thousands of digits
        text = f"{type(value).__name__} with too many digits to print"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
