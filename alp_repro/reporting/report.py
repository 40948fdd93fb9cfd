"""The report: one page with verdicts, tables, figures, models, and what is missing.

Everything is read from a scale's folder, runs/<scale>/:

    tables/table<n>.json       written by `table_files`
    figures/<name>.png, .json  written by the figures' binaries
    <dataset>/<row>/recipe.json
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from alp_repro import files, runs
from alp_repro.errors import InputError
from alp_repro.reporting import claims, results, stored_tables
from alp_repro.reporting.differences import differs_significantly
from alp_repro.reporting.labels import model_label
from alp_repro.reporting.pages import render_page
from alp_repro.reporting.spread import Spread, spread_beside
from alp_repro.reporting.table_files import sample_text
from alp_repro.reporting.table_names import TableName
from alp_repro.reporting.tables import TABLES, Cell, TableRow, load_paper_table
from alp_repro.runs import RunDir
from alp_repro.validation import decoding

TEMPLATE = "report.html.j2"


@dataclasses.dataclass(frozen=True)
class Missing:
    """A missing part of a complete report, and the command that makes it."""

    what: str
    command: str

    def __str__(self) -> str:
        """Describe it in one line."""
        return f"{self.what} is missing: make it with {self.command}"


@dataclasses.dataclass(frozen=True)
class Expected:
    """A table ("table1" … "table5") or figure of a complete report, and the command for it."""

    name: str
    heading: str
    command: str


@dataclasses.dataclass(frozen=True)
class TableShown:
    """One of Tables 1–5 as `table_files` wrote it.

    samples: images, restarts by column; spread: how much numbers vary between trainings.
    """

    number: TableName
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    samples: tuple[tuple[int | None, int | None], ...]
    made: str
    spread: Spread | None = None

    @property
    def differing(self) -> int:
        """How many numbers of ours differ from the paper's by a two-sample test."""
        return sum(self.differs(cell) for row in self.rows for cell in self.cells(row))

    @property
    def compared(self) -> int:
        """How many of the paper's numbers have one of ours beside them."""
        return sum(
            cell.ours is not None and cell.by_paper is not None
            for row in self.rows
            for cell in self.cells(row)
        )

    def differs(self, cell: Cell) -> bool:
        """Return whether ours and the paper's number differ by a two-sample test."""
        return differs_significantly(cell)

    def cells(self, row: TableRow) -> tuple[Cell, ...]:
        """Return a row's cells, the clean accuracy first."""
        return row.clean, *row.cells

    def sample(self, row: TableRow, i: int) -> str:
        """Describe images and restarts of a cell, if they differ from its column's; "" if not."""
        cell, (images, restarts) = self.cells(row)[i], self.samples[i]
        same = images is None or cell.images in (None, images)
        return "" if same and cell.restarts == restarts else sample_text(cell)


@dataclasses.dataclass(frozen=True)
class FigureSource:
    """The models that a figure shows, by its JSON: row -> hash of the weights."""

    dataset: str = ""
    models: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class FigureShown:
    """A figure with its picture as a data URI."""

    name: str
    heading: str
    caption: str
    picture: str
    made: str
    missing: tuple[Missing, ...]


@dataclasses.dataclass(frozen=True)
class RunShown:
    """How one model was made."""

    dataset: str
    row: str
    epochs: int | None
    data: str
    revision: str
    date: str
    machine: str


@dataclasses.dataclass(frozen=True)
class Report:
    """The content of the page.

    Attributes:
      scale: its name.
      judged: the paper's claims with our verdicts.
      tables, figures, runs: the existing ones.
      deviations: how the scale's settings deviate from the paper's protocol, one line each.
      departures: where the project departs from it at every scale, one line each.
      missing: the missing parts.
      made: when and by which revision the page was made.
    """

    scale: str
    judged: tuple[claims.Judged, ...]
    tables: tuple[TableShown, ...]
    figures: tuple[FigureShown, ...]
    runs: tuple[RunShown, ...]
    deviations: tuple[str, ...]
    departures: tuple[str, ...]
    missing: tuple[Missing, ...]
    made: str
    rule: str = claims.RULE


def collect(
    folder: Path,
    *,
    expected: Sequence[Expected] = (),
    deviations: Sequence[str] = (),
    judged: Sequence[claims.Judged] = (),
) -> Report:
    """Read the content of a scale's folder.

    Args:
      folder: runs/<scale>.
      expected: the parts of a complete report; other figures are shown after these.
      deviations: from the paper's protocol, one line each.
      judged: the paper's claims with our verdicts.

    Raises:
      InputError: the folder does not exist, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} does not exist: expected a folder of runs at one scale, as runs/quick"
        )
    table_names = [f"table{number}" for number in TABLES]
    parts = {part.name: part for part in expected}
    tables = [
        read_table(file)
        for name in table_names
        if (file := folder / "tables" / f"{name}.json").exists()
    ]
    drawn = {file.stem for file in (folder / "figures").glob("*.json")}
    figures: list[FigureShown] = []
    missing = [
        Missing(part.heading, part.command)
        for part in expected
        if part.name not in drawn
        and not (part.name in table_names and (folder / "tables" / f"{part.name}.json").exists())
    ]
    for name in [name for name in parts if name in drawn] + sorted(drawn - set(parts)):
        heading = parts[name].heading if name in parts else name.replace("_", " ")
        outdated = outdated_models(folder, name)
        if outdated:
            command = parts[name].command if name in parts else "the command that drew it"
            what = f"{heading}, drawn from an outdated model of {', '.join(outdated)},"
            missing.append(Missing(what, command))
        else:
            figures.append(read_figure(folder / "figures", name, heading))
    for figure in figures:
        missing += [part for part in figure.missing if part not in missing]
    return Report(
        scale=folder.name,
        judged=tuple(judged),
        tables=tuple(tables),
        figures=tuple(figures),
        runs=tuple(read_run(file) for file in sorted(folder.glob("*/*/recipe.json"))),
        deviations=tuple(deviations),
        departures=departures(),
        missing=tuple(missing),
        made=_made(runs.provenance()),
    )


def outdated_models(folder: Path, name: str) -> list[str]:
    """Return the labels of rows whose model has changed since a figure was drawn.

    Figures of early versions do not record their models, so nothing is known about them.
    """
    notes = files.read_json(folder / "figures" / f"{name}.json")
    source = decoding.from_plain(
        {key: notes[key] for key in ("dataset", "models") if key in notes},
        FigureSource,
        source=f"{folder}/figures/{name}.json",
    )
    found = []
    for row, weights in source.models.items():
        run = RunDir(folder / source.dataset / row)
        if not run.finished or results.weights_now(run) != weights:
            found.append(model_label(source.dataset, row))
    return found


def departures() -> tuple[str, ...]:
    """Return where the project departs from the paper's protocol at every scale, one line each."""
    file = resources.files("alp_repro.reporting").joinpath("reference").joinpath("departures.txt")
    return tuple(file.read_text(encoding="utf-8").splitlines())


def read_table(file: Path) -> TableShown:
    """Read a table that `table_files` wrote; InputError if it is something else.

    Numbers of models that no longer exist are left out.
    """
    found = stored_tables.read_table(file)
    models = file.parents[1] / load_paper_table(found.table).dataset
    return TableShown(
        number=found.table,
        columns=("clean", *(column.title for column in found.columns)),
        rows=stored_tables.current(found, models).rows,
        samples=(
            (found.columns[0].images, None),
            *((column.images, column.attack.get("restarts")) for column in found.columns),
        ),
        made=_made({"date": found.date, "revision": found.revision}),
        spread=spread_beside(file.parents[2], found.table),
    )


def read_figure(folder: Path, name: str, heading: str) -> FigureShown:
    """Read a figure that `figures.save_figure` wrote; InputError if it is damaged."""
    notes, picture = files.read_json(folder / f"{name}.json"), folder / f"{name}.png"
    try:
        data = base64.b64encode(picture.read_bytes()).decode()
        return FigureShown(
            name=name,
            heading=heading,
            caption=str(notes["caption"]),
            picture=f"data:image/png;base64,{data}",
            made=_made(notes),
            missing=tuple(Missing(**part) for part in notes.get("missing", ())),
        )
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise _foreign(picture, "figure", error) from error


def read_run(file: Path) -> RunShown:
    """Read a run's recipe.json; InputError if it is something else."""
    found = files.read_json(file)
    try:
        recipe = found.get("recipe") or {}
        return RunShown(
            dataset=file.parts[-3],
            row=model_label(file.parts[-3], file.parts[-2]),
            epochs=recipe.get("epochs"),
            data=str(found.get("data_source", found.get("imported", "–"))),
            revision=str(found["revision"]),
            date=str(found["date"])[:10],
            machine=str(found["machine"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise _foreign(file, "recipe", error) from error


def _made(notes: Mapping[str, Any]) -> str:
    """Describe when and by which revision a result was made, from its provenance."""
    date = str(notes["date"])[:16].replace("T", " ")
    return f"{date} UTC, revision {notes['revision']}"


def _foreign(file: Path, what: str, error: Exception) -> InputError:
    return InputError(
        f"{file} is not a {what} of this project ({type(error).__name__}: {error}): remove it to "
        "make it again"
    )


def render(report: Report) -> str:
    """Render the page as HTML that needs no other file and no network."""
    return render_page("alp_repro.reporting", TEMPLATE, report=report)
