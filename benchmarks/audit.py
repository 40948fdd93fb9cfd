"""An audit as a user calls it: time, memory and outcome; AutoAttack's parts beside it.

    python -m benchmarks.audit --models=plain.keras,clp.keras --data=mnist.npz --eps=76.5
    python -m benchmarks.audit --cifar_size --num_images=100 --minutes=15

Each audit is a process of its own, from its start to its page, so that seconds and peak memory are
those of the command. With --torch_python (an interpreter that has torch and torchattacks)
AutoAttack's parts attack the same images of the same LeNet, converted to PyTorch; without one they
are left out with a line.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import flags

from alp_repro import runs
from alp_repro.data.own_images import read_own_images
from alp_repro.system import machine
from benchmarks import other_libraries
from benchmarks.timing import table
from experiments.console import app

FLAGS = flags.FLAGS
# So small a ball that nothing breaks: every attack is run to its end on every image.
NOTHING_BREAKS = 0.01


@dataclasses.dataclass(frozen=True)
class Run:
    """One audit: seconds on the clock, peak memory in GB, and the numbers that it wrote."""

    seconds: float
    gigabytes: float
    numbers: dict[str, Any]


def audit(model: Path, data: str, *, eps: float, out: Path) -> Run:
    """Runs the command from nothing; a folder that holds an earlier audit is not gone on with.

    Raises:
      SystemExit: the command failed.
    """
    if out.exists():
        sys.exit(f"{out} is there: name another folder by --out, or remove it")
    command = [
        *(sys.executable, "-m", "experiments.audit", f"--model={model}", f"--data={data}"),
        *(f"--eps={eps}", f"--num_images={FLAGS.num_images}", f"--minutes={FLAGS.minutes}"),
        f"--out={out}",
    ]
    print(" ".join(command[1:]), flush=True)
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"the audit of {model} ended with {os.waitstatus_to_exitcode(status)}")
    return Run(
        time.monotonic() - started,
        usage.ru_maxrss / 2**20,  # Linux counts kilobytes
        json.loads((out / "audit.json").read_text(encoding="utf-8")),
    )


def row(name: str, run: Run) -> list[str]:
    """A line of the table of audits."""
    numbers = run.numbers
    percents = [numbers["clean_accuracy"], numbers["default_accuracy"], numbers["worst_accuracy"]]
    return [
        name,
        str(numbers["images"]),
        *("not measured" if share is None else f"{100 * share:.1f}%" for share in percents),
        ", ".join(numbers["raised"]) or "nothing",
        f"{run.seconds:.0f}",
        f"{run.gigabytes:.1f}",
        str(len(numbers["left_out"])),
    ]


def beside_autoattack(name: str, model: Path, data: str, *, eps: float, run: Run) -> list[str]:
    """Image by image, what an audit and AutoAttack's parts leave; empty: PyTorch is not there."""
    given = read_own_images(data, limit=FLAGS.num_images)
    answer = other_libraries.run_torch(
        "autoattack",
        runs.load_model(model),
        given.images,
        given.labels,
        eps=eps / 255,
        python=FLAGS.torch_python,
    )
    if answer is None:
        return []
    parts = {part: np.array(one["standing"]) for part, one in answer["parts"].items()}
    theirs = np.logical_and.reduce(list(parts.values()))
    ours = np.array(answer["clean"]) & (np.array(run.numbers["broken_by"]) < 0)
    return [
        name,
        *(str(int(standing.sum())) for standing in parts.values()),
        str(int(theirs.sum())),
        str(int(ours.sum())),
        str(int((ours & ~theirs).sum())),
        str(int((theirs & ~ours).sum())),
    ]


def cifar_size(folder: Path) -> tuple[Path, str]:
    """The CNN of Keras' CIFAR-10 example (1.25 million weights), and images with its own labels."""
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    layers: list[keras.layers.Layer] = [keras.Input((32, 32, 3))]
    for filters in (32, 64):
        layers += [
            keras.layers.Conv2D(filters, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(filters, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Dropout(0.25),
        ]
    layers += [
        keras.layers.Flatten(),
        keras.layers.Dense(512, activation="relu"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(10, activation="softmax"),
    ]
    model = keras.Sequential(layers)
    images = np.random.default_rng(0).integers(0, 256, (FLAGS.num_images, 32, 32, 3), np.uint8)
    labels = model.predict(images.astype(np.float32) / 255, verbose=0).argmax(axis=1)
    model.save(folder / "cifar_size.keras")
    np.savez(folder / "random.npz", x=images, y=labels)
    return folder / "cifar_size.keras", str(folder / "random.npz")


def main(_: list[str]) -> None:
    """Prints the tables as Markdown."""
    out = Path(FLAGS.out)
    jobs = {Path(model).parent.name: (Path(model), FLAGS.data, FLAGS.eps) for model in FLAGS.models}
    if FLAGS.cifar_size:
        model, data = cifar_size(out)
        jobs |= {
            "CIFAR-size CNN": (model, data, 8.0),
            "CIFAR-size CNN, nothing breaks": (model, data, NOTHING_BREAKS),
        }
    found, beside = [], []
    for place, (name, (model, data, eps)) in enumerate(jobs.items()):
        run = audit(model, data, eps=eps, out=out / f"{place}")
        found.append(row(name, run))
        print(run.numbers["verdict"], flush=True)
        if FLAGS.torch_python and not name.startswith("CIFAR"):
            beside += [beside_autoattack(name, model, data, eps=eps, run=run)]
    print(f"\n{machine.describe()}\n")
    heads = ["clean", "default", "worst case", "raised", "s", "peak GB", "attacks left out"]
    print(table(["model", "images", *heads], found))
    if any(beside):
        heads = ["APGD-CE", "APGD-T", "Square", "all three", "our audit"]
        heads += ["broken by theirs alone", "broken by ours alone"]
        print("\n" + table(["images left standing", *heads], [line for line in beside if line]))


if __name__ == "__main__":
    flags.DEFINE_list("models", [], "Model files; each is shown by its folder's name.")
    flags.DEFINE_string("data", None, "Images of --models, as alp-audit takes them.")
    flags.DEFINE_float("eps", 76.5, "Radius, 0-255 scale.")
    flags.DEFINE_integer("num_images", 200, "The first so many.")
    flags.DEFINE_float("minutes", 10.0, "Given to each audit.")
    flags.DEFINE_bool("cifar_size", False, "Also a CNN of CIFAR's size, on random images.")
    flags.DEFINE_string("out", "benchmarks/results/audit", "Folder of the audits.")
    flags.DEFINE_string("torch_python", None, "Interpreter that has torch and torchattacks.")
    app.run(main)
