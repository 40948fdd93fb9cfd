"""The command of a binary: `python -m` in a checkout, its console script where it is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alp_repro.errors import MissingDataError
    from alp_repro.reporting.table_names import TableName


def command(binary: str) -> str:
    """Return how a command begins, which depends on whether the package is installed."""
    if __package__.split(".")[0] == "experiments":
        return f"python -m experiments.{binary}"
    return f"alp-{binary.replace('_', '-')}"


def table_command(number: TableName, scale: str) -> str:
    """Return the command that makes a table of the paper."""
    return f"{command('table')} --table={number} --scale={scale}"


def prepare_command(missing: MissingDataError) -> str:
    """Return the command that prepares a data set from local files."""
    return (
        f"{command('prepare_data')} --dataset={missing.dataset} --source=PATH "
        f"--data_dir={missing.data_dir}"
    )
