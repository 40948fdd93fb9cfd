"""Shared by all tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

MISSING = "–"


def line(fields: Sequence[str]) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(fields) + " |"
