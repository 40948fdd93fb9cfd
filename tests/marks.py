"""Which cases of a parametrised test `make test` runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_unless(quick: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """The cases, all but the quick ones marked as slow."""
    return [pytest.param(one, marks=() if one in quick else pytest.mark.slow) for one in cases]
