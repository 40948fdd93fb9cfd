"""AutoAttack's parts here and by its authors' own package, on the same weights and images.

    python -m benchmarks.autoattack --torch_python=<python with torch and pyautoattack> \
      --truth_dir=<folder of models> --run_dirs=<clp>,<lsq>

Each part is run on all images that begin correct, by both, one after the other on as many threads
(--threads); seconds are of the processor, compiling included, since the clock of a machine that
others use says little. Without such an interpreter ours are shown alone.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import flags

from alp_repro import runs
from alp_repro.attacks import autoattack_parts
from alp_repro.data import load
from alp_repro.evaluation import evaluate
from benchmarks import other_libraries, timing, truth_models
from experiments.console import app

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True, eq=False)
class Left:
    """What a part leaves standing, bool [n], and the processor's seconds that it took."""

    standing: np.ndarray
    seconds: float


def ours(case: truth_models.Case, clean: np.ndarray) -> dict[str, Left]:
    """Our parts on the images that begin correct."""
    model, found = runs.load_model(case.model), {}
    for name, attack in autoattack_parts(case.eps).items():
        used = time.process_time()
        record = evaluate(
            model,
            case.images[clean],
            case.labels[clean],
            attack=attack,
            batch_size=FLAGS.batch_size,
        )
        standing = clean.copy()
        standing[clean] = record.standing
        found[name] = Left(standing, time.process_time() - used)
    return found


def theirs(case: truth_models.Case) -> tuple[np.ndarray, dict[str, Left]] | None:
    """Which images begin correct, and the authors' parts on these; None: they are not there."""
    answer = other_libraries.run_torch(
        "authors",
        runs.load_model(case.model),
        case.images,
        case.labels,
        eps=case.eps,
        python=FLAGS.torch_python,
    )
    if answer is None:
        return None
    parts = {
        name: Left(np.array(part["standing"]), part["processor_seconds"])
        for name, part in answer["parts"].items()
    }
    return np.array(answer["clean"]), parts


def together(parts: dict[str, Left]) -> dict[str, Left]:
    """The parts, and all of them."""
    standing = np.logical_and.reduce([part.standing for part in parts.values()])
    return {**parts, "all": Left(standing, sum(part.seconds for part in parts.values()))}


def rows(case: truth_models.Case) -> list[list[str]]:
    """A line for each part and one for all of them."""
    answer = theirs(case)
    if answer is None:
        clean = np.ones(len(case.labels), bool)
        mine = together(ours(case, clean))
        return [
            [case.name, name, "–", str(part.standing.sum()), "–", "–", "–", f"{part.seconds:.0f}"]
            for name, part in mine.items()
        ]
    clean, parts = answer
    of_authors, mine = together(parts), together(ours(case, clean))
    lines = []
    for name, part in of_authors.items():
        standing = mine[name].standing
        lines.append(
            [
                case.name,
                name,
                str(part.standing.sum()),
                str(standing.sum()),
                str((standing & ~part.standing).sum()),
                str((part.standing & ~standing).sum()),
                f"{part.seconds:.0f}",
                f"{mine[name].seconds:.0f}",
            ]
        )
    return lines


def chosen_cases() -> list[truth_models.Case]:
    """Those of the folder of known models, and trained MNIST models."""
    found = []
    if FLAGS.truth_dir:
        found = truth_models.cases(
            Path(FLAGS.truth_dir), data_dir=FLAGS.data_dir, trades_images=FLAGS.num_images
        )
    if FLAGS.run_dirs:
        images = load.load_evaluation_set(
            "mnist", num_images=FLAGS.num_images, data_dir=FLAGS.data_dir
        )
    for run_dir in FLAGS.run_dirs:
        found.append(
            truth_models.Case(
                Path(run_dir).name,
                runs.RunDir(Path(run_dir)).model,
                images.unit_scale,
                images.labels,
                FLAGS.eps / 255,
                None,
                None,
            )
        )
    return [
        dataclasses.replace(
            case, images=case.images[: FLAGS.num_images], labels=case.labels[: FLAGS.num_images]
        )
        for case in found
        if re.search(FLAGS.only, case.name)
    ]


def main(_: list[str]) -> None:
    """Prints a table as soon as a model is done."""
    os.environ["OMP_NUM_THREADS"] = str(FLAGS.threads)  # of the other interpreter
    tf.config.threading.set_intra_op_parallelism_threads(FLAGS.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    heads = ["model", "part", "theirs left", "ours left", "broken by theirs alone"]
    heads += ["by ours alone", "theirs, s", "ours, s"]
    for case in chosen_cases():
        print(timing.table(heads, rows(case)) + "\n", flush=True)


if __name__ == "__main__":
    flags.DEFINE_string("truth_dir", None, "Folder of models of known robustness.")
    flags.DEFINE_list("run_dirs", [], "Folders of trained MNIST models (with model.keras).")
    flags.DEFINE_string("only", "", "Regular expression on the models' names.")
    flags.DEFINE_integer("num_images", 200, "Of each model, at most.")
    flags.DEFINE_float("eps", 76.5, "Radius for --run_dirs, 0-255 scale.")
    flags.DEFINE_integer("threads", 1, "Of each side.")
    flags.DEFINE_integer("batch_size", 200, "Work items a batch.")
    flags.DEFINE_string("data_dir", None, "TFDS folder.")
    flags.DEFINE_string("torch_python", None, "Interpreter that has torch and pyautoattack.")
    app.run(main)
