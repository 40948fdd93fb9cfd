"""How a user calls a binary: with Python from a checkout, or by its name where it is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alp_repro.errors import MissingDataError
    from alp_repro.reporting.table_names import TableName


def command(binary: str) -> str:
    """The words that a command begins with; the package has another name where it is installed."""
    if __package__.split(".")[0] == "experiments":
        return f"python -m experiments.{binary}"
    return f"alp-{binary.replace('_', '-')}"


def table_command(number: TableName, scale: str) -> str:
    """What makes a table."""
    return f"{command('table')} --table={number} --scale={scale}"


def prepare_command(missing: MissingDataError) -> str:
    """What makes a data set from files that were brought by hand."""
    return (
        f"{command('prepare_data')} --dataset={missing.dataset} --source=PATH "
        f"--data_dir={missing.data_dir}"
    )
