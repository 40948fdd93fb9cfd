"""Labels of the paper's rows without their settings."""

from __future__ import annotations

import functools

from alp_repro.data.specs import DATASETS
from alp_repro.reporting.table_names import TableName
from alp_repro.reporting.tables import load_paper_table


@functools.lru_cache
def row_label(number: TableName, row: str) -> str:
    """Return a row's label without its settings: "CLP (λ = 0.5) + N(0, 0.5)" is "CLP".

    A row that the table does not have is called by its name.
    """
    labels = {found.row: found.label for found in load_paper_table(number).rows}
    return labels.get(row, row).partition(" (")[0]


def model_label(dataset: str, row: str) -> str:
    """Return a row's label without its settings by its data set, whose tables have it."""
    numbers = DATASETS[dataset].tables if dataset in DATASETS else ()
    labels = [row_label(number, row) for number in numbers]
    return next((found for found in labels if found != row), row)
