"""Histograms of the losses that restarts of PGD end with (Figures 2 and 7).

    python -m experiments.histograms --flagfile=flags/tables/table1.cfg --rows=clp
    python -m experiments.histograms --flagfile=flags/tables/table1.cfg --rows=clp --cases

The attack is the last column of --grid, with the losses of every restart recorded; it is run as far
as its result is not on disk. Both figures come from one result.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from absl import flags

from alp_repro import runs
from alp_repro.attacks import Attack
from alp_repro.data import load
from alp_repro.errors import InputError
from alp_repro.evaluation import AttackRecord
from alp_repro.reporting import figures, report, tables

from . import app, devices, settings
from .evaluation_run import attack_run, data_and_scale
from .table import make_job

FLAGS = flags.FLAGS
_IMAGES = flags.DEFINE_string(
    "images", None, "Positions in the test set that are attacked, as in 0-31 (default: by scale)."
)
_RESTARTS = flags.DEFINE_integer("restarts", None, "Restarts of each image (default: by scale).")
_PANELS = flags.DEFINE_integer("panels", 16, "Show the first so many of the images.")
_CASES = flags.DEFINE_boolean("cases", False, "Show four typical images (Figure 2) instead.")
_NAME = flags.DEFINE_string("name", None, "Name of the figure (default: from what it shows).")

# Images and restarts: enough for the four cases to be met, as far as the scale's time allows.
_SCALES = {"smoke": ("0-3", 4), "quick": ("0-31", 100), "paper": ("0-99", 10000)}


def main(_: list[str]) -> None:
    """Attacks the model of --rows, as far as needed, and draws."""
    settings.fill_in_table()
    if len(FLAGS.rows) != 1:
        raise InputError(f"--rows={','.join(FLAGS.rows)}: one row is needed, as in --rows=clp")
    (row,) = FLAGS.rows
    images, restarts = _SCALES[FLAGS.scale]
    positions = figures.parse_positions(_IMAGES.value or images)
    if _PANELS.value < 1:
        raise InputError(f"--panels={_PANELS.value}: 1 or more are needed")
    job = make_job(row)
    found, _missing = report.finished_runs(job.run.path.parent, [row])
    attack = dataclasses.replace(
        job.columns[-1].attack, restarts=restarts if _RESTARTS.value is None else _RESTARTS.value
    )
    data = figures.pick_images(
        load.load_split(FLAGS.dataset, "test", data_dir=FLAGS.data_dir, limit=max(positions) + 1),
        positions,
    )
    record = attack_run(
        job.values, found[row], runs.load_model(found[row].model), attack, devices.choose(),
        data=data, record_losses=True, details={"scale": FLAGS.scale},
    )  # fmt: skip
    _draw(row, record, attack)


def _draw(row: str, record: AttackRecord, attack: Attack) -> None:
    losses, broken = figures.recorded_losses(record, attack.restarts)
    names = [f"image {i}, class {c}" for i, c in zip(record.indices, record.labels, strict=True)]
    if _CASES.value:
        cases = figures.typical_cases(losses, broken)
        chosen, kind, rule = list(cases.values()), "cases", _rule(set(cases), record)
        titles = [f"{case}:\n{names[i]}" for case, i in cases.items()]
    else:
        chosen, kind, rule = list(range(min(_PANELS.value, len(losses)))), "histograms", ""
        titles = [names[i] for i in chosen]
    label = {r.row: r.label for r in tables.load_paper_table(FLAGS.table).rows}.get(row, row)
    where = data_and_scale(FLAGS)
    caption = (
        f"{report.short_label(label)} on {where}: the cross-entropy "
        f"with which restarts of {attack} (0–255 scale) end on each of {len(chosen)} "
        "test images. Red line: −ln 0.1, where the true class has probability 0.1, so that right "
        "of it another class is ahead. Written in: the shares of the restarts that end right of "
        f"the line and that break the image.{rule}"
    )
    path = figures.save_figure(
        figures.loss_histograms(losses[chosen], titles, broken=broken[chosen]),
        Path(FLAGS.runs_dir) / FLAGS.scale / "figures",
        _NAME.value or f"{kind}_{FLAGS.dataset}_{row}",
        caption=caption,
        details={"scale": FLAGS.scale, "missing": []},
    )
    print(f"written: {path} and .pdf")


def _rule(found: set[str], record: AttackRecord) -> str:
    """How the typical cases were chosen, and which there are none of."""
    kinds = "; ".join(f"{case}: {what}" for case, what in figures.CASES.items())
    absent = [case for case in figures.CASES if case not in found]
    return (
        f" Of each kind the first of images {record.indices[0]}–{record.indices[-1]} with restarts "
        f"on both sides of the line, else the first. {kinds}."
        + (f" None here: {', '.join(absent)}." if absent else "")
    )


def cli() -> None:
    """Console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
