r"""Audits the robustness of any classifier, and the evaluation that claims it.

    alp-audit --model=my_model.keras --data=my_images.npz --eps=8 --out=audit/
    alp-audit --model=old.h5 --pixel_range=-1,1 --data=photos/ --eps=4 --minutes=30 --out=audit/
    alp-audit --model=m.py:rounding --surrogate=m.py:without --data=photos/ --eps=4
    alp-audit --model=package.module:build --data=cifar10 --num_images=200 --fail_below=30
    alp-audit --model=m.keras --data=d.npz --fail_below=30 --junit=audit.xml --model_card=card.md

Writes audit.json, audit.html and images.csv to --out, beside the results of each stage. Run the
same command again to resume an audit that was stopped; if it was complete, this takes seconds. A
folder with results of another audit is refused. Sizes are on the 0-255 scale.

Exit codes: 0: passed, or no --fail_below; 1: below --fail_below; 2: bad input; 3: could not be
judged, with or without --fail_below: nothing was attacked (outputs that depend on the batch, wrong
pixel range, no gradient and no time), so there is no accuracy.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from absl import flags

from alp_repro import files
from alp_repro.errors import InputError

from .console import app, error_exit
from .flags.attack_flags import parse_attack, unit_size
from .flags.classifier_flags import define_classifier_flags, own_images, pixels
from .flags.definitions import define_num_images, parse

if TYPE_CHECKING:
    from pathlib import Path

    from alp_repro.attacks import Attack, Ensemble
    from alp_repro.auditing import Audit

FLAGS = flags.FLAGS
EXIT_BELOW = 1
EXIT_NOT_JUDGED = 3


def define_flags(values: flags.FlagValues = FLAGS) -> None:
    """Define the flags of an audit."""

    def text(name: str, help_text: str, default: str | None = None) -> None:
        flags.DEFINE_string(name, default, help_text, flag_values=values)

    define_classifier_flags(values)
    text(
        "surrogate",
        "A classifier, given like --model and of the same pixels, whose gradients attacks follow "
        "where the model has none: the model without its non-differentiable step, or another one. "
        "Images are judged by --model.",
    )
    text("data_dir", "Folder of the TFDS data sets.")
    define_num_images(
        values, 200, "Number of images, spread evenly over the classes; all: every image."
    )
    text("out", "Folder of the page, the numbers and the results of each stage.", "audit")
    flags.DEFINE_float("eps", 8.0, "Radius of the L∞ ball on the 0-255 scale.", flag_values=values)
    text(
        "attack",
        "The evaluation under audit, as METHOD[,KEY=VALUE...]: pgd,eps_iter=2,nb_iter=20 (sizes "
        "on the 0-255 scale). Default: the paper's PGD, 40 steps of eps/30.",
    )
    flags.DEFINE_float(
        "minutes",
        10.0,
        "Time limit; the audit leaves out what does not fit, and lists it.",
        flag_values=values,
    )
    flags.DEFINE_integer("seed", 0, "Seed of the attacks' starts and targets.", flag_values=values)
    flags.DEFINE_float(
        "fail_below",
        None,
        "Exit with code 1 if a smaller percentage of the images survives all attacks (and with 3 "
        "if the model could not be judged).",
        lower_bound=0.0,
        upper_bound=100.0,
        flag_values=values,
    )
    text(
        "junit",
        "Also write JUnit XML to this file, whose name ends in .xml: a test case for the bound and "
        "for each indicator. A raised indicator fails its test case, but does not change the exit "
        "code.",
    )
    text(
        "model_card",
        "Also write a model card, YAML and a table, to this file, whose name ends in .md.",
    )
    flags.DEFINE_boolean(
        "save_adversarial",
        False,
        "Also write adversarial.npz, which alp-verify can check.",
        flag_values=values,
    )


def main(_: list[str]) -> int:
    """Audit --model on --data; return the exit code."""
    from alp_repro.auditing import audit, model_card
    from alp_repro.auditing.junit import to_junit

    if not FLAGS.model or not FLAGS.data:
        raise InputError(
            "--model and --data are required, as in alp-audit --model=m.keras --data=d.npz"
        )
    eps = unit_size(f"--eps={FLAGS.eps:g}", FLAGS.eps)
    junit, card = (
        own_file("junit", FLAGS.junit, ".xml"),
        own_file("model_card", FLAGS.model_card, ".md"),
    )
    if card:
        model_card.check_replaceable(card)
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
        surrogate=FLAGS.surrogate,
        seed=FLAGS.seed,
        trust_code=FLAGS.trust_code,
        report=lambda line: print(line, flush=True),
    )
    folder = files.expanded(FLAGS.out)
    found = dataclasses.replace(
        found,
        notes=(f"images from {data.source}", *data.notes, *found.notes),
        settings={**found.settings, "data": data.source},
    )
    _print_findings(found)  # first: a full disk must not take the verdict with it
    found.save(folder / "audit.json")
    found.save(folder / "images.csv")
    if junit:
        files.write_text(junit, to_junit(found, fail_below=FLAGS.fail_below))
    if card:
        found.save(card)
    if FLAGS.save_adversarial:
        found.save(folder / "adversarial.npz")
    error_exit.flush_output()
    found.save(folder / "audit.html")  # last: drawing its pictures may fail
    print(f"page: {folder / 'audit.html'}")
    return _gate(found, FLAGS.fail_below)


def own_file(flag: str, name: str | None, ending: str) -> Path | None:
    """Return the file of a flag, in a folder that can be written to; None if it is not given.

    Raises:
      InputError: the name has another ending or is a folder; found before the audit starts.
    """
    if not name:
        return None
    path = files.expanded(name)
    if path.suffix != ending or path.is_dir():
        raise InputError(f"--{flag}={name}: expected the name of a file, ending in {ending}")
    files.make_folder(path.parent)
    return path


def _gate(found: Audit, fail_below: float | None) -> int:
    from alp_repro.auditing import gate

    outcome = gate.outcome(found, fail_below=fail_below)
    if outcome == "not judged":
        print(f"could not be judged: {found.not_measured}")
        return EXIT_NOT_JUDGED
    if outcome == "below":
        print(f"{found.worst_accuracy:.1%} survives, below --fail_below={fail_below:g}%")
        return EXIT_BELOW
    return 0


def _print_findings(found: Audit) -> None:
    print()
    for one in found.indicators:
        if not one.raised:
            print(f"  {one.state:<11} {one.key}: {one.saw}")
    for one in found.raised:
        print(f"  RAISED      {one.key}: {one.saw}. {one.advice}")
    for line in found.left_out:
        print(f"  left out    {line}")
    print(f"\n{found.verdict}")


def evaluation_under_audit(text: str | None, eps: float) -> Attack | Ensemble | None:
    """Return the attack of --attack with the audit's ε; None: the default."""
    if not text:
        return None
    method, *rest = text.split(",")
    return parse_attack(",".join([method, f"eps={eps * 255!r}", *rest]), parse([]))


def cli() -> None:
    """Run the console script."""
    app.run(main)


define_flags()

if __name__ == "__main__":
    cli()
