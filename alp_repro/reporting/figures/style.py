"""The style of figures, and writing them."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.style

from alp_repro import files, runs
from alp_repro.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Embedding fonts in a PDF would be logged.
logging.getLogger("fontTools").setLevel(logging.WARNING)

WIDTH = 7.0  # inches, a page's text width
RED = "#C00000"
DASHES = ("-", "--", "-.", ":")


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """Apply the style of our figures in a block or function, whatever matplotlibrc says."""
    file = resources.files("alp_repro.reporting").joinpath("figures.mplstyle")
    with resources.as_file(file) as path, matplotlib.style.context(path, after_reset=True):
        yield


@contextlib.contextmanager
def _without_epoch() -> Iterator[None]:
    """Hide SOURCE_DATE_EPOCH, which Matplotlib reads and which may not be a date."""
    epoch = os.environ.pop("SOURCE_DATE_EPOCH", None)
    try:
        yield
    finally:
        if epoch is not None:
            os.environ["SOURCE_DATE_EPOCH"] = epoch


def percent(share: float) -> str:
    """Format a share in percent, without rounding to 0% or 100%."""
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    return f"{100 * share:.1f}%" if 0 < share < 1 else f"{100 * share:.0f}%"


def save_figure(
    figure: Figure, folder: Path, name: str, *, caption: str, details: Mapping[str, Any]
) -> Path:
    """Write <name>.png, .pdf and .json (caption, details, provenance), each atomically.

    Returns:
      The path of the PNG.

    Raises:
      InputError: the name is a path, the disk is full or the folder not writable.
    """
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise InputError(f"figure name {name!r}: expected a file's name without folders")
    # Without its date, the same numbers give the same PDF.
    metadata: dict[str, Any] = {"pdf": {"CreationDate": None}, "png": None}
    with figure_style(), _without_epoch():
        for suffix, fields in metadata.items():
            write = functools.partial(figure.savefig, format=suffix, metadata=fields)
            files.write_atomically(folder / f"{name}.{suffix}", write)
    notes = {"name": name, "caption": caption, **details, **runs.provenance()}
    files.write_json(folder / f"{name}.json", notes)
    return folder / f"{name}.png"
