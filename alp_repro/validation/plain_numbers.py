"""Numbers of settings as plain Python numbers in a range; what is none is told in one line."""

from __future__ import annotations

import numbers
from typing import Any

from alp_repro.errors import InputError

_LONGEST = 60  # characters


def whole_number(value: Any, *, name: str, low: int, high: int) -> int:
    """A whole number of any kind (NumPy's too) as an int.

    Args:
      value: what was given.
      name: of the setting, for the error.
      low, high: the least and the largest that is right.

    Raises:
      InputError: it is no whole number (1.5, True, "3") or lies outside.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (whole and low <= value <= high):
        raise InputError(f"{name} {shown(value)}: a whole number from {low} to {high} is needed")
    return int(value)


def number(
    value: Any, *, name: str, low: float, high: float, above: bool = False, below: bool = False
) -> float:
    """A real number of any kind as a float.

    Args:
      value: what was given.
      name: of the setting, for the error.
      low, high: the ends of the range, which belong to it but for
      above, below: the lower or the upper end is left out.

    Raises:
      InputError: it is no number, not finite, or lies outside.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if (
        not (real and low <= value <= high)  # NaN is not; 10**400 is no float to ask isfinite of
        or (above and value == low)
        or (below and value == high)
    ):
        ends = f"{'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"
        raise InputError(f"{name} {shown(value)}: a number in {ends} is needed")
    return float(value)


def shown(value: Any) -> str:
    """A wrong value as an error quotes it: no longer than a line has room for."""
    try:
        text = repr(value) if isinstance(value, str) else str(value)
    except ValueError:  # Python prints no int of thousands of digits
        text = f"{type(value).__name__} of very many digits"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
