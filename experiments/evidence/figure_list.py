"""The figures and tables of a complete report, and the commands that make them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from alp_repro.data.specs import DATASETS
from alp_repro.reporting.labels import model_label
from alp_repro.reporting.report import Expected, Missing
from alp_repro.reporting.tables import TABLES

from ..console.commands import command, table_command

if TYPE_CHECKING:
    from alp_repro.runs import RunDir


@dataclasses.dataclass(frozen=True)
class FigureSpec:
    """A figure of a complete report: its file's name, its heading, and its binary with flags."""

    name: str
    heading: str
    binary: str
    table: int
    flags: str = ""

    def arguments(self, scale: str) -> list[str]:
        """Return the flags of its binary that make it at a scale."""
        return [
            f"--table={self.table}",
            f"--scale={scale}",
            *self.flags.split(),
            f"--name={self.name}",
        ]

    def command(self, scale: str) -> str:
        """Return the command that makes it at a scale."""
        return " ".join([command(self.binary), *self.arguments(scale)])


FIGURES = (
    FigureSpec(
        "figure1",
        "Figure 1: loss surfaces of four MNIST models around one image",
        "loss_surface",
        1,
        "--rows=at100,lsq,clp,plain_alp --images=0",
    ),
    FigureSpec(
        "figure2",
        "Figure 2: losses over restarts, typical cases, MNIST CLP",
        "histograms",
        1,
        "--rows=clp --cases",
    ),
    FigureSpec("figure3", "Figure 3: loss surfaces, MNIST CLP", "loss_surface", 1, "--rows=clp"),
    FigureSpec(
        "figure4",
        "Figure 4: loss surfaces, MNIST Plain + ALP",
        "loss_surface",
        1,
        "--rows=plain_alp",
    ),
    FigureSpec("figure5", "Figure 5: loss surfaces, CIFAR-10 LSQ", "loss_surface", 2, "--rows=lsq"),
    FigureSpec(
        "figure6",
        "Figure 6: loss surfaces, CIFAR-10 Plain + ALP",
        "loss_surface",
        2,
        "--rows=plain_alp",
    ),
    FigureSpec(
        "figure7",
        "Figure 7: losses over restarts, the first test images, MNIST CLP",
        "histograms",
        1,
        "--rows=clp",
    ),
    FigureSpec(
        "heat_maps_mnist",
        "Adversarial accuracy by step size and iterations, MNIST",
        "heat_maps",
        1,
        "--rows=at100,lsq,clp",
    ),
    FigureSpec(
        "restarts_mnist", "Adversarial accuracy against restarts, MNIST", "restart_curves", 1
    ),
    FigureSpec("training_mnist", "Training curves, MNIST", "restart_curves", 1, "--training"),
    FigureSpec(
        "restarts_cifar10", "Adversarial accuracy against restarts, CIFAR-10", "restart_curves", 2
    ),
    FigureSpec("training_cifar10", "Training curves, CIFAR-10", "restart_curves", 2, "--training"),
)


def expected(scale: str) -> list[Expected]:
    """Return the tables and figures of a complete report of a scale."""
    tables = [
        Expected(f"table{number}", f"Table {number}", table_command(number, scale))
        for number in TABLES
    ]
    return tables + [Expected(spec.name, spec.heading, spec.command(scale)) for spec in FIGURES]


def missing_row(run: RunDir, part: str) -> Missing:
    """Return a missing part of a row's run, runs/<scale>/<dataset>/<row>, and its command."""
    scale, dataset, row = run.path.parts[-3:]
    spec = DATASETS.get(dataset)
    number = spec.tables[0] if spec and spec.tables else 1
    return Missing(
        f"{part} of {spec.title if spec else dataset} {model_label(dataset, row)}",
        f"{table_command(number, scale)} --only={row}",
    )
