r"""Audits an evaluation of any classifier: what it leaves, what survives, what is doubtful.

    alp-audit --model=my_model.keras --data=my_images.npz --eps=8 --out=audit/
    alp-audit --model=old.h5 --pixel_range=-1,1 --data=photos/ --eps=4 --minutes=30 --out=audit/
    alp-audit --model=package.module:build --data=cifar10 --num_images=200 --fail_below=30

Writes audit.json and audit.html into --out, beside the result of every stage: the same command goes
on where it was stopped, and takes seconds when all is there. Sizes are on the 0-255 scale.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from alp_repro.errors import InputError

from . import app
from .attack_flags import parse_attack
from .classifier_flags import define_classifier_flags, own_images, pixels
from .definitions import define_num_images, parse

if TYPE_CHECKING:
    from alp_repro.attacks import Attack
    from alp_repro.auditing import Audit

FLAGS = flags.FLAGS
EXIT_BELOW = 1


def define_flags(values: flags.FlagValues = FLAGS) -> None:
    """What is audited, with what, for how long."""

    def text(name: str, what: str, default: str | None = None) -> None:
        flags.DEFINE_string(name, default, what, flag_values=values)

    define_classifier_flags(values)
    text("data_dir", "Folder of the TFDS datasets.")
    define_num_images(values, 200, "The first so many images, or all of them.")
    text("out", "Folder of the page, the numbers and every stage's result.", "audit")
    flags.DEFINE_float("eps", 8.0, "Radius of the L∞ ball, 0-255 scale.", flag_values=values)
    text(
        "attack",
        "The evaluation under audit, as METHOD[,KEY=VALUE...]: pgd,eps_iter=2,nb_iter=20 (sizes "
        "on the 0-255 scale). Default: the paper's PGD, 40 steps of eps/30.",
    )
    flags.DEFINE_float(
        "minutes",
        10.0,
        "Time for it all; what does not fit is left out and said.",
        flag_values=values,
    )
    flags.DEFINE_integer("seed", 0, "Of starts and targets.", flag_values=values)
    flags.DEFINE_float(
        "fail_below",
        None,
        "Exit with code 1 when fewer percent survive all attacks.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "save_adversarial",
        False,
        "Write adversarial.npz, which alp-verify checks.",
        flag_values=values,
    )


def main(_: list[str]) -> None:
    """Audits --model on --data."""
    from alp_repro.auditing import audit

    if not FLAGS.model or not FLAGS.data:
        raise InputError("--model and --data are needed: alp-audit --model=m.keras --data=d.npz")
    eps = FLAGS.eps / 255
    data = own_images(FLAGS)
    for note in data.notes:
        print(f"data: {note}")
    found = audit(
        FLAGS.model,
        data.images,
        data.labels,
        eps,
        attack=evaluation_under_audit(FLAGS.attack, eps),
        minutes=FLAGS.minutes,
        folder=FLAGS.out,
        pixels=pixels(FLAGS),
        seed=FLAGS.seed,
        trust_code=FLAGS.trust_code,
        report=lambda line: print(line, flush=True),
    )
    folder = Path(FLAGS.out).expanduser()
    found = dataclasses.replace(
        found, notes=(f"images from {data.source}", *data.notes, *found.notes)
    )
    found.save(folder / "audit.json")
    found.save(folder / "audit.html")
    if FLAGS.save_adversarial:
        found.save(folder / "adversarial.npz")
    _tell(found)
    print(f"page: {folder / 'audit.html'}")
    if FLAGS.fail_below is not None and 100 * found.worst_accuracy < FLAGS.fail_below:
        print(f"{found.worst_accuracy:.1%} survives, below --fail_below={FLAGS.fail_below:g}%")
        sys.exit(EXIT_BELOW)


def _tell(found: Audit) -> None:
    print()
    for one in found.indicators:
        if not one.raised:
            print(f"  {one.state:<11} {one.key}: {one.saw}")
    for one in found.raised:
        print(f"  RAISED      {one.key}: {one.saw}. {one.advice}")
    for line in found.left_out:
        print(f"  left out    {line}")
    print(f"\n{found.verdict}")


def evaluation_under_audit(text: str | None, eps: float) -> Attack | None:
    """The attack of --attack with the audit's ε; None: the default."""
    if not text:
        return None
    method, *rest = text.split(",")
    return parse_attack(",".join([method, f"eps={eps * 255!r}", *rest]), parse([]))


def cli() -> None:
    """Console script."""
    app.run(main)


define_flags()

if __name__ == "__main__":
    cli()
