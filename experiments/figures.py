"""Draws all figures of the report, or those of --only, from the runs of a scale.

    python -m experiments.figures --scale=quick
    python -m experiments.figures --scale=quick --only=figure1,figure7

Each figure is drawn in its own process, by the binary and flags of `figure_list.FIGURES`. Where the
runs of a figure are missing, the command that makes them is printed, and the other figures are
drawn.
"""

from __future__ import annotations

import sys

from absl import flags

from alp_repro.errors import InputError
from alp_repro.system import orphans

from .console import app
from .evidence import figure_list
from .flags import settings

FLAGS = flags.FLAGS
flags.DEFINE_list("only", [], "Figures to draw, as in figure1,figure7. Default: all.")
flags.DEFINE_string("runs_dir", "runs", "Folder of all runs.")
flags.DEFINE_string("data_dir", None, "Folder of the TFDS data sets (default: see README).")
flags.DEFINE_enum("scale", "quick", settings.SCALES, "Scale of the runs.")


def main(_: list[str]) -> None:
    """Draw the figures one after the other."""
    known = {spec.name: spec for spec in figure_list.FIGURES}
    for name in FLAGS.only:
        if name not in known:
            raise InputError(f"--only={name}: unknown figure; expected one of {', '.join(known)}")
    failed = [name for name in FLAGS.only or known if not draw(known[name])]
    print(f"not drawn: {', '.join(failed)}" if failed else "all drawn", flush=True)
    if FLAGS.only and failed:
        raise InputError(f"could not draw {', '.join(failed)}, for the reasons above")


def draw(spec: figure_list.FigureSpec) -> bool:
    """Run a figure's command; return whether it was drawn."""
    print(f"\n{spec.heading}", flush=True)
    # The package has another name where it is installed.
    arguments = ["-m", f"{__package__}.{spec.binary}", *spec.arguments(FLAGS.scale)]
    arguments.append(f"--runs_dir={FLAGS.runs_dir}")
    if FLAGS.data_dir:
        arguments.append(f"--data_dir={FLAGS.data_dir}")
    return orphans.run([sys.executable, *arguments]) == 0


def cli() -> None:
    """Run the console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
