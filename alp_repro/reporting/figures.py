"""Figures 1–7, heat maps, restart and training curves, drawn from numbers.

Every function takes results and gives a matplotlib `Figure`; `save_figure` writes it with its
caption. What they share is in `figures.mplstyle`. Perturbation sizes are drawn on the 0–255 scale.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    LogLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
)
from mpl_toolkits.mplot3d import Axes3D

from alp_repro import files, runs
from alp_repro.data.images import Images
from alp_repro.errors import InputError
from alp_repro.evaluation import AttackRecord, wilson_interval
from alp_repro.evaluation.heat_maps import HeatMap
from alp_repro.losses import PENALTIES

# Embedding a font in a PDF is no news.
logging.getLogger("fontTools").setLevel(logging.WARNING)

WIDTH = 7.0  # inches, a page's text width
# From this cross-entropy on the true class of ten has a probability of at most 0.1, so that
# another class must be ahead (or all ten are level).
CERTAIN_LOSS = -math.log(0.1)
CASES = {
    "never": "no restart breaks it",
    "needs many restarts": "some restarts break it, fewer than 5%",
    "depends on the restart": "5% to 95% of the restarts break it",
    "always": "99% or more of the restarts end right of the red line",
}
_RED = "#C00000"
_DASHES = ("-", "--", "-.", ":")
_SURFACE_LINES = 110  # a panel of some centimetres shows no more


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """The look of every figure, while a block or a function runs."""
    file = resources.files("alp_repro.reporting").joinpath("figures.mplstyle")
    with resources.as_file(file) as path, matplotlib.style.context(path):
        yield


@figure_style()
def surface_panels(
    losses: np.ndarray, offsets: np.ndarray, titles: Sequence[str], *, share_loss_axis: bool = False
) -> Figure:
    """Loss surfaces in 3-D with contour lines below, one panel each (Figures 1 and 3–6).

    Args:
      losses: float [panels, resolution, resolution]; see `landscape.Surfaces`.
      offsets: float [resolution], on the [0, 1] scale.
      titles: one a panel.
      share_loss_axis: all panels have one loss axis; otherwise each has its own, so that the shape
        shows however small its range.
    """
    columns = min(4, len(losses))
    rows = -(-len(losses) // columns)
    width = WIDTH / max(columns, 2)
    figure = Figure(figsize=(columns * width, 0.1 + rows * width * 0.98))
    bounds = (float(losses.min()), float(losses.max()))
    for i, (surface, title) in enumerate(zip(losses, titles, strict=True)):
        axes = figure.add_subplot(rows, columns, i + 1, projection="3d")
        own = (float(surface.min()), float(surface.max()))
        _surface(axes, surface, offsets * 255, bounds if share_loss_axis else own)
        axes.set_title(title, y=0.98)
        if i % columns == 0:
            axes.text2D(
                -0.1, 0.5, "cross-entropy", rotation=90, va="center", transform=axes.transAxes,
                fontsize=7,
            )  # fmt: skip
    figure.subplots_adjust(
        0.03, 0.13 / (rows + 0.2), 0.955, 1 - 0.1 / rows, wspace=0.24, hspace=0.16
    )
    return figure


def _surface(
    axes: Axes3D, losses: np.ndarray, offsets: np.ndarray, bounds: tuple[float, float]
) -> None:
    a, b = np.meshgrid(offsets, offsets, indexing="ij")
    low, high = bounds
    height = max(high - low, 1e-6)  # a flat surface still needs an axis
    floor = low - 0.6 * height
    every = -(-len(offsets) // _SURFACE_LINES)
    colours = {"cmap": "viridis", "vmin": low, "vmax": low + height}
    axes.plot_surface(
        a, b, losses, rstride=every, cstride=every, linewidth=0, antialiased=False, rasterized=True,
        **colours,
    )  # fmt: skip
    axes.contour(a, b, losses, levels=10, zdir="z", offset=floor, linewidths=0.6, **colours)
    axes.plot([0], [0], [floor], "x", color=_RED, markersize=3)
    axes.set_zlim(floor, low + height)
    edge = float(np.abs(offsets).max())
    # The corner that both axes share has room for one label.
    axes.xaxis.set_major_locator(FixedLocator([-edge, 0, edge]))
    axes.yaxis.set_major_locator(FixedLocator([0, edge]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    ticks = [t for t in MaxNLocator(4).tick_values(low, low + height) if t >= low]
    axes.zaxis.set_major_locator(FixedLocator(ticks))
    axes.zaxis.set_major_formatter(FixedFormatter(_tick_labels(ticks)))
    axes.set_xlabel("a", labelpad=-12)
    axes.set_ylabel("b", labelpad=-12)
    axes.tick_params(pad=-4, labelsize=6)
    axes.tick_params(axis="z", pad=-1)
    axes.view_init(elev=24, azim=-58)
    axes.set_box_aspect((1, 1, 0.85), zoom=1.06)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.pane.set_facecolor("white")
        axis.pane.set_edgecolor("#cccccc")


def _tick_labels(ticks: Sequence[float]) -> list[str]:
    """Labels of few characters, all with the same number of decimals."""
    if max(ticks) < 0.001:
        return [f"{tick:.1e}".replace("e-0", "e−") for tick in ticks]
    decimals = max(len(f"{tick:.3g}".partition(".")[2]) for tick in ticks)
    return [f"{tick:.{decimals}f}" for tick in ticks]


@figure_style()
def loss_histograms(
    losses: np.ndarray, titles: Sequence[str], *, broken: np.ndarray | None = None
) -> Figure:
    """Histograms of the losses that restarts end with, one panel an image (Figures 2 and 7).

    The red line is at −ln 0.1. A panel tells which share of its restarts ended right of it and, if
    `broken` is given, which share broke the image.

    Args:
      losses: float [images, restarts], in nats.
      titles: one an image.
      broken: bool [images, restarts].
    """
    columns = min(4, len(losses))
    rows = -(-len(losses) // columns)
    figure = Figure(figsize=(WIDTH, 0.35 + rows * 1.35), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    bins = np.linspace(0, max(float(losses.max()), CERTAIN_LOSS) * 1.05, 50)
    for i, (axes, title) in enumerate(zip(panels, titles, strict=False)):
        axes.hist(losses[i], bins=bins, log=True)
        axes.axvline(CERTAIN_LOSS, color=_RED)
        axes.set_title(title)
        lines = [f"{_percent(np.mean(losses[i] > CERTAIN_LOSS))} right"]
        if broken is not None:
            lines.append(f"{_percent(np.mean(broken[i]))} broken")
        axes.text(
            0.98, 0.95, "\n".join(lines), transform=axes.transAxes, ha="right", va="top",
            fontsize=6.5, bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1},
        )  # fmt: skip
    panels[0].set_ylim(0.7, losses.shape[1] * 4)
    for axes in panels[len(losses) :]:
        axes.set_visible(False)
    figure.supxlabel("final cross-entropy of a restart", fontsize=8)
    figure.supylabel("restarts", fontsize=8)
    return figure


def _percent(share: float) -> str:
    """A share in percent that calls nothing 0% or 100% that is not."""
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    return f"{100 * share:.1f}%" if 0 < share < 1 else f"{100 * share:.0f}%"


def parse_positions(text: str) -> list[int]:
    """Positions of images in their split: "0-7" or "0,4,9" or both mixed, each named once.

    Raises:
      InputError: something else is written there.
    """
    spans = [part.strip().partition("-") for part in text.split(",")]
    positions: list[int] = []
    if all(first.isdecimal() and (last.isdecimal() or not dash) for first, dash, last in spans):
        for first, _, last in spans:
            positions += range(int(first), int(last or first) + 1)
    if not positions or len(set(positions)) < len(positions):
        raise InputError(f"images {text!r}: positions as in 0-7 or 0,4,9 are needed, each once")
    return positions


def pick_images(data: Images, positions: Sequence[int]) -> Images:
    """The images at these positions.

    Raises:
      InputError: a position beyond the last image.
    """
    if max(positions) >= len(data.labels):
        raise InputError(
            f"image {max(positions)}: the test set has {len(data.labels)} images, 0 to "
            f"{len(data.labels) - 1}"
        )
    chosen = np.asarray(positions)
    return Images(
        data.images[chosen], data.labels[chosen], data.indices[chosen], source=data.source
    )


def recorded_losses(record: AttackRecord, restarts: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses and verdicts, [images, restarts] each, of a record that has them.

    Raises:
      InputError: none were recorded, or not of so many restarts.
    """
    if record.losses is None or record.broken is None:
        raise InputError(
            "this attack result has no recorded losses: attack again with --record_losses"
        )
    if not record.complete_to(restarts):
        raise InputError(
            f"this attack result has losses of {int(record.next_restart.min())} restarts, "
            f"{restarts} are needed: run the attack on"
        )
    return record.losses[:, :restarts], record.broken[:, :restarts]


def typical_cases(losses: np.ndarray, broken: np.ndarray) -> dict[str, int]:
    """The images of Figure 2, one of each of the four `CASES`, where there is one.

    It is the first of its kind whose restarts end on both sides of the red line, else the first.

    Args:
      losses, broken: float and bool, [images, restarts].

    Returns:
      Case -> position of the image.
    """
    share, right = broken.mean(axis=1), (losses > CERTAIN_LOSS).mean(axis=1)
    members = {
        "never": share == 0,
        "needs many restarts": (share > 0) & (share < 0.05),
        "depends on the restart": (share >= 0.05) & (share <= 0.95),
        "always": right >= 0.99,
    }
    on_both_sides = (right > 0) & (right < 1)
    chosen = {}
    for case, found in members.items():
        if found.any():
            best = found & on_both_sides
            chosen[case] = int(np.argmax(best if best.any() else found))
    return chosen


@figure_style()
def heat_map_panels(maps: Mapping[str, HeatMap]) -> Figure:
    """Adversarial accuracy over step size × iterations, one panel a model, one colour scale.

    The cross marks a panel's lowest accuracy; small grids have the numbers in their cells.

    Args:
      maps: title -> complete map.
    """
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(WIDTH, 0.3 + 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    highest = max(float(found.accuracy.max()) for found in maps.values())
    mesh = None
    for axes, (title, found) in zip(panels, maps.items(), strict=False):
        accuracy = found.accuracy.T
        mesh = axes.pcolormesh(
            found.eps_iters * 255, found.nb_iters, accuracy, vmin=0, vmax=max(highest, 0.01),
            shading="nearest", rasterized=True,
        )  # fmt: skip
        axes.grid(False)
        j, i = np.unravel_index(np.argmin(accuracy), accuracy.shape)
        axes.set_title(f"{title}: lowest {_percent(accuracy[j, i])}")
        if accuracy.size <= 64:
            _write_cells(axes, found, highest)
        else:
            axes.plot(found.eps_iters[i] * 255, found.nb_iters[j], "x", color=_RED, markersize=5)
    for axes in panels[len(maps) :]:
        axes.set_visible(False)
    if mesh is not None:
        bar = figure.colorbar(mesh, ax=list(panels), format=PercentFormatter(1.0, decimals=0))
        bar.set_label("adversarial accuracy")
        bar.outline.set_visible(False)
    figure.supxlabel("step size εᵢ (0–255 scale)", fontsize=8)
    figure.supylabel("iterations n", fontsize=8)
    return figure


def _write_cells(axes: Axes, found: HeatMap, highest: float) -> None:
    for i, eps_iter in enumerate(found.eps_iters * 255):
        for j, count in enumerate(found.nb_iters):
            value = found.accuracy[i, j]
            axes.text(
                eps_iter, count, f"{100 * value:.0f}", ha="center", va="center", fontsize=6,
                color="black" if value > 0.6 * highest else "white",
            )  # fmt: skip
    axes.set_xticks(found.eps_iters * 255, [f"{step:.3g}" for step in found.eps_iters * 255])
    axes.set_yticks(found.nb_iters)


@figure_style()
def restart_curves(records: Mapping[str, AttackRecord], *, restarts: int) -> Figure:
    """Adversarial accuracy against restarts with its 95% Wilson band, one line a model.

    Args:
      records: label -> result of the attack.
      restarts: how far the lines go; one whose record reaches less ends there.
    """
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    for i, (label, record) in enumerate(records.items()):
        counts = np.arange(1, min(restarts, _reach(record, restarts)) + 1)
        robust = np.array([record.robust_at(int(r)) for r in counts])
        bands = np.array([wilson_interval(int(k), len(record.labels)) for k in robust])
        (line,) = axes.plot(
            counts, robust / len(record.labels), _DASHES[i % len(_DASHES)], label=label,
            marker="o" if len(counts) < 20 else None,
        )  # fmt: skip
        axes.fill_between(
            counts, bands[:, 0], bands[:, 1], color=line.get_color(), alpha=0.13, linewidth=0
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if restarts > 5 else range(1, 10)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("restarts r")
    axes.set_ylabel("adversarial accuracy")
    figure.legend(loc="outside right upper")
    return figure


def _reach(record: AttackRecord, restarts: int) -> int:
    """How many restarts a record is complete to, `restarts` at the most."""
    if record.complete_to(restarts):
        return restarts
    counted = record.standing if record.losses is None else np.ones_like(record.standing)
    return int(record.next_restart[counted].min())


@figure_style()
def training_curves(logs: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Accuracies (above) and weighted loss terms (below) by epoch, one column a model.

    Args:
      logs: title -> what `read_training_log` gives.
    """
    columns = min(4, len(logs))
    bands = -(-len(logs) // columns)
    figure = Figure(figsize=(WIDTH, 0.3 + 3.0 * bands), layout="constrained")
    panels = figure.subplots(2 * bands, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_visible(False)
    for i, (title, log) in enumerate(logs.items()):
        band, column = divmod(i, columns)
        above, below = panels[2 * band : 2 * band + 2, column]
        above.set_title(title)
        _lines(above, log, {"accuracy": "clean", "adversarial_accuracy": "adversarial"})
        above.set_ylim(0, 1.02)
        above.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _lines(below, log, _TERMS)
        below.set_ylim(0, None)
        below.set_xlabel("epoch")
        if column == 0:
            above.set_ylabel("training accuracy")
            below.set_ylabel("weighted loss term")
        else:
            above.tick_params(labelleft=False)
    return figure


def _lines(axes: Axes, log: Mapping[str, np.ndarray], names: Mapping[str, str]) -> None:
    """Draws the columns that a log has; each name keeps its colour and dashes in every panel."""
    axes.set_visible(True)
    epochs = log["epoch"] + 1
    for i, (name, label) in enumerate(names.items()):
        if name in log:
            axes.plot(
                epochs, log[name], _DASHES[i % len(_DASHES)], color=f"C{i}", label=label,
                marker="o" if len(epochs) < 15 else None,
            )  # fmt: skip
    axes.legend(loc="best")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


_TERMS = {
    "clean_ce": "CE clean",
    "adversarial_ce": "CE adversarial",
    **{name: penalty.label for name, penalty in PENALTIES.items()},
    "weight_decay": "weight decay",
}


def read_training_log(path: Path) -> dict[str, np.ndarray]:
    """The columns of a run's training.csv: float64 [epochs] each, "epoch" counting from 0.

    Of an epoch that was begun twice, because the training was stopped in it, the last line counts.

    Raises:
      InputError: the file is absent or no training log.
    """
    try:
        with path.open(newline="") as file:
            lines = {int(line["epoch"]): line for line in csv.DictReader(file)}
        epochs = sorted(lines)
        log = {"epoch": np.array(epochs, np.float64)}
        for name in ("accuracy", "adversarial_accuracy", "loss", *_TERMS):
            if epochs and name in lines[epochs[0]]:
                log[name] = np.array([float(lines[epoch][name]) for epoch in epochs])
    except FileNotFoundError:
        raise InputError(f"{path} is not there: train the model first") from None
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{path} is no training log ({type(error).__name__}: {error})") from error
    if not epochs:
        raise InputError(f"{path} has no finished epoch yet")
    return log


def save_figure(
    figure: Figure, folder: Path, name: str, *, caption: str, details: Mapping[str, Any]
) -> Path:
    """Writes <name>.png, .pdf and .json (caption, details, provenance), each atomically.

    Returns:
      The path of the PNG.
    """
    # Without its date, the same numbers give the same PDF.
    metadata: dict[str, Any] = {"pdf": {"CreationDate": None}, "png": None}
    with figure_style():
        for suffix, fields in metadata.items():
            write = functools.partial(figure.savefig, format=suffix, metadata=fields)
            files.write_atomically(folder / f"{name}.{suffix}", write)
    notes = {"name": name, "caption": caption, **details, **runs.provenance()}
    files.write_json(folder / f"{name}.json", notes)
    return folder / f"{name}.png"
