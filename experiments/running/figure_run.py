"""Shared by the figures' binaries: their flags, the runs to draw, and writing the figure."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from alp_repro.attacks import EXECUTION
from alp_repro.data import dataset_spec, load, unverified_source
from alp_repro.errors import InputError
from alp_repro.reporting import figures, labels, results
from alp_repro.runs import RunDir

from ..evidence.figure_list import missing_row
from ..flags import settings
from ..flags.flagfiles import one_of
from . import devices

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from alp_repro.attacks import Attack, Ensemble
    from alp_repro.data import Images
    from alp_repro.reporting.report import Missing

_IN_CAPTIONS = {
    "eps": "ε =",
    "eps_iter": "steps of",
    "learning_rate": "a learning rate of",
    "nb_iter": "n =",
    "restarts": "r =",
}

FLAGS = flags.FLAGS
# Flags that are defined here count as the binary's own, so that --help lists them.
flags.disclaim_key_flags()


def define_flags() -> None:
    """Define the flags of a table, whose rows are drawn, and of the figure's location."""
    settings.define_table_flags()
    devices.define_flags()
    flags.DEFINE_string("name", None, "Name of the figure (default: from its content).")
    flags.DEFINE_string(
        "figures_dir", None, "Folder of the figure (default: figures in the scale's folder)."
    )


def fill_in_scale(kind: str, define: Callable[[flags.FlagValues], None]) -> None:
    """Fill in flags of a kind of figure that are not given, from its flagfile at this scale.

    The file is flags/scale/<scale>/figures/<kind>.cfg.

    Args:
      kind: the file's name.
      define: defines the flags that such a file sets.

    Raises:
      InputError: the scale has no such figure, or the file sets something else.
    """
    folder = Path(FLAGS.flags_dir) / "scale"
    file = folder / FLAGS.scale / "figures" / f"{kind}.cfg"
    if not file.is_file():
        known = [f.parts[-3] for f in sorted(folder.glob(f"*/figures/{kind}.cfg"))]
        raise InputError(f"--scale={FLAGS.scale} has no {kind}: scale {one_of(known, folder)}")
    settings.fill_in(FLAGS, file, define)


def finished_runs(rows: list[str]) -> tuple[dict[str, RunDir], list[Missing]]:
    """Return the runs of rows that can be drawn, and the missing ones with their commands.

    Raises:
      InputError: no row can be drawn, or none is given.
    """
    if not rows:
        raise InputError("no row given: expected rows of the table, as in --rows=clp")
    folder = settings.scale_folder(FLAGS) / FLAGS.dataset
    found, missing = {}, []
    for row in rows:
        run = RunDir(folder / row)
        problem = results.run_problem(run) if run.finished else ""
        if run.finished and not problem:
            found[row] = run
        else:
            missing.append(missing_row(run, f"the model ({problem})" if problem else "the model"))
    if not found:
        others = f" (and those of {', '.join(rows[1:])})" if len(rows) > 1 else ""
        raise InputError(f"{missing[0]}{others}")
    return found, missing


def test_images(positions: list[int]) -> Images:
    """Return the test images at these positions."""
    test = load.load_split(FLAGS.dataset, "test", data_dir=FLAGS.data_dir, limit=max(positions) + 1)
    return figures.pick_images(test, positions)


def title(row: str) -> str:
    """Return a row's label without its settings."""
    return labels.row_label(FLAGS.table, row)


def in_words(attack: Attack | Ensemble) -> str:
    """Describe an attack for a caption: the paper's symbols, sizes on the 0–255 scale."""
    parts = [f"{_IN_CAPTIONS[name]} {value}" for name, value in attack.varied.items()]
    if attack.dtype != "float32":
        parts.append(f"crafted in {attack.dtype} and judged in float32")
    others = attack.non_default_text(leaving_out=("method", *EXECUTION))
    rest = f", and {others}" if others else ""
    return f"{attack.name.upper()} with {', '.join(parts)}{rest} (sizes on the 0–255 scale)"


def data_and_scale() -> str:
    """Describe the origin of models and images for a caption."""
    data = unverified_source(FLAGS.dataset, data_dir=FLAGS.data_dir)
    source = f" ({data})" if data else ""
    return f"{dataset_spec(FLAGS.dataset).title}{source}, scale {FLAGS.scale}"


def finish(
    figure: Figure,
    *,
    name: str,
    caption: str,
    drawn: Mapping[str, RunDir],
    missing: list[Missing],
) -> None:
    """Write a figure, and print its path and what is missing in it.

    Args:
      figure, caption: the figure and its caption.
      name: the default of --name.
      drawn: the runs that it shows; a report checks that their models have not changed.
      missing: what a complete figure would show too.
    """
    folder = Path(FLAGS.figures_dir or settings.scale_folder(FLAGS) / "figures")
    path = figures.save_figure(
        figure,
        folder,
        FLAGS.name or name,
        caption=caption,
        details={
            "scale": FLAGS.scale,
            "dataset": FLAGS.dataset,
            "models": {row: results.weights_now(run) for row, run in drawn.items()},
            "missing": [dataclasses.asdict(part) for part in missing],
        },
    )
    for part in missing:
        print(part, file=sys.stderr)
    print(f"written: {path} and .pdf")
