"""Adversarial accuracy against gradients per image: the paper's attack and each alternative.

    python -m benchmarks.attack_strength --run_dirs=runs/quick/mnist/clp,runs/quick/mnist/lsq

Results are kept in --out, one file an attack, so that a run that is stopped goes on, and more
restarts are added to what is there. AutoAttack's parts on the same weights, converted to PyTorch,
are run by an interpreter that has torch and torchattacks (--torch_python); without one they are
left out with a line.
"""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from alp_repro import evaluation, files, runs
from alp_repro.attacks import (
    APGD,
    PGD,
    Attack,
    Dtype,
    Ensemble,
    Turns,
    resolve_dtype,
    strong_attack,
)
from alp_repro.data import load
from alp_repro.evaluation import AttackRecord
from alp_repro.reporting.figures import figure_style
from benchmarks import other_libraries
from experiments.console import app

FLAGS = flags.FLAGS
CHECKPOINTS = (200, 400, 1000, 1800, 2000)
PAPER = "paper: constant 50"
PRESET = "strong (preset)"


@dataclasses.dataclass(frozen=True)
class Curve:
    """Adversarial accuracy after so many gradients an image."""

    name: str
    gradients: np.ndarray
    accuracy: np.ndarray
    seconds: float

    def at(self, budget: float) -> float | None:
        """The accuracy that at most `budget` gradients leave; None: not one run fits."""
        within = np.flatnonzero(self.gradients <= budget)
        return float(self.accuracy[within[-1]]) if len(within) else None


def contenders(eps: float, *, dtype: Dtype, budget: int) -> dict[str, Attack | Ensemble]:
    """Every attack of the comparison at `budget` gradients an image, by the name it is shown as."""
    strong = strong_attack(eps, dtype=dtype)
    turns = strong.phases[0].attack
    assert isinstance(turns, Turns)
    noise, momentum = turns.gradient_noise, turns.momentum

    def pgd(nb_iter: int = 200, **settings: Any) -> PGD:
        defaults: dict[str, Any] = {"eps_iter": eps, "step_schedule": "linear", "dtype": dtype}
        defaults["restarts"] = budget // nb_iter
        return PGD(eps=eps, nb_iter=nb_iter, **defaults | settings)

    constant: dict[str, Any] = {"step_schedule": "constant", "eps_iter": 50 / 255}

    def apgd(**settings: Any) -> APGD:
        return APGD(eps=eps, restarts=budget // 100, **settings)

    def aimed(nb_iter: int, restarts: int) -> PGD:
        changes: dict[str, Any] = {"restarts": restarts, "target": "each", "loss": "mixed"}
        return pgd(nb_iter, **changes, gradient_noise=noise, momentum=momentum)

    each_margin: dict[str, Any] = {"target": "each", "loss": "margin"}
    return {
        PAPER: pgd(**constant),
        "constant 50, any iterate": pgd(**constant, success="any"),
        "constant 50, margin": pgd(**constant, loss="margin"),
        "constant 50, DLR": pgd(**constant, loss="dlr"),
        "constant 50, noise and momentum": pgd(**constant, gradient_noise=noise, momentum=momentum),
        "falling step, CE": pgd(),
        "falling step, margin": pgd(loss="margin"),
        "falling step, DLR": pgd(loss="dlr"),
        "falling step from eps/2, margin": pgd(loss="margin", eps_iter=eps / 2),
        "falling step, each target, CE": pgd(target="each"),
        "falling step, each target, margin": pgd(**each_margin),
        "falling step, each target, margin, n 100": pgd(100, **each_margin),
        "falling step, each target, margin, n 50": pgd(50, **each_margin),
        "falling step, each target, DLR": pgd(target="each", loss="dlr"),
        "falling step, margin, momentum": pgd(loss="margin", momentum=momentum),
        "falling step, margin, noise": pgd(loss="margin", gradient_noise=noise),
        "falling step, margin, noise and momentum": pgd(
            loss="margin", gradient_noise=noise, momentum=momentum
        ),
        "APGD, CE, n 100": apgd(),
        "APGD, DLR, n 100": apgd(loss="dlr"),
        "APGD, each target, DLR, n 100": apgd(loss="dlr", target="each"),
        PRESET: strong,
        "strong, no budget": strong.without_budget(),
        "strong's turns, n 200, 10 restarts": dataclasses.replace(turns, nb_iter=200, restarts=10),
        "strong's first, target each": aimed(100, 19),
        "strong's first, target each, n 200, 9 restarts": aimed(200, 9),
    }


def curve(name: str, record: AttackRecord, attack: Attack | Ensemble, seconds: float) -> Curve:
    """The accuracy after each restart."""
    restarts = np.arange(1, attack.restarts + 1)
    accuracy = np.array([record.accuracy_at(int(r)) for r in restarts])
    spent = attack.cost_of(restarts)
    if isinstance(attack, Ensemble):  # on average over the images
        spent = np.array([record.gradients_spent(int(r)).mean() for r in restarts])
    return Curve(name, np.rint(spent).astype(int), accuracy, seconds)


def table(curves: list[Curve], title: str) -> str:
    """Markdown: accuracies at a few numbers of gradients, the best at the end first."""
    heads = [f"{c:,}" for c in CHECKPOINTS]
    lines = [
        f"| {title} | " + " | ".join(heads) + " | last | s |",
        "| --- |" + " ---: |" * (len(heads) + 2),
    ]
    for c in sorted(curves, key=lambda c: (c.accuracy[-1], c.name)):
        cells = [c.at(budget) for budget in CHECKPOINTS]
        texts = ["–" if a is None else f"{100 * a:.1f}" for a in cells]
        last = f"{100 * c.accuracy[-1]:.1f} at {c.gradients[-1]:,}"
        lines.append(f"| {c.name} | " + " | ".join(texts) + f" | {last} | {c.seconds:.0f} |")
    return "\n".join(lines)


def plot(panels: dict[str, list[Curve]], shown: list[str]) -> Figure:
    """One panel a model, with its own range of accuracies; log axis of gradients per image."""
    with figure_style():
        columns = 2 if len(panels) in (2, 4) else min(len(panels), 3)
        rows = -(-len(panels) // columns)
        figure, axes = plt.subplots(
            rows, columns, figsize=(7.0, 2.4 * rows + 0.9), squeeze=False, layout="constrained"
        )
        for axis in axes.flat[len(panels) :]:
            axis.remove()
        lines = {}
        markers = "os^Dv<>P"
        for axis, (title, curves) in zip(axes.flat, panels.items(), strict=False):
            by_name = {c.name: c for c in curves}
            for place, name in enumerate(n for n in shown if n in by_name):
                c = by_name[name]
                (lines[name],) = axis.plot(
                    c.gradients,
                    c.accuracy,
                    drawstyle="steps-post",
                    color="black" if name == PRESET else f"C{place % 8}",
                    linestyle=("-", "--")[place // 4 % 2],
                    marker=markers[place % 8],
                    markevery=0.2 if len(c.gradients) > 20 else 1,
                )
            axis.set_xscale("log")
            axis.margins(y=0.08)
            axis.set_title(title)
            axis.yaxis.set_major_formatter(PercentFormatter(1.0))
            axis.set_xlabel("gradients per image")
            axis.set_ylabel("adversarial accuracy")
        figure.legend(
            lines.values(), lines.keys(), loc="outside lower center", ncols=2, handlelength=3
        )
    return figure


def each(numbers: list[str]) -> list[int]:
    """One number for each run folder; a single one is that of all."""
    return [int(n) for n in (numbers * len(FLAGS.run_dirs) if len(numbers) == 1 else numbers)]


def main(argv: list[str]) -> None:
    del argv
    dtype = resolve_dtype(FLAGS.attack_dtype)
    eps = FLAGS.eps / 255
    attacks = contenders(eps, dtype=dtype, budget=FLAGS.budget)
    attacks = {n: a for n, a in attacks.items() if re.search(FLAGS.only, n)}
    panels = {}
    for run_dir, count, paper_restarts in zip(
        FLAGS.run_dirs, each(FLAGS.num_images), each(FLAGS.paper_restarts), strict=True
    ):
        data = load.load_evaluation_set("mnist", num_images=count, data_dir=FLAGS.data_dir)
        images = data.unit_scale
        if PAPER in attacks:
            attacks[PAPER] = dataclasses.replace(attacks[PAPER], restarts=paper_restarts)
        model = runs.load_model(runs.RunDir(Path(run_dir)).model)
        name, curves = Path(run_dir).name, []
        for label, attack in attacks.items():
            started = time.monotonic()
            record = evaluation.evaluate(
                model,
                images,
                data.labels,
                attack=attack,
                indices=data.indices,
                batch_size=FLAGS.batch_size,
                folder=Path(FLAGS.out) / name,
            )
            seconds = record.sessions[-1].get("seconds", time.monotonic() - started)
            curves.append(curve(label, record, attack, seconds))
            print(f"{name}: {label}: {100 * curves[-1].accuracy[-1]:.1f}%", flush=True)
        if FLAGS.autoattack:
            parts = other_libraries.auto_attack_parts(
                model, images, data.labels, eps=eps, python=FLAGS.torch_python
            )
            curves += [Curve(p.name, p.gradients, p.accuracy, p.seconds) for p in parts]
        panels[name] = curves
        title = f"{name} ({len(images)} images, clean {100 * record.clean_accuracy:.1f}%)"
        print("\n" + table(curves, title) + "\n", flush=True)
    summary = {
        name: [
            {"name": c.name, "gradients": c.gradients.tolist(), "accuracy": c.accuracy.tolist()}
            for c in curves
        ]
        for name, curves in panels.items()
    }
    files.write_json(Path(FLAGS.out) / "curves.json", summary)
    if FLAGS.plot:
        shown = [n for n in attacks if not FLAGS.shown or n in FLAGS.shown]
        files.write_atomically(
            Path(FLAGS.plot), lambda path: plot(panels, shown).savefig(path, format="png")
        )
        print(f"wrote {FLAGS.plot}; the numbers are in {Path(FLAGS.out) / 'curves.json'}")


if __name__ == "__main__":
    flags.DEFINE_list("run_dirs", [], "Folders of trained MNIST models (with model.keras).")
    flags.DEFINE_list("num_images", ["100"], "Of the evaluation set: for all, or one a run_dir.")
    flags.DEFINE_string("data_dir", None, "TFDS folder.")
    flags.DEFINE_string("out", "benchmarks/results/attack_strength", "Folder of the results.")
    flags.DEFINE_string("plot", None, "PNG to draw.")
    flags.DEFINE_list("shown", [], "Names of attacks to draw; empty: all.")
    flags.DEFINE_string("only", "", "Regular expression on the attacks' names.")
    flags.DEFINE_float("eps", 76.5, "Radius, 0-255 scale.")
    flags.DEFINE_integer("budget", 2000, "Gradients an image.")
    flags.DEFINE_list("paper_restarts", ["10"], "Of the paper's attack: for all, or one a run_dir.")
    flags.DEFINE_integer("batch_size", 200, "Work items a batch.")
    flags.DEFINE_enum("attack_dtype", "auto", ["auto", "float32", "bfloat16"], "Of the crafting.")
    flags.DEFINE_bool("autoattack", False, "Also AutoAttack's parts, in PyTorch.")
    flags.DEFINE_string("torch_python", None, "Interpreter that has torch and torchattacks.")
    app.run(main)
