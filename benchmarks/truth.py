"""Attacks on models whose robustness is known from outside: what each leaves standing.

    python -m benchmarks.truth --truth_dir=<folder of such models>

The folder is described in truth_models.py. Each attack is run on all images of a case and its
results are kept in --out, so that a run that is stopped goes on; AutoAttack's parts are run in its
order, each on what the ones before it left. Of the radius, images and models nothing can be chosen
but which (--only) and how many of TRADES' images (--trades_images); of the attacks: --attacks,
and --dtype of what `strong` crafts in.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from absl import flags

from alp_repro import runs
from alp_repro.attacks import Attack, BasinHopping, Ensemble, autoattack_parts, strong_attack
from alp_repro.evaluation import evaluate
from benchmarks import timing, truth_models
from experiments.console import app

FLAGS = flags.FLAGS
AUTOATTACK = "autoattack"


def attacks_alone(eps: float) -> dict[str, Attack | Ensemble]:
    """What is shown beside AutoAttack."""
    found: dict[str, Attack | Ensemble] = {
        "strong": strong_attack(eps, dtype=FLAGS.dtype),
        "hopping": BasinHopping(eps=eps, restarts=8),
    }
    return {name: attack for name, attack in found.items() if name in FLAGS.attacks}


def parts(eps: float) -> dict[str, Attack]:
    """AutoAttack's parts, if it is asked for."""
    return autoattack_parts(eps) if AUTOATTACK in FLAGS.attacks else {}


def left_by(
    attack: Attack | Ensemble, case: truth_models.Case, chosen: np.ndarray, name: str
) -> np.ndarray:
    """Which of the chosen images of a case an attack leaves: their places among all of them.

    Its gradients are added to those that `row` tells.
    """
    record = evaluate(
        runs.load_model(case.model),
        case.images[chosen],
        case.labels[chosen],
        attack=attack,
        indices=chosen,
        batch_size=FLAGS.batch_size,
        folder=Path(FLAGS.out) / re.sub(r"\W+", "_", f"{case.name} {name}"),
    )
    _spent[case.name, name] = record.gradients_spent(attack.restarts).sum() / len(case.labels)
    return chosen[record.standing]


_spent: dict[tuple[str, str], float] = {}


def row(case: truth_models.Case) -> list[str]:
    """A line of the table."""
    count = len(case.labels)
    standing, cells = np.arange(count), [case.name, str(count), case.truth]
    for name, part in parts(case.eps).items():
        if len(standing):
            standing = left_by(part, case, standing, name)
        cells.append(f"{100 * len(standing) / count:.2f}")
    if AUTOATTACK in FLAGS.attacks:
        cells.append(f"{sum(v for (of, _), v in _spent.items() if of == case.name):,.0f}")
    for name, alone in attacks_alone(case.eps).items():
        left = left_by(alone, case, np.arange(count), name)
        cells += [f"{100 * len(left) / count:.2f}", f"{_spent[case.name, name]:,.0f}"]
    return cells


def main(_: list[str]) -> None:
    """Prints the table, a line a case."""
    found = truth_models.cases(
        Path(FLAGS.truth_dir), data_dir=FLAGS.data_dir, trades_images=FLAGS.trades_images
    )
    heads = ["percent left standing", "images", "truth", *parts(0.1)]
    heads += ["gradients"] * (AUTOATTACK in FLAGS.attacks)
    heads += [head for name in attacks_alone(0.1) for head in (name, "gradients")]
    rows = []
    for case in found:
        if re.search(FLAGS.only, case.name):
            rows.append(row(case))
            print(" | ".join(rows[-1]), flush=True)
    print("\n" + timing.table(heads, rows))


if __name__ == "__main__":
    flags.DEFINE_string("truth_dir", None, "Folder of the models.", required=True)
    flags.DEFINE_string("only", "", "Regular expression on the cases' names.")
    flags.DEFINE_integer("trades_images", 10_000, "Of TRADES' network, from the first.")
    flags.DEFINE_multi_enum(
        "attacks", [AUTOATTACK, "strong", "hopping"], [AUTOATTACK, "strong", "hopping"], "Which."
    )
    flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of strong's crafting.")
    flags.DEFINE_string("data_dir", None, "TFDS folder.")
    flags.DEFINE_string("out", "benchmarks/results/truth", "Folder of the results.")
    flags.DEFINE_integer("batch_size", 200, "Work items a batch.")
    app.run(main)
