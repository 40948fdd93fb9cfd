"""Judges the paper's claims by the tables and figures of a scale.

Nothing is computed. Additional seeds are in <runs_dir>/<scale>/seed<n>/, n from 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alp_repro import files
from alp_repro.data import dataset_spec
from alp_repro.errors import InputError
from alp_repro.evaluation.landscape import Plane, Surfaces, load_surfaces
from alp_repro.evaluation.published import records_of
from alp_repro.reporting import claims, conditions, figure_numbers, stored_tables
from alp_repro.reporting.conditions import Number
from alp_repro.reporting.results import weights_now
from alp_repro.reporting.tables import TABLES, Cell, load_paper_table
from alp_repro.runs import RunDir

from .deviations import LESS, in_words, training_changes

if TYPE_CHECKING:
    from alp_repro.evaluation import AttackRecord
    from alp_repro.reporting.stored_tables import StoredTable
    from alp_repro.reporting.table_names import TableName
    from alp_repro.reporting.tables import TableRow

_FIGURES_RESOLUTION = 101


def judge_all(
    runs_dir: Path, scales: Sequence[str], *, flags_dir: str
) -> tuple[list[claims.Judged], dict[TableName, StoredTable]]:
    """Judge every claim, and return the verdicts with the tables that they rest on.

    Args:
      runs_dir: the folder of all runs.
      scales: the scales to read tables from, the best first.
      flags_dir: the folder of the rows' flagfiles.
    """
    tables = read_tables(runs_dir, scales)
    seen = [evidence_of(tables, runs_dir), *further_seeds(runs_dir, scales)]
    less = reduced(tables, runs_dir, flags_dir=flags_dir)
    return [claims.judge(claim, seen, less) for claim in claims.load_claims()], tables


def read_tables(runs_dir: Path, scales: Sequence[str]) -> dict[TableName, StoredTable]:
    """Return each table from the first scale that has it, without numbers of outdated models.

    The columns are in the paper's order, by which claims name them, whatever the grid was.
    """
    found: dict[TableName, StoredTable] = {}
    for number in TABLES:
        for scale in scales:
            file = stored_tables.table_file(runs_dir / scale, number)
            if file.exists():
                models = runs_dir / scale / load_paper_table(number).dataset
                table = stored_tables.current(stored_tables.read_table(file), models)
                found[number] = stored_tables.in_papers_order(table)
                break
    return found


def evidence_of(tables: dict[TableName, StoredTable], runs_dir: Path) -> conditions.Evidence:
    """Return the tables with each image's outcome and with the numbers of their models' figures."""
    outcomes: dict[Number, np.ndarray] = {}
    measured: dict[Number, Cell] = {}
    for number, table in tables.items():
        for row, run in finished_rows(table, runs_dir):
            for column, cell in _measured(table, run).items():
                measured[Number(table=number, row=row.row, column=column)] = cell
            outcomes |= outcomes_of(table, row, run)
    return conditions.Evidence(tables, outcomes, measured)


def outcomes_of(table: StoredTable, row: TableRow, run: RunDir) -> dict[Number, np.ndarray]:
    """Return what stands, image by image, of a row's numbers whose results are there."""
    if row.clean.ours is None:
        return {}
    return {
        Number(table=table.table, row=row.row, column=i + 1): record.standing_at(
            row.cells[i].restarts or 1
        )
        for i, record in column_records(table, row, run).items()
    }


def finished_rows(table: StoredTable, runs_dir: Path) -> Iterator[tuple[TableRow, RunDir]]:
    """Yield the rows of a table whose models exist, with their runs."""
    models = runs_dir / table.scale / load_paper_table(table.table).dataset
    for row in table.rows:
        if (run := RunDir(models / row.row)).finished:
            yield row, run


def column_records(table: StoredTable, row: TableRow, run: RunDir) -> dict[int, AttackRecord]:
    """Return the results behind a row's numbers, by adversarial column from 0."""
    if not files.finished_files(run.attacks):
        return {}
    return stored_tables.records_by_column(table, row, records_of(run))


def _measured(table: StoredTable, run: RunDir) -> dict[figure_numbers.Measure, Cell]:
    """Return the numbers of a model's figures, as far as they are stored with the model."""
    found: dict[figure_numbers.Measure, Cell] = {}
    surfaces = _surfaces(run, load_paper_table(table.table).dataset)
    first = next((one for one in surfaces if one.indices[0] == 0), None)
    if first is not None:
        found["maxima"] = figure_numbers.maxima_around_first(first)
    most = max(surfaces, key=lambda one: len(one.indices), default=None)
    if most is not None and len(most.indices) > 1:
        found |= figure_numbers.shares_of_maxima(most)
    for record in records_of(run) if files.finished_files(run.attacks, "*_losses_*.npz") else ():
        if record.broken is not None and len(record.labels):
            reached = int(record.next_restart.min())
            found["good start"] = figure_numbers.share_of_good_starts(record.broken[:, :reached])
    return found


def _surfaces(run: RunDir, dataset: str) -> list[Surfaces]:
    """Return the surfaces of the current model that are drawn like the paper's figures."""
    found = []
    for file in files.finished_files(run.path / "surfaces"):
        try:
            kept = load_surfaces(file, _figure_plane(dataset))
        except InputError:  # another resolution, or damaged: its figure reports that
            continue
        plane = {name: kept.settings.get(name) for name in ("radius", "resolution", "seed", "clip")}
        same = plane == dataclasses.asdict(_figure_plane(dataset))
        if same and kept.settings.get("model") == weights_now(run):
            found.append(kept)
    return found


def _figure_plane(dataset: str) -> Plane:
    return Plane(radius=dataset_spec(dataset).surface_eps / 255, resolution=_FIGURES_RESOLUTION)


def further_seeds(runs_dir: Path, scales: Sequence[str]) -> list[conditions.Evidence]:
    """Return the evidence of trainings with other seeds."""
    found = []
    for scale in scales:
        for folder in sorted((runs_dir / scale).glob("seed[1-9]*")):
            tables: dict[TableName, StoredTable] = {
                number: dataclasses.replace(table, scale=f"{scale}/{folder.name}")
                for number, table in read_tables(runs_dir, [f"{scale}/{folder.name}"]).items()
            }
            if tables:
                found.append(evidence_of(tables, runs_dir))
    return found


def reduced(
    tables: dict[TableName, StoredTable], runs_dir: Path, *, flags_dir: str
) -> dict[tuple[TableName, str], str]:
    """Describe how the trainings of the tables' rows are reduced, compared with the paper's."""
    found: dict[tuple[TableName, str], str] = {}
    for number, table in tables.items():
        for row, run in finished_rows(table, runs_dir):
            dataset = load_paper_table(number).dataset
            changes = training_changes(run, dataset, row.row, flags_dir=flags_dir)
            if changes and any(key in changes for key in LESS):
                found[number, row.row] = in_words(changes)
    return found
