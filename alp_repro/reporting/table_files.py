"""Tables as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alp_repro import files
from alp_repro.reporting.tables import Cell, Column, TableRow

MISSING = "–"


def to_markdown(rows: Sequence[TableRow], columns: Sequence[Column], *, heading: str) -> str:
    """The table with a column of ours and one of the paper's for each of its columns."""
    titles = ["Model"]
    for title in ("clean", *(column.title for column in columns)):
        titles.append(f"{title}: ours")
        if not title.startswith("strong"):
            titles.append("paper")
    lines = [heading, "", _line(titles), _line(["---"] + ["---:"] * (len(titles) - 1))]
    lines += [markdown_line(row, columns) for row in rows]
    disagree = [f"- {row.label}: {row.note}." for row in rows if row.note]
    if disagree:
        lines += ["", "Where the published sources disagree:", "", *disagree]
    problems = [f"- {row.label}: {problem}." for row in rows for problem in row.problems]
    if problems:
        lines += ["", "Not shown:", "", *problems]
    return "\n".join(lines) + "\n"


def markdown_line(row: TableRow, columns: Sequence[Column]) -> str:
    """One row of `to_markdown`; brackets hold the 95% interval."""
    label = f"{row.label} ({row.mark})" if row.mark else row.label
    images = next((column.images for column in columns), None)
    fields = [label, *_pair(row.clean, images=images, restarts=None, paper=True)]
    for cell, column in zip(row.cells, columns, strict=True):
        fields += _pair(
            cell,
            images=column.images,
            restarts=column.attack.restarts,
            paper=not column.ours_only,
        )
    return _line(fields)


def _pair(cell: Cell, *, images: int | None, restarts: int | None, paper: bool) -> list[str]:
    ours = cell_text(cell, images=images, restarts=restarts)
    printed = MISSING if cell.by_paper is None else f"{cell.by_paper:.1f}%"
    return [ours, printed] if paper else [ours]


def cell_text(cell: Cell, *, images: int | None, restarts: int | None) -> str:
    """Our number with its interval, and n and r where they are not the column's."""
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
    """How many images and restarts a number is from."""
    said = {"n": cell.images, "r": cell.restarts}
    return ", ".join(f"{name}={count}" for name, count in said.items() if count is not None)


def _line(fields: list[str]) -> str:
    return "| " + " | ".join(fields) + " |"


def to_csv(rows: Sequence[TableRow], columns: Sequence[Column]) -> str:
    """One line a number: row, column, ours, low, high, restarts, paper, images, mean (percent)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["row", "label", "column", "ours", "low", "high", "restarts", "paper", "images", "mean"]
    )
    for row in rows:
        named = [("clean", row.clean), *zip((c.title for c in columns), row.cells, strict=True)]
        for title, cell in named:
            for one in (cell, *([cell.further] if cell.further else [])):
                interval = [one.ours, one.low, one.high, one.restarts, one.by_paper]
                writer.writerow([row.row, row.label, title, *interval, one.images, one.mean])
    return text.getvalue()


def to_json(rows: Sequence[TableRow], columns: Sequence[Column], details: dict[str, Any]) -> str:
    """The same as data, with the attacks' full settings and `details` (scale, revision …)."""
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
) -> None:
    """Writes <name>.md, .csv and .json, each atomically."""
    texts = {
        "md": to_markdown(rows, columns, heading=heading),
        "csv": to_csv(rows, columns),
        "json": to_json(rows, columns, details) + "\n",
    }
    for suffix, text in texts.items():
        files.write_text(folder / f"{name}.{suffix}", text)
