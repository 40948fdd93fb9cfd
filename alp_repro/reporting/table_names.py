"""What tables are called: the paper's by their numbers, ours by a name."""

from __future__ import annotations

import csv
import io
from importlib import resources

TableName = int | str
# Ours, of what came after the paper, on MNIST and on CIFAR-10: their numbers have none of the
# paper's beside them. The first is also the name of their scale.
FOLLOWUPS = "followups"
OURS = (FOLLOWUPS, "followups_cifar10")


def is_papers(table: TableName) -> bool:
    """Return whether the paper has this table, with numbers to compare with."""
    return isinstance(table, int)


def table_title(table: TableName) -> str:
    """Return what a table is called in headings."""
    return f"Table {table}" if is_papers(table) else "Follow-ups"


def table_stem(table: TableName) -> str:
    """Return what the names of a table's files begin with."""
    return f"table{table}" if is_papers(table) else str(table)


def reference_rows(name: str) -> list[dict[str, str]]:
    """Return the lines of a CSV file that comes with the package, by their titles."""
    file = resources.files("alp_repro.reporting") / "reference" / name
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
