"""What all tables in Markdown share."""

from __future__ import annotations

from collections.abc import Sequence

MISSING = "–"


def line(fields: Sequence[str]) -> str:
    """A row of a table."""
    return "| " + " | ".join(fields) + " |"
