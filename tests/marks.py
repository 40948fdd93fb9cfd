"""Which cases of a parametrised test `make test` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def slow_unless(quick: Callable[[Any], object], cases: Iterable[Any]) -> list[Any]:
    """The cases, those marked as slow for which `quick` is false."""
    return [pytest.param(one, marks=() if quick(one) else pytest.mark.slow) for one in cases]
