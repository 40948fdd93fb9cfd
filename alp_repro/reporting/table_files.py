"""Writes tables as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alp_repro import files, runs
from alp_repro.reporting.markdown import MISSING, line
from alp_repro.reporting.spread import BESIDE, Spread, lines_beside

if TYPE_CHECKING:
    from alp_repro.reporting.tables import Cell, Column, TableRow

LONG_RUN = (
    "Long run: the models that come with the project, trained longer and attacked on more images "
    "with more restarts (SCALE=published shows them)."
)
COST = "training, CPU seconds"
CSV_TITLES = (
    *("row", "label", "column", "ours", "low", "high"),
    *("restarts", "paper", "images", "mean", "long_run"),
)


def to_markdown(
    rows: Sequence[TableRow],
    columns: Sequence[Column],
    *,
    heading: str,
    spread: Spread | None = None,
    printed: bool = True,
) -> str:
    """Return the table as Markdown, with a column of ours and one of the paper's for each column.

    A table that the paper does not print (`printed`) has the time of each training in their place.
    If there is a longer run of ours, its numbers are in a column between; how much numbers vary
    between trainings is below the table.
    """
    long_run = any(row.beside_long_run for row in rows)
    titles = ["Model"]
    for title, paper in (("clean", True), *((c.title, not c.ours_only) for c in columns)):
        titles += [
            f"{title}: ours" if printed else title,
            *(["long run"] if long_run else []),
            *(["paper"] if paper and printed else []),
        ]
    titles += [] if printed else [COST]
    lines = [heading, "", line(titles), line(["---"] + ["---:"] * (len(titles) - 1))]
    lines += [markdown_line(row, columns, long_run=long_run, printed=printed) for row in rows]
    if long_run:
        lines += ["", LONG_RUN]
    if spread is not None and spread.rows:
        lines += ["", BESIDE, "", *(f"- {text}." for text in lines_beside(spread))]
    disagree = [f"- {row.label}: {row.note}." for row in rows if row.note]
    if disagree:
        lines += ["", "Where the published sources disagree:", "", *disagree]
    problems = [f"- {row.label}: {problem}." for row in rows for problem in row.problems]
    if problems:
        lines += ["", "Not shown:", "", *problems]
    return "\n".join(lines) + "\n"


def markdown_line(
    row: TableRow, columns: Sequence[Column], *, long_run: bool = False, printed: bool = True
) -> str:
    """Return one row of `to_markdown`; brackets hold the 95% interval."""
    label = f"{row.label} ({row.mark})" if row.mark else row.label
    images = next((column.images for column in columns), None)
    fields = [label, cell_text(row.clean, images=images, restarts=None)]
    fields += _beside(row.clean, long_run=long_run, paper=printed)
    for cell, column in zip(row.cells, columns, strict=True):
        fields.append(cell_text(cell, images=column.images, restarts=column.attack.restarts))
        fields += _beside(cell, long_run=long_run, paper=printed and not column.ours_only)
    return line(fields if printed else [*fields, _training_cost(row)])


def _training_cost(row: TableRow) -> str:
    hours = row.cost.training_hours if row.cost is not None else None
    return MISSING if hours is None else f"{3600 * hours:.0f}"


def _beside(cell: Cell, *, long_run: bool, paper: bool) -> list[str]:
    """Return the fields beside our number."""
    fields = []
    if long_run:
        fields.append(long_run_text(cell))
    if paper:
        fields.append(MISSING if cell.by_paper is None else f"{cell.by_paper:.1f}%")
    return fields


def long_run_text(cell: Cell) -> str:
    """Format the longer run's number, with its restarts if they differ."""
    longer = cell.long_run
    if longer is None or longer.ours is None:
        return MISSING
    same = longer.restarts is None or longer.restarts == cell.restarts
    return f"{longer.ours:.1f}%" + ("" if same else f" (r={longer.restarts})")


def cell_text(cell: Cell, *, images: int | None, restarts: int | None) -> str:
    """Format our number with its interval, and n and r if they differ from the column's."""
    if cell.ours is None:
        return MISSING
    text = f"{cell.ours:.1f}% [{cell.low:.1f}, {cell.high:.1f}]"
    others = images is not None and cell.images not in (None, images)
    if others or cell.restarts != restarts:
        text += f" ({sample_text(cell)})"
    if cell.mean is not None:
        text += f"; mean over restarts {cell.mean:.1f}%"
    if cell.further is not None:
        text += f"; {cell_text(cell.further, images=0, restarts=None)}"
    return text


def sample_text(cell: Cell) -> str:
    """Format the numbers of images and restarts of a cell."""
    counts = {"n": cell.images, "r": cell.restarts}
    return ", ".join(f"{name}={count}" for name, count in counts.items() if count is not None)


def to_csv(rows: Sequence[TableRow], columns: Sequence[Column]) -> str:
    """Return a line for each number, in percent, as CSV: ours, the paper's, the long run's."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_TITLES)
    for row in rows:
        named = [("clean", row.clean), *zip((c.title for c in columns), row.cells, strict=True)]
        for title, cell in named:
            for one in (cell, *([cell.further] if cell.further else [])):
                interval = [one.ours, one.low, one.high, one.restarts, one.by_paper]
                longer = one.long_run.ours if one.long_run else None
                writer.writerow(
                    [row.row, row.label, title, *interval, one.images, one.mean, longer]
                )
    return text.getvalue()


def to_json(rows: Sequence[TableRow], columns: Sequence[Column], details: dict[str, Any]) -> str:
    """Return the table as JSON, with the attacks' settings and `details` (scale, revision …)."""
    described = [
        {
            "title": column.title,
            "ours_only": column.ours_only,
            "grid_restarts": column.grid_restarts,
            "images": column.images,
            "attack": column.attack.to_json(),
        }
        for column in columns
    ]
    content = {
        **details,
        "columns": described,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def write_table(
    folder: Path,
    name: str,
    rows: Sequence[TableRow],
    columns: Sequence[Column],
    *,
    heading: str,
    details: dict[str, Any],
    spread: Spread | None = None,
    printed: bool = True,
) -> None:
    """Write <name>.md, .csv and .json, each atomically, unless they have this content already."""
    markdown = to_markdown(rows, columns, heading=heading, spread=spread, printed=printed)
    content = to_json(rows, columns, details)
    shown = folder / f"{name}.md"
    same = shown.exists() and shown.read_text(encoding="utf-8") == markdown
    if same and runs.is_stored(folder / f"{name}.json", json.loads(content)):
        return
    texts = {"md": markdown, "csv": to_csv(rows, columns), "json": content + "\n"}
    for suffix, text in texts.items():
        files.write_text(folder / f"{name}.{suffix}", text)
