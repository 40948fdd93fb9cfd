"""Figures 1–7, heat maps, restart and training curves, drawn from numbers.

Every function takes results and gives a matplotlib `Figure`; `save_figure` writes it with its
caption. What they share is in `figures.mplstyle`. Perturbation sizes are drawn on the 0–255 scale.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D

from alp_repro import runs
from alp_repro.errors import InputError
from alp_repro.heat_maps import HeatMap
from alp_repro.landscape import Surfaces
from alp_repro.restarts import AttackRecord, wilson_interval

WIDTH = 7.0  # inches, the text width
CERTAIN_LOSS = -math.log(0.1)  # above it the true class has a probability below 0.1
SUFFIXES = ("png", "pdf")
_RED = "#C00000"
_DASHES = ("-", "--", "-.", ":")


@contextlib.contextmanager
def _style() -> Iterator[None]:
    with (
        resources.as_file(resources.files("alp_repro").joinpath("figures.mplstyle")) as file,
        matplotlib.style.context(file),
    ):
        yield


def _styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    def drawn(*args: Any, **kwargs: Any) -> Figure:
        with _style():
            figure = draw(*args, **kwargs)
            FigureCanvasAgg(figure).draw()  # lays out under the style
            return figure

    drawn.__doc__ = draw.__doc__
    return drawn
