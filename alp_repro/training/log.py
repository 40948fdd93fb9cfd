"""Reading training.csv, which has one line per epoch."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from alp_repro.errors import InputError


def read_rows(path: Path) -> dict[int, dict[str, str]]:
    """Return the lines of a training log by epoch, the last complete one of each; {} if no file.

    Raises:
      InputError: the file is not a training log.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if "epoch" not in (reader.fieldnames or ()):
                raise ValueError("no column 'epoch'")
            return {epoch: row for epoch, row in map(_read_row, reader) if row}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path} is not a valid training log ({error}): move it away to continue without it"
        ) from error


def read_log(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a training log, float64 [epochs] each, with "epoch" counted from 0.

    NaN where an epoch has no value, such as a test accuracy that was not due.

    Raises:
      InputError: the file is missing, not a training log, or has no finished epoch.
    """
    rows = read_rows(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: train the model first")
    if not rows:
        raise InputError(f"{path} has no finished epoch yet")
    ordered = [rows[epoch] for epoch in sorted(rows)]
    names = dict.fromkeys(name for row in ordered for name in row)
    return {name: np.array([float(row.get(name, "nan")) for row in ordered]) for name in names}


def _read_row(line: dict[str, str]) -> tuple[int, dict[str, str]]:
    """Return the epoch and its values, or no values for an incomplete line (disk full)."""
    row = {name: value for name, value in line.items() if name and not name.startswith("val_")}
    try:
        for value in row.values():
            float(value)
        return int(row["epoch"]), row
    except (TypeError, ValueError):
        return -1, {}
