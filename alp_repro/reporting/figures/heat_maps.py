"""Draws adversarial accuracy by step size and iterations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from alp_repro.reporting.figures.style import RED, WIDTH, figure_style, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from alp_repro.evaluation.heat_maps import HeatMap


@figure_style()
def heat_map_panels(maps: Mapping[str, HeatMap]) -> Figure:
    """Draw adversarial accuracy by step size and iterations, a panel for each model.

    Each panel has its own colour scale: a common one would hide where a robust model is weakest.
    Crosses mark the cells with a panel's lowest accuracy; small grids have numbers in their cells.

    Args:
      maps: title -> complete map.
    """
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(WIDTH, 0.3 + 2.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (title, found) in zip(panels, maps.items(), strict=False):
        _panel(figure, axes, title, found)
    for axes in panels[len(maps) :]:
        axes.set_visible(False)
    steps = "step size εᵢ (0–255 scale)"
    if len(maps) == 1:  # next to its axis: below the figure it would seem to label the colour bar
        panels[0].set_xlabel(steps)
    else:
        figure.supxlabel(steps, fontsize=8)
    figure.supylabel("iterations n", fontsize=8)
    return figure


def _panel(figure: Figure, axes: Axes, title: str, found: HeatMap) -> None:
    accuracy = found.accuracy.T
    low, high = colour_range(accuracy)
    mesh = axes.pcolormesh(
        found.eps_iters * 255,
        found.nb_iters,
        accuracy,
        vmin=low,
        vmax=high,
        shading="nearest",
        rasterized=True,
    )
    axes.grid(False)
    j, i = lowest_cells(accuracy)
    ties = f", in {len(j)} cells" if len(j) > 1 else ""
    axes.set_title(f"{title}: lowest {percent(accuracy[j[0], i[0]])}{ties}")
    if accuracy.size <= 64:
        _write_cells(axes, found, middle=low + 0.6 * (high - low))
    else:
        axes.plot(found.eps_iters[i] * 255, found.nb_iters[j], "x", color=RED, markersize=3.5)
    decimals = 0 if high - low >= 0.04 else 1
    bar = figure.colorbar(
        mesh, ax=axes, location="bottom", format=PercentFormatter(1.0, decimals=decimals)
    )
    bar.locator = MaxNLocator(5, steps=[1, 2, 5, 10])
    bar.update_ticks()
    bar.outline.set_visible(False)


def lowest_cells(accuracy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of all cells with the lowest accuracy; it is a share of images."""
    rows, columns = np.nonzero(np.isclose(accuracy, np.nanmin(accuracy), rtol=0, atol=1e-9))
    return rows, columns


def colour_range(accuracy: np.ndarray) -> tuple[float, float]:
    """Return the lowest and highest accuracy, at least one point apart, to not amplify noise."""
    low, high = float(np.nanmin(accuracy)), float(np.nanmax(accuracy))
    return (low, high) if high - low >= 0.01 else (max(0.0, high - 0.01), max(high, 0.01))


def _write_cells(axes: Axes, found: HeatMap, *, middle: float) -> None:
    for i, eps_iter in enumerate(found.eps_iters * 255):
        for j, count in enumerate(found.nb_iters):
            value = found.accuracy[i, j]
            axes.text(
                eps_iter,
                count,
                f"{100 * value:.0f}",
                ha="center",
                va="center",
                fontsize=6,
                color="black" if value > middle else "white",
            )
    axes.set_xticks(found.eps_iters * 255, [f"{step:.3g}" for step in found.eps_iters * 255])
    axes.set_yticks(found.nb_iters)
