"""Tables 1-5: the paper's numbers, ours beside them, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from importlib import resources
from pathlib import Path
from typing import Any

from alp_repro import files, runs
from alp_repro.attacks import EXECUTION, Attack
from alp_repro.errors import InputError
from alp_repro.evaluation import find_record, wilson_interval

TABLES = (1, 2, 3, 4, 5)
MISSING = "–"


@dataclasses.dataclass(frozen=True)
class PaperColumn:
    """An adversarial column as the paper has it; sizes on the 0-255 scale."""

    eps: float
    eps_iter: float
    nb_iter: int
    restarts: int
    target: str


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """A row as the paper prints it, in percent; `note` where its sources disagree."""

    row: str
    label: str
    clean: float
    adversarial: tuple[float, ...]
    note: str


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables."""

    number: int
    dataset: str
    columns: tuple[PaperColumn, ...]
    rows: tuple[PaperRow, ...]

    def column(self, attack: Attack, grid_restarts: int, *, ours_only: bool = False) -> Column:
        """A column of ours under this table's caption."""
        first = self.columns[0]
        return Column(attack, grid_restarts, ours_only, first.eps, first.target)


@dataclasses.dataclass(frozen=True)
class Cell:
    """Ours and the paper's number, in percent; None where there is none.

    low, high: our 95% Wilson interval; restarts: how many ours had; by_paper: the paper's number.
    """

    ours: float | None = None
    low: float | None = None
    high: float | None = None
    restarts: int | None = None
    by_paper: float | None = None

    @property
    def differs(self) -> bool:
        """Whether the paper's number lies outside our interval."""
        if self.by_paper is None or self.low is None or self.high is None:
            return False
        return not self.low <= self.by_paper <= self.high


@dataclasses.dataclass(frozen=True)
class TableRow:
    """A model's line: clean accuracy, then one cell a column."""

    row: str
    label: str
    clean: Cell
    cells: tuple[Cell, ...]
    note: str = ""

    @property
    def complete(self) -> bool:
        """Whether every number of ours is there."""
        return all(cell.ours is not None for cell in (self.clean, *self.cells))


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of ours: the attack as run, and what the table says of all its columns.

    grid_restarts: the grid's restarts before a scale's bound. table_eps, table_target: ε (0-255
    scale) and target that the table's caption states, so that titles need not (None: nothing is
    stated of ε).
    """

    attack: Attack
    grid_restarts: int
    ours_only: bool = False
    table_eps: float | None = None
    table_target: str = "none"

    @property
    def title(self) -> str:
        """As the paper heads it, if this is a column of the paper's; else all that differs."""
        attack = self.attack
        if self.ours_only:
            return f"strong (ours, not the paper's): {attack.nb_iter * attack.restarts} gradients"
        sizes = []
        if self.table_eps is not None and round(attack.eps * 255, 4) != self.table_eps:
            sizes.append(f"ε={attack.eps * 255:g}")
        if attack.method == "spsa":
            sizes.append(f"learning rate {attack.eps_iter:g}")
        elif attack.method == "pgd":
            sizes.append(f"ε_i={attack.eps_iter * 255:g}")
        sizes += [f"n={attack.nb_iter}", f"r={_thousands(self.grid_restarts)}"]
        title = ", ".join(sizes)
        if attack.restarts != self.grid_restarts:
            title += f" (here r={attack.restarts})"
        if self._departures:
            title += f", ours: {self._departures}"
        return ("" if attack.method == "pgd" else f"{attack.method}: ") + title

    @property
    def _departures(self) -> str:
        said = ["method", *EXECUTION]  # before the title, and in the table's heading
        if self.attack.target == self.table_target:
            said.append("target")
        return self.attack.departures_text(leaving_out=said)


def _thousands(count: int) -> str:
    return f"{count // 1000}k" if count >= 1000 and count % 1000 == 0 else str(count)


def load_paper_table(number: int) -> PaperTable:
    """The numbers that the paper prints for Table 1 … 5.

    Raises:
      InputError: there is no such table.
    """
    if number not in TABLES:
        raise InputError(f"--table={number}: one of {', '.join(map(str, TABLES))}")
    columns = [row for row in _reference("columns.csv") if int(row["table"]) == number]
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
                clean=float(r["clean"]),
                adversarial=tuple(float(r[f"adversarial_{i + 1}"]) for i in range(len(columns))),
                note=r["note"],
            )
            for r in _reference(f"table{number}.csv")
        ),
    )


def _reference(name: str) -> list[dict[str, str]]:
    text = (
        resources.files("alp_repro.reporting")
        .joinpath("reference")
        .joinpath(name)
        .read_text(encoding="utf-8")
    )
    return list(csv.DictReader(io.StringIO(text)))


def table_row(
    paper: PaperTable,
    row: str,
    run: runs.RunDir,
    columns: list[Column],
    *,
    num_images: int,
    seed: int,
) -> TableRow:
    """A row from what is on disk; cells whose result is not there, or not complete, are empty.

    Args:
      paper: the table; a row or column that it has not gets no number of the paper's.
      row: its name.
      run: where the model and its results lie.
      columns: the adversarial columns.
      num_images, seed: which results are meant.
    """
    printed = {r.row: r for r in paper.rows}.get(row)
    clean, cells = Cell(by_paper=printed.clean if printed else None), []
    for column in columns:
        by_paper = _by_paper(paper, printed, column)
        record = find_record(run, attack=column.attack, num_images=num_images, seed=seed)
        restarts = column.attack.restarts
        if record is None or not record.complete_to(restarts):
            cells.append(Cell(by_paper=by_paper))
            continue
        cells.append(
            _cell(record.robust_at(restarts), len(record.labels), by_paper, restarts=restarts)
        )
        clean = _cell(int(record.clean_correct.sum()), len(record.labels), clean.by_paper)
    return TableRow(
        row, printed.label if printed else row, clean, tuple(cells), printed.note if printed else ""
    )


def _by_paper(paper: PaperTable, printed: PaperRow | None, column: Column) -> float | None:
    """The paper's number for this attack; None where the paper ran no such attack."""
    attack = column.attack
    if printed is None or column.ours_only:
        return None
    if attack.departures(leaving_out=("target", *EXECUTION)):
        return None
    mine = PaperColumn(
        eps=round(attack.eps * 255, 4),
        eps_iter=round(attack.eps_iter * 255, 4),
        nb_iter=attack.nb_iter,
        restarts=column.grid_restarts,
        target=attack.target,
    )
    if mine not in paper.columns:
        return None
    return printed.adversarial[paper.columns.index(mine)]


def _cell(
    successes: int, images: int, by_paper: float | None, *, restarts: int | None = None
) -> Cell:
    low, high = wilson_interval(successes, images)
    return Cell(100 * successes / images, 100 * low, 100 * high, restarts, by_paper)


def to_markdown(rows: list[TableRow], columns: list[Column], *, heading: str) -> str:
    """The table with a column of ours and one of the paper's for each of its columns."""
    titles = ["Model"]
    for title in ("clean", *(column.title for column in columns)):
        titles.append(f"{title}: ours")
        if not title.startswith("strong"):
            titles.append("paper")
    lines = [heading, "", _line(titles), _line(["---"] + ["---:"] * (len(titles) - 1))]
    lines += [markdown_line(row, columns) for row in rows]
    notes = [f"- {row.label}: {row.note}." for row in rows if row.note]
    if notes:
        lines += ["", "Where the published sources disagree:", "", *notes]
    return "\n".join(lines) + "\n"


def markdown_line(row: TableRow, columns: list[Column]) -> str:
    """One row of `to_markdown`; brackets hold the 95% interval."""
    fields = [row.label, *_pair(row.clean, paper=True)]
    for cell, column in zip(row.cells, columns, strict=True):
        fields += _pair(cell, paper=not column.ours_only)
    return _line(fields)


def _pair(cell: Cell, *, paper: bool) -> list[str]:
    ours = MISSING
    if cell.ours is not None:
        ours = f"{cell.ours:.1f}% [{cell.low:.1f}, {cell.high:.1f}]"
    printed = MISSING if cell.by_paper is None else f"{cell.by_paper:.1f}%"
    return [ours, printed] if paper else [ours]


def _line(fields: list[str]) -> str:
    return "| " + " | ".join(fields) + " |"


def to_csv(rows: list[TableRow], columns: list[Column]) -> str:
    """One line a cell: row, column, ours, low, high, restarts, paper (percent)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "label", "column", "ours", "low", "high", "restarts", "paper"])
    for row in rows:
        named = [("clean", row.clean), *zip((c.title for c in columns), row.cells, strict=True)]
        for title, cell in named:
            writer.writerow(
                [row.row, row.label, title, cell.ours, cell.low, cell.high, cell.restarts,
                 cell.by_paper]
            )  # fmt: skip
    return text.getvalue()


def to_json(rows: list[TableRow], columns: list[Column], details: dict[str, Any]) -> str:
    """The same as data, with the attacks' full settings and `details` (scale, revision …)."""
    return json.dumps(
        {
            **details,
            "columns": [
                {"title": c.title, "ours_only": c.ours_only, "grid_restarts": c.grid_restarts,
                 "attack": dataclasses.asdict(c.attack)}
                for c in columns
            ],
            "rows": [dataclasses.asdict(row) for row in rows],
        },
        indent=2, ensure_ascii=False,
    )  # fmt: skip


def write_table(
    folder: Path,
    name: str,
    rows: list[TableRow],
    columns: list[Column],
    *,
    heading: str,
    details: dict[str, Any],
) -> None:
    """Writes <name>.md, .csv and .json, each atomically."""
    texts = {
        "md": to_markdown(rows, columns, heading=heading),
        "csv": to_csv(rows, columns),
        "json": to_json(rows, columns, details) + "\n",
    }
    for suffix, text in texts.items():
        files.write_text(folder / f"{name}.{suffix}", text)
