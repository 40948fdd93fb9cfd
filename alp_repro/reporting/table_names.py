"""What tables are called: the paper's by their numbers, ours by a name."""

from __future__ import annotations

TableName = int | str
# Ours, of what came after the paper: its numbers have none of the paper's beside them.
FOLLOWUPS = "followups"


def is_papers(table: TableName) -> bool:
    """Return whether the paper has this table, with numbers to compare with."""
    return isinstance(table, int)


def table_title(table: TableName) -> str:
    """Return what a table is called in headings."""
    return f"Table {table}" if is_papers(table) else "Follow-ups"


def table_stem(table: TableName) -> str:
    """Return what the names of a table's files begin with."""
    return f"table{table}" if is_papers(table) else str(table)
