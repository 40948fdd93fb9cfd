"""Adversarial accuracy over step size × iterations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from alp_repro.evaluation.heat_maps import HeatMap
from alp_repro.reporting.figures.style import RED, WIDTH, figure_style, percent


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
        axes.set_title(f"{title}: lowest {percent(accuracy[j, i])}")
        if accuracy.size <= 64:
            _write_cells(axes, found, highest)
        else:
            axes.plot(found.eps_iters[i] * 255, found.nb_iters[j], "x", color=RED, markersize=5)
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
