"""The report: one page with what was run, the tables, the figures, and what is missing.

Everything is read from a scale's folder, runs/<scale>/:

    tables/table<n>.json       written by `experiments.table`
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
from alp_repro.data.specs import DATASETS, dataset_spec
from alp_repro.errors import InputError
from alp_repro.reporting.pages import render_page
from alp_repro.reporting.tables import TABLES, Cell
from alp_repro.runs import RunDir

TEMPLATE = "report.html.j2"
_TABLE_COMMAND = "experiments.table --flagfile=flags/tables/table{number}.cfg --scale={scale}"


def data_and_scale(dataset: str, scale: str, *, data: str = "") -> str:
    """What a figure's caption says of where its models come from.

    Args:
      dataset: its name.
      scale: the name of the scale.
      data: what the images are, if not the official ones (`data.unverified_source`).
    """
    return f"{dataset_spec(dataset).title}{f' ({data})' if data else ''}, scale {scale}"


@dataclasses.dataclass(frozen=True)
class FigureSpec:
    """A figure that a complete report has: its file's name, heading, and the binary with flags."""

    name: str
    heading: str
    binary: str
    table: int
    flags: str = ""

    def command(self, scale: str) -> str:
        """What makes it at a scale."""
        words = [
            f"python -m experiments.{self.binary}",
            f"--flagfile=flags/tables/table{self.table}.cfg --scale={scale}",
            *([self.flags] if self.flags else []),
            f"--name={self.name}",
        ]
        return " ".join(words)


FIGURES = (
    FigureSpec(
        "figure1", "Figure 1: loss surfaces of four MNIST models around one image",
        "loss_surface", 1, "--rows=at100,lsq,clp,plain_alp --images=0",
    ),
    FigureSpec(
        "figure2", "Figure 2: losses over restarts, typical cases, MNIST CLP",
        "histograms", 1, "--rows=clp --cases",
    ),
    FigureSpec(
        "figure3", "Figure 3: loss surfaces, MNIST CLP", "loss_surface", 1, "--rows=clp"
    ),
    FigureSpec(
        "figure4", "Figure 4: loss surfaces, MNIST Plain + ALP",
        "loss_surface", 1, "--rows=plain_alp",
    ),
    FigureSpec(
        "figure5", "Figure 5: loss surfaces, CIFAR-10 LSQ", "loss_surface", 2, "--rows=lsq"
    ),
    FigureSpec(
        "figure6", "Figure 6: loss surfaces, CIFAR-10 Plain + ALP",
        "loss_surface", 2, "--rows=plain_alp",
    ),
    FigureSpec(
        "figure7", "Figure 7: losses over restarts, the first test images, MNIST CLP",
        "histograms", 1, "--rows=clp",
    ),
    FigureSpec(
        "heat_maps_mnist", "Adversarial accuracy by step size and iterations, MNIST",
        "heat_maps", 1, "--rows=at100,lsq,clp",
    ),
    FigureSpec(
        "restarts_mnist", "Adversarial accuracy against restarts, MNIST", "restart_curves", 1
    ),
    FigureSpec("training_mnist", "Training curves, MNIST", "restart_curves", 1, "--training"),
    FigureSpec(
        "restarts_cifar10", "Adversarial accuracy against restarts, CIFAR-10", "restart_curves", 2
    ),
    FigureSpec("training_cifar10", "Training curves, CIFAR-10", "restart_curves", 2, "--training"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Missing:
    """Something that a complete report has, and the command that makes it."""

    what: str
    command: str

    def __str__(self) -> str:
        """One line for a terminal."""
        return f"{self.what} is missing: make it with {self.command}"


def finished_runs(folder: Path, rows: Sequence[str]) -> tuple[dict[str, RunDir], list[Missing]]:
    """The trained ones among some rows' runs, and the others.

    Args:
      folder: runs/<scale>/<dataset>.
      rows: names.

    Raises:
      InputError: none of them is trained, or none was named.
    """
    if not rows:
        raise InputError("no row named: give --rows=clp or another of the table's")
    found = {row: RunDir(folder / row) for row in rows}
    missing = [missing_row(run, "the model") for run in found.values() if not run.finished]
    if len(missing) == len(rows):
        raise InputError("; ".join(map(str, missing)))
    return {row: run for row, run in found.items() if run.finished}, missing


def missing_row(run: RunDir, part: str) -> Missing:
    """A part of a row's run, at runs/<scale>/<dataset>/<row>, that training and attacking makes."""
    scale, dataset, row = run.path.parts[-3:]
    spec = DATASETS.get(dataset)
    number = spec.tables[0] if spec and spec.tables else 1
    table = _TABLE_COMMAND.format(number=number, scale=scale)
    return Missing(
        f"{part} of {spec.title if spec else dataset} {row}",
        f"python -m {table} --only={row}",
    )


def short_label(label: str) -> str:
    """A row's label without its settings: "CLP (λ = 0.5) + N(0, 0.5)" is "CLP"."""
    return label.partition(" (")[0]


@dataclasses.dataclass(frozen=True)
class TableRowShown:
    """A line of a table: the cells are the clean accuracy and one a column."""

    label: str
    cells: tuple[Cell, ...]
    note: str


@dataclasses.dataclass(frozen=True)
class TableShown:
    """One of Tables 1–5 as `experiments.table` wrote it."""

    number: int
    columns: tuple[str, ...]
    rows: tuple[TableRowShown, ...]
    made: str

    @property
    def differing(self) -> int:
        """How many of the paper's numbers lie outside our intervals."""
        return sum(cell.differs for row in self.rows for cell in row.cells)

    @property
    def compared(self) -> int:
        """How many of the paper's numbers have one of ours beside them."""
        return sum(
            cell.ours is not None and cell.by_paper is not None
            for row in self.rows
            for cell in row.cells
        )


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
    """All that the page shows.

    Attributes:
      scale: its name.
      tables, figures, runs: what is there.
      deviations: what the scale's settings change in the paper's protocol, one line each.
      departures: where the project departs from it at every scale, one line each.
      missing: what is not there.
      made: when and by which revision the page was made.
    """

    scale: str
    tables: tuple[TableShown, ...]
    figures: tuple[FigureShown, ...]
    runs: tuple[RunShown, ...]
    deviations: tuple[str, ...]
    departures: tuple[str, ...]
    missing: tuple[Missing, ...]
    made: str


def collect(folder: Path, *, deviations: Sequence[str] = ()) -> Report:
    """Reads what lies in a scale's folder.

    Args:
      folder: runs/<scale>.
      deviations: what differs from the paper's protocol, one line each.

    Raises:
      InputError: the folder is not there, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not there: name a folder of runs, as in --scale=quick")
    tables: list[TableShown] = []
    figures: list[FigureShown] = []
    missing: list[Missing] = []
    for number in TABLES:
        file = folder / "tables" / f"table{number}.json"
        if file.exists():
            tables.append(read_table(file))
        else:
            command = _TABLE_COMMAND.format(number=number, scale=folder.name)
            missing.append(Missing(f"Table {number}", f"python -m {command}"))
    specs = {spec.name: spec for spec in FIGURES}
    others = sorted({f.stem for f in (folder / "figures").glob("*.json")} - set(specs))
    for name in (*specs, *others):
        if (folder / "figures" / f"{name}.json").exists():
            heading = specs[name].heading if name in specs else name.replace("_", " ")
            figures.append(read_figure(folder / "figures", name, heading))
        else:
            missing.append(Missing(specs[name].heading, specs[name].command(folder.name)))
    for figure in figures:
        missing += [part for part in figure.missing if part not in missing]
    return Report(
        scale=folder.name,
        tables=tuple(tables),
        figures=tuple(figures),
        runs=tuple(read_run(file) for file in sorted(folder.glob("*/*/recipe.json"))),
        deviations=tuple(deviations),
        departures=departures(),
        missing=tuple(missing),
        made=_made(runs.provenance()),
    )


def departures() -> tuple[str, ...]:
    """Where the project departs from the paper's protocol at every scale, one line each."""
    file = resources.files("alp_repro.reporting").joinpath("reference").joinpath("departures.txt")
    return tuple(file.read_text(encoding="utf-8").splitlines())


def read_table(file: Path) -> TableShown:
    """A table from what `experiments.table` wrote; InputError when it is something else."""
    found = files.read_json(file)
    try:
        return TableShown(
            number=int(found["table"]),
            columns=("clean", *(column["title"] for column in found["columns"])),
            rows=tuple(
                TableRowShown(
                    row["label"],
                    tuple(Cell(**cell) for cell in (row["clean"], *row["cells"])),
                    row["note"],
                )
                for row in found["rows"]
            ),
            made=_made(found),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _foreign(file, "table", error) from error


def read_figure(folder: Path, name: str, heading: str) -> FigureShown:
    """A figure that `figures.save_figure` wrote; InputError when a part is missing or damaged."""
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
    """What a run's recipe.json says of it; InputError when it is something else."""
    found = files.read_json(file)
    try:
        recipe = found.get("recipe") or {}
        return RunShown(
            dataset=file.parts[-3],
            row=file.parts[-2],
            epochs=recipe.get("epochs"),
            data=str(found.get("data_source", found.get("imported", "–"))),
            revision=str(found["revision"]),
            date=str(found["date"])[:10],
            machine=str(found["machine"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise _foreign(file, "recipe", error) from error


def _made(notes: Mapping[str, Any]) -> str:
    """When and by which revision, of provenance that a result carries."""
    date = str(notes["date"])[:16].replace("T", " ")
    return f"{date} UTC, revision {notes['revision']}"


def _foreign(file: Path, what: str, error: Exception) -> InputError:
    return InputError(
        f"{file} is no {what} of this project ({type(error).__name__}: {error}): remove it to have "
        "it made again"
    )


def render(report: Report) -> str:
    """The page as one HTML text that needs no other file and no network."""
    return render_page("alp_repro.reporting", TEMPLATE, report=report)
