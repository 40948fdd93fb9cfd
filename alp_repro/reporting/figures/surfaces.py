"""Draws loss surfaces (Figures 1 and 3–6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator

from alp_repro.evaluation.landscape import FLAT
from alp_repro.reporting.figures.style import RED, WIDTH, figure_style

if TYPE_CHECKING:
    from mpl_toolkits.mplot3d import Axes3D

_SURFACE_LINES = 110  # a panel of some centimetres shows no more
# Degrees around the loss axis, one view over each corner (the first if all show the same), and the
# position of Matplotlib's ticks that puts the loss axis on the right.
_AZIMUTHS = {-58: "upper", 32: "upper", 122: "lower", -148: "lower"}


@figure_style()
def surface_panels(
    losses: np.ndarray,
    offsets: np.ndarray,
    titles: Sequence[str],
    *,
    share_loss_axis: bool = False,
    marked: Sequence[bool] = (),
) -> Figure:
    """Draw loss surfaces in 3-D with contour lines below, a panel for each (Figures 1 and 3–6).

    Each is seen from the corner where it is lowest, so that it hides as little as possible.

    Args:
      losses: float [panels, resolution, resolution]; see `landscape.Surfaces`.
      offsets: float [resolution], on the [0, 1] scale.
      titles: of the panels.
      share_loss_axis: use the same loss axis in all panels, rather than one that shows the shape of
        each surface that varies by at least `landscape.FLAT`.
      marked: which titles are red, as for misclassified images; (): none.
    """
    columns = min(4, len(losses))
    rows = -(-len(losses) // columns)
    width = WIDTH / max(columns, 2)
    figure = Figure(figsize=(columns * width, 0.3 + rows * width * 0.98))
    bounds = (float(losses.min()), float(losses.max()))
    for i, (surface, title) in enumerate(zip(losses, titles, strict=True)):
        axes = figure.add_subplot(rows, columns, i + 1, projection="3d")
        own = (float(surface.min()), float(surface.max()))
        _surface(axes, surface, offsets * 255, bounds if share_loss_axis else own)
        axes.set_title(title, y=1.0)
        if marked and marked[i]:
            axes.title.set_color(RED)
        if i % columns == 0:
            axes.text2D(
                -0.1,
                0.5,
                "cross-entropy (nats)",
                rotation=90,
                va="center",
                transform=axes.transAxes,
                fontsize=7,
            )
    figure.subplots_adjust(
        0.03, 0.22 / (rows + 0.2), 0.955, 1 - 0.1 / rows, wspace=0.24, hspace=0.16
    )
    figure.text(0.5, 0.02, "a and b on the 0–255 scale of pixels", ha="center", fontsize=7)
    return figure


def azimuth_of(losses: np.ndarray) -> int:
    """Choose the corner to look over: the one towards which a surface falls most.

    Args:
      losses: float [resolution, resolution], by a and b.

    Returns:
      Degrees, as `view_init` takes them.
    """
    a, b = np.meshgrid(*2 * (np.linspace(-1, 1, len(losses)),), indexing="ij")
    height = losses - losses.mean()

    def in_front(azimuth: int) -> float:
        angle = np.deg2rad(azimuth)
        return float(np.mean(height * (a * np.cos(angle) + b * np.sin(angle))))

    return min(_AZIMUTHS, key=in_front)


def _surface(
    axes: Axes3D, losses: np.ndarray, offsets: np.ndarray, bounds: tuple[float, float]
) -> None:
    a, b = np.meshgrid(offsets, offsets, indexing="ij")
    low, high = bounds
    height = max(high - low, FLAT)  # rounding is not to look like hills
    floor = low - 0.6 * height
    every = -(-len(offsets) // _SURFACE_LINES)
    colours = {"cmap": "viridis", "vmin": low, "vmax": low + height}
    axes.plot_surface(
        a,
        b,
        losses,
        rstride=every,
        cstride=every,
        linewidth=0,
        antialiased=False,
        rasterized=True,
        **colours,
    )
    axes.contour(a, b, losses, levels=10, zdir="z", offset=floor, linewidths=0.6, **colours)
    axes.plot([0], [0], [floor], "x", color=RED, markersize=3)
    axes.set_zlim(floor, low + height)
    edge = float(np.abs(offsets).max())
    azimuth = azimuth_of(losses)
    # The corner in front, which both axes share, has room for one label.
    axes.xaxis.set_major_locator(FixedLocator([-edge, 0, edge]))
    axes.yaxis.set_major_locator(
        FixedLocator([0, edge] if np.sin(np.deg2rad(azimuth)) < 0 else [-edge, 0])
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    ticks = [t for t in MaxNLocator(4).tick_values(low, low + height) if t >= low]
    axes.zaxis.set_major_locator(FixedLocator(ticks))
    axes.zaxis.set_major_formatter(FixedFormatter(_tick_labels(ticks)))
    axes.set_xlabel("a", labelpad=-10)
    axes.set_ylabel("b", labelpad=-10)
    axes.tick_params(pad=-4, labelsize=6)
    axes.tick_params(axis="z", pad=-1)
    axes.view_init(elev=30, azim=azimuth)
    axes.zaxis.set_ticks_position(_AZIMUTHS[azimuth])
    axes.set_box_aspect((1, 1, 0.85), zoom=1.06)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.pane.set_facecolor("white")
        axis.pane.set_edgecolor("#cccccc")


def _tick_labels(ticks: Sequence[float]) -> list[str]:
    """Return short labels, all with the same number of decimals."""
    if max(ticks) < 0.001:
        return [f"{tick:.1e}".replace("e-0", "e−") for tick in ticks]
    decimals = max(len(f"{tick:.3g}".partition(".")[2]) for tick in ticks)
    return [f"{tick:.{decimals}f}" for tick in ticks]
