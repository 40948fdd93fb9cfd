"""Tables 1-5: the paper's numbers, and ours beside them, read from runs; and one of ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from alp_repro import runs
from alp_repro.attacks import EXECUTION, PGD, Attack, Ensemble
from alp_repro.errors import InputError
from alp_repro.evaluation import AttackRecord, wilson_interval
from alp_repro.reporting import results
from alp_repro.reporting.cost import Cost, cost_of
from alp_repro.reporting.table_names import OURS, TableName, reference_rows, table_stem

if TYPE_CHECKING:
    from alp_repro.reporting.results import ResultQuery

TABLES = (1, 2, 3, 4, 5)
AT_CHANCE = "training never got above chance"


@dataclasses.dataclass(frozen=True)
class PaperColumn:
    """An adversarial column of the paper; sizes on the 0-255 scale."""

    eps: float
    eps_iter: float
    nb_iter: int
    restarts: int
    target: str


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """A row as the paper prints it, in percent (None: no number); `note` if sources disagree."""

    row: str
    label: str
    clean: float | None
    adversarial: tuple[float | None, ...]
    note: str


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables, or ours of what came after it."""

    number: TableName
    dataset: str
    columns: tuple[PaperColumn, ...]
    rows: tuple[PaperRow, ...]

    def row(self, name: str) -> PaperRow | None:
        """Return the row of this name; None: there is none."""
        return next((row for row in self.rows if row.row == name), None)

    def column(
        self,
        attack: Attack | Ensemble,
        grid_restarts: int,
        *,
        ours_only: bool = False,
        images: int | None = None,
    ) -> Column:
        """Return a column of ours with this table's caption."""
        first = self.columns[0]
        return Column(attack, grid_restarts, ours_only, first.eps, first.target, images)


@dataclasses.dataclass(frozen=True)
class Cell:
    """Our number and the paper's, in percent; None where there is none.

    Attributes:
      ours: worst case over the restarts.
      low, high: its 95% Wilson interval.
      restarts, images: of our number.
      by_paper: the paper's number.
      mean: the mean over restarts, if losses were recorded.
      further: the same attack on fewer images with more restarts, if there is such a result.
      long_run: the same cell of a longer run of the project, if it is shown beside this one.
    """

    ours: float | None = None
    low: float | None = None
    high: float | None = None
    restarts: int | None = None
    by_paper: float | None = None
    images: int | None = None
    mean: float | None = None
    further: Cell | None = None
    long_run: Cell | None = None


@dataclasses.dataclass(frozen=True)
class TableRow:
    """A model's row: clean accuracy, then a cell for each column.

    Attributes:
      row, label: its name, and as the paper prints it.
      clean, cells: its numbers.
      note: where the published sources disagree.
      mark: a remark about the model itself, as that its training never got above chance.
      problems: why existing results are not shown.
      model: hash of the weights; None: not trained.
      cost: the computing time.
    """

    row: str
    label: str
    clean: Cell
    cells: tuple[Cell, ...]
    note: str = ""
    mark: str = ""
    problems: tuple[str, ...] = ()
    model: str | None = None
    cost: Cost | None = None

    @property
    def complete(self) -> bool:
        """Return whether all of our numbers exist."""
        return all(cell.ours is not None for cell in (self.clean, *self.cells))

    @property
    def beside_long_run(self) -> bool:
        """Return whether there is a number of a longer run beside any of ours."""
        return any(cell.long_run is not None for cell in (self.clean, *self.cells))


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of ours: the attack as run, and what the table's caption says of all columns.

    grid_restarts: the grid's restarts before a scale's limit. table_eps, table_target: ε (0-255
    scale) and target in the table's caption, which titles leave out (None: no ε is stated).
    images: the number of attacked images (None: not stated). row_restarts: the restarts of the
    rows, if they are not all the attack's.
    """

    attack: Attack | Ensemble
    grid_restarts: int
    ours_only: bool = False
    table_eps: float | None = None
    table_target: str = "none"
    images: int | None = None
    row_restarts: tuple[int, ...] = ()

    @staticmethod
    def of_rows(columns: Sequence[Column]) -> Column:
        """Return the head of a column whose rows may differ in their restarts."""
        restarts = sorted({column.attack.restarts for column in columns})
        return dataclasses.replace(
            columns[0], row_restarts=tuple(restarts) if len(restarts) > 1 else ()
        )

    @property
    def title(self) -> str:
        """The paper's title if this is a column of the paper, with all differences otherwise."""
        attack = self.attack
        if self.ours_only:
            mean = (
                " on average" if isinstance(attack, Ensemble) and attack.runs_before_budget else ""
            )
            return f"strong (ours, not the paper's): {attack.gradients} gradients{mean}"
        sizes = attack.varied | {"restarts": _thousands(self.grid_restarts)}
        if self.table_eps is None or round(attack.eps * 255, 4) == self.table_eps:
            del sizes["eps"]
        title = ", ".join(f"{_SYMBOLS[name]}{text}" for name, text in sizes.items())
        restarts = self.row_restarts or (attack.restarts,)
        if restarts != (self.grid_restarts,):
            title += f" (here r={' or '.join(map(str, restarts))})"
        if self._non_default_text:
            title += f", ours: {self._non_default_text}"
        return ("" if attack.is_paper_attack else f"{attack.name}: ") + title

    @property
    def _non_default_text(self) -> str:
        stated = ["method", *EXECUTION]  # before the title, and in the table's heading
        if self.attack.non_default_settings().get("target", "none") == self.table_target:
            stated.append("target")
        return self.attack.non_default_text(leaving_out=stated)


_SYMBOLS = {
    "eps": "ε=",
    "eps_iter": "ε_i=",
    "learning_rate": "learning rate ",
    "nb_iter": "n=",
    "restarts": "r=",
}


def _thousands(count: int) -> str:
    return f"{count // 1000}k" if count >= 1000 and count % 1000 == 0 else str(count)


def load_paper_table(number: TableName) -> PaperTable:
    """Return the numbers that the paper prints in Table 1 … 5.

    Raises:
      InputError: there is no such table.
    """
    if number not in (*TABLES, *OURS):
        known = ", ".join(map(str, (*TABLES, *OURS)))
        raise InputError(f"unknown table {number}: expected one of {known}")
    columns = [row for row in reference_rows("columns.csv") if row["table"] == str(number)]
    return PaperTable(
        number=number,
        dataset=columns[0]["dataset"],
        columns=tuple(
            PaperColumn(
                eps=float(c["eps"]),
                eps_iter=float(c["eps_iter"]),
                nb_iter=int(c["nb_iter"]),
                restarts=int(c["restarts"]),
                target=c["target"],
            )
            for c in columns
        ),
        rows=tuple(
            PaperRow(
                row=r["row"],
                label=r["label"],
                clean=_percent(r["clean"]),
                adversarial=tuple(_percent(r[f"adversarial_{i + 1}"]) for i in range(len(columns))),
                note=r["note"],
            )
            for r in reference_rows(f"{table_stem(number)}.csv")
        ),
    )


def _percent(text: str) -> float | None:
    return float(text) if text else None


def table_row(
    paper: PaperTable, row: str, run: runs.RunDir, columns: Sequence[Column], *, wanted: ResultQuery
) -> TableRow:
    """Read a row from disk; cells without a complete result are empty.

    Results of another model, other images or another recipe are left out, too; `problems` lists
    them.

    Args:
      paper: the table, which may not have the row or its columns.
      row: its name.
      run: the folder of the model and its results.
      columns: the adversarial columns.
      wanted: the requirements on results.
    """
    printed = paper.row(row)
    label, note = (printed.label, printed.note) if printed else (row, "")
    clean = Cell(by_paper=printed.clean if printed else None)
    empty = [Cell(by_paper=paper_number(paper, row, column)) for column in columns]
    if not run.finished:
        return TableRow(row, label, clean, tuple(empty), note)
    problem = results.run_problem(run, wanted.recipe)
    described = TableRow(
        row, label, clean, tuple(empty), note, mark_of(run), model=results.weights_now(run)
    )
    if problem:
        return dataclasses.replace(described, problems=(problem,))
    cells, problems, records = [], [], []
    for column, cell in zip(columns, empty, strict=True):
        found = results.find_result(run, column.attack, wanted)
        if found.problem:
            problems.append(found.problem)
        if found.record is not None:
            records.append(found.record)
        if found.record is None or not found.record.complete_to(column.attack.restarts):
            cells.append(cell)
            continue
        record = found.record
        cells.append(_adversarial_cell(run, column, record, cell.by_paper, wanted))
        clean = _cell(int(record.clean_correct.sum()), len(record.labels), clean.by_paper)
    return dataclasses.replace(
        described,
        clean=clean,
        cells=tuple(cells),
        problems=tuple(dict.fromkeys(problems)),
        cost=cost_of(run, records),
    )


def mark_of(run: runs.RunDir) -> str:
    """Return a remark about the model of a finished run; "" for none."""
    return AT_CHANCE if runs.describe(run).at_chance else ""


def _adversarial_cell(
    run: runs.RunDir,
    column: Column,
    record: AttackRecord,
    by_paper: float | None,
    wanted: ResultQuery,
) -> Cell:
    restarts, images = column.attack.restarts, len(record.labels)
    cell = _cell(record.robust_at(restarts), images, by_paper, restarts=restarts)
    further = None
    if column.grid_restarts > restarts:
        more = results.find_further(run, column.attack, wanted)
        if more is not None:
            reached = min(results.reach(more), column.grid_restarts)
            further = _cell(more.robust_at(reached), len(more.labels), None, restarts=reached)
    mean = results.find_mean(run, column.attack, wanted)
    return dataclasses.replace(cell, mean=mean, further=further)


def paper_number(paper: PaperTable, row: str, column: Column) -> float | None:
    """Return the paper's number for a row and an attack; None if the paper has none."""
    printed, place = paper.row(row), paper_place(paper, column.attack, column.grid_restarts)
    if printed is None or place is None or column.ours_only:
        return None
    return printed.adversarial[place]


def paper_place(paper: PaperTable, attack: Attack | Ensemble, grid_restarts: int) -> int | None:
    """Return the position, from 0, of the paper's column with this attack; None: there is none.

    Args:
      paper: the table.
      attack: the attack; its restarts are not compared.
      grid_restarts: its restarts before a scale's limit.
    """
    known = ("target", *EXECUTION)
    if not isinstance(attack, PGD) or attack.non_default_settings(leaving_out=known):
        return None
    mine = PaperColumn(
        eps=round(attack.eps * 255, 4),
        eps_iter=round(attack.eps_iter * 255, 4),
        nb_iter=attack.nb_iter,
        restarts=grid_restarts,
        target=attack.target,
    )
    return paper.columns.index(mine) if mine in paper.columns else None


def _cell(
    successes: int, images: int, by_paper: float | None, *, restarts: int | None = None
) -> Cell:
    low, high = wilson_interval(successes, images)
    return Cell(100 * successes / images, 100 * low, 100 * high, restarts, by_paper, images)
