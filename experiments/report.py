"""Writes one self-contained HTML page with the verdicts, tables and figures of a scale.

    python -m experiments.report --scale=quick

Reads <runs_dir>/<scale>/ and writes <runs_dir>/<scale>/report.html, which lists what is missing.
Nothing is trained or attacked.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from alp_repro import files, runs
from alp_repro.attacks import resolve_dtype
from alp_repro.data.load import EVALUATION_IMAGES
from alp_repro.data.specs import DATASETS
from alp_repro.reporting import report
from alp_repro.reporting.labels import model_label

from .console import app
from .evidence.claim_evidence import judge_all
from .evidence.deviations import in_words, training_changes
from .evidence.figure_list import expected
from .flags import settings
from .running.evaluation_run import image_count

FLAGS = flags.FLAGS
flags.DEFINE_string("runs_dir", "runs", "Folder of all runs.")
flags.DEFINE_string("flags_dir", str(settings.default_flags_dir()), "Folder of the flagfiles.")
flags.DEFINE_enum("scale", "quick", settings.SCALES, "Scale of the results.")
flags.DEFINE_string("out", None, "File of the page (default: report.html in the scale's folder).")


def main(_: list[str]) -> None:
    """Write the page."""
    folder = Path(FLAGS.runs_dir) / FLAGS.scale
    judged, _tables = judge_all(Path(FLAGS.runs_dir), [FLAGS.scale], flags_dir=FLAGS.flags_dir)
    page = report.collect(
        folder, expected=expected(FLAGS.scale), deviations=deviations(folder), judged=judged
    )
    out = Path(FLAGS.out) if FLAGS.out else folder / "report.html"
    files.write_text(out, report.render(page))
    print(
        f"written: {out} ({len(page.tables)} tables, {len(page.figures)} figures, "
        f"{len(page.missing)} missing)"
    )


def deviations(folder: Path) -> list[str]:
    """Describe how trainings and evaluations differ from the paper's; equal rows share a line."""
    lines: dict[tuple[str, str], list[str]] = {}
    for dataset, spec in DATASETS.items():
        rows = [
            row
            for row in settings.rows_of(Path(FLAGS.flags_dir), dataset)
            if runs.RunDir(folder / dataset / row).finished
        ]
        for row in rows:
            run = runs.RunDir(folder / dataset / row)
            changes = training_changes(run, dataset, row, flags_dir=FLAGS.flags_dir)
            lines.setdefault((spec.title, in_words(changes)), []).append(model_label(dataset, row))
        if rows:
            lines[spec.title, _evaluation_changes(dataset, rows[0])] = ["evaluation"]
    return [
        f"{title}, {', '.join(rows)}: {changes}"
        for (title, changes), rows in lines.items()
        if changes
    ]


def _evaluation_changes(dataset: str, row: str) -> str:
    """Describe what the scale changes in the evaluation of a data set; "" for nothing."""
    values = settings.row_flags(
        dataset=dataset, row=row, scale=FLAGS.scale, flags_dir=FLAGS.flags_dir
    )
    dtype = resolve_dtype(values.attack_dtype)
    changes = []
    if values.num_images != EVALUATION_IMAGES:
        whole = "all " if values.num_images == "all" else ""
        changes.append(f"{whole}{image_count(values)} images (paper {EVALUATION_IMAGES})")
    if values.max_restarts is not None:
        changes.append(f"at most {values.max_restarts} restarts of each attack")
    if dtype != "float32":
        changes.append(f"attacks crafted in {dtype}, judged in float32 (paper float32)")
    return ", ".join(changes)


def cli() -> None:
    """Run the console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
