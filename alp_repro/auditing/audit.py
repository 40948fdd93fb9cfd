"""An audit: a classifier, images and an evaluation in; a verdict on that evaluation out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro import runs
from alp_repro.attacks import Attack
from alp_repro.auditing import course, measurements
from alp_repro.auditing import indicators as judge
from alp_repro.auditing.folder import own_folder
from alp_repro.auditing.kinds import Indicator
from alp_repro.auditing.result import Audit
from alp_repro.auditing.stages import Stage, attack_stages, default_attack, passes
from alp_repro.auditing.work import Work
from alp_repro.classifiers import (
    UNIT_PIXELS,
    Classifier,
    PixelScale,
    as_classifier,
    common_pixel_scales,
    load_function_or_model,
)
from alp_repro.data.own_arrays import class_numbers, unit_images
from alp_repro.errors import InputError, exits_refused
from alp_repro.evaluation.model_check import why_no_function

if TYPE_CHECKING:
    import keras

_PIXELS_IN_A_BATCH = 2_500_000  # bounds the memory of large images
_LARGEST_BATCH = 200
_RANGE_IMAGES = 100


def audit(  # noqa: PLR0913 - settings, each by its name
    model: str | Path | keras.Model | Callable[..., Any],
    images: np.ndarray,
    labels: np.ndarray,
    eps: float = 8 / 255,
    *,
    attack: Attack | None = None,
    minutes: float = 10.0,
    folder: str | Path | None = None,
    pixels: PixelScale = UNIT_PIXELS,
    seed: int = 0,
    batch_size: int | None = None,
    trust_code: bool = False,
    stages: Sequence[Stage] | None = None,
    closer_look: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> Audit:
    """Tells whether an evaluation of a classifier's robustness is too kind.

    Runs checks and attacks from cheap to dear, each on the images that matter, and keeps the worst
    case of every image. The result is an upper bound of the robust accuracy, and what was seen on
    the way that makes the evaluation doubtful.

    Args:
      model: anything that `classifiers.as_classifier` takes: a Keras model, a function from images
        to logits, a `.keras` or `.h5` file, a SavedModel folder, `module:function`.
      images: [n, height, width, channels] or without a channel axis; uint8, or floats in [0, 1].
      labels: integers [n], or one-hot.
      eps: radius of the L∞ ball on the [0, 1] scale.
      attack: the evaluation under audit; default: the paper's PGD, 40 steps of ε/30.
      minutes: time for it all; what does not fit is left out and said. Another call with the same
        folder goes on, with more minutes further.
      folder: where every stage's result is kept, of one audit; None: nowhere.
      pixels: what the model's own pixels are.
      seed: of starts and targets.
      batch_size: images in a batch; None: by their size.
      trust_code: run Python code that a model file carries.
      stages: attacks of one's own in place of `attack_stages`, the evaluation under audit first.
      closer_look: also make the heat map, the histograms of restarts and the loss surface.
      report: takes each line of progress.

    Raises:
      InputError: a model, images, labels, eps, minutes or stages that cannot be; a folder with
        results of another audit, or one that another process works in.
    """
    images, image_notes = unit_images(np.asarray(images))
    labels, label_notes = class_numbers(np.asarray(labels), len(images))
    attack = _checked(eps, attack, minutes, seed)
    name = str(model) if isinstance(model, str | Path) else ""
    if isinstance(model, str | Path):
        model = load_function_or_model(model, trust_code=trust_code)
    shape = (images.shape[1], images.shape[2], images.shape[3])
    classifier = as_classifier(model, image_shape=shape, pixels=pixels)
    if labels.max() >= classifier.classes:
        raise InputError(
            f"labels up to {labels.max()}: the model has classes 0 to {classifier.classes - 1}"
        )
    if batch_size is None:
        fitting = max(1, _PIXELS_IN_A_BATCH // math.prod(shape))
        batch_size = min(_LARGEST_BATCH, len(images), fitting)
    if stages is None:
        stages = attack_stages(attack, classes=classifier.classes)
    stages = _checked_stages(stages, eps)
    with exits_refused("the model"), own_folder(folder) as place:
        work = Work(
            classifier.model,
            images,
            labels,
            attack=attack,
            seconds=60 * minutes,
            folder=place,
            seed=seed,
            batch_size=batch_size,
            report=report,
        )
        first, why = _first_look(work, classifier, model, pixels)
        for one in first:
            if one.raised:
                report(f"{one.title}: {one.saw}")
        if why or not work.correct.any():
            found = course.not_attacked(work, why)
        else:
            found = course.attacked(work, stages, closer_look=closer_look)
    return dataclasses.replace(
        found,
        indicators=(*first, *found.indicators),
        notes=(*image_notes, *label_notes, *classifier.notes),
        settings={
            "model": Path(name).name or classifier.model.name,
            "minutes": minutes,
            "seed": seed,
            "batch_size": batch_size,
            "pixels": pixels.name,
        },
        provenance=runs.provenance(),
    )


def _checked(eps: float, attack: Attack | None, minutes: float, seed: int) -> Attack:
    if not (np.isfinite(eps) and 0 < eps <= 1):
        raise InputError(
            f"eps {eps * 255:g}: a size in (0, 255] on the 0-255 scale, (0, 1] in the library"
        )
    if not (math.isfinite(minutes) and minutes > 0):
        raise InputError(f"minutes {minutes:g}: a time above 0 is needed")
    if not 0 <= seed < 2**31:
        raise InputError(f"seed {seed}: a number in [0, 2^31) is needed")
    if attack is None:
        return default_attack(eps)
    if not math.isclose(attack.eps, eps):
        raise InputError(
            f"the attack's eps {attack.eps * 255:g} and the audit's {eps * 255:g} (0-255 scale): "
            "one and the same is needed"
        )
    return attack


def _checked_stages(stages: Sequence[Stage], eps: float) -> tuple[Stage, ...]:
    """Return the stages with a cost each."""
    names = [stage.name for stage in stages]
    if not names or len(set(names)) < len(names):
        raise InputError(f"stages {names}: expected one or more, each with a name of its own")
    for stage in stages:
        if not math.isclose(stage.attack.eps, eps):
            raise InputError(
                f"stage {stage.name}: its eps {stage.attack.eps * 255:g} is not the audit's "
                f"{eps * 255:g} (0-255 scale): expected one and the same"
            )
    return tuple(dataclasses.replace(s, cost=s.cost or passes(s.attack)) for s in stages)


def _first_look(
    work: Work,
    classifier: Classifier,
    given: keras.Model | Callable[..., Any],
    pixels: PixelScale,
) -> tuple[tuple[Indicator, ...], str | None]:
    """Return what the clean images tell, and why attacks would mean nothing; None: they would."""
    moved_by = why_no_function(classifier.model, work.images)
    moved = measurements.randomness(
        classifier.model, work.images, work.logits, batch_size=work.batch_size
    )
    accuracy = float(work.correct.mean())
    chance = judge.near_chance(accuracy, work.labels, classifier.classes, likely="")
    other_range = False
    if chance.raised:
        likely, other_range = _likely_range(
            work, given, pixels, accuracy, classes=classifier.classes
        )
        chance = judge.near_chance(accuracy, work.labels, classifier.classes, likely=likely)
    random = judge.random_outputs(moved["repeated"], moved["batch"], why=moved_by)
    few = judge.few_classes(
        classifier.classes, work.attack.loss, targeted=work.attack.target != "none"
    )
    found = (
        chance,
        random,
        judge.logit_scale(work.logits),
        judge.relu_logits(work.logits),
        few,
    )
    reasons = {
        "the model's outputs are random": random.raised,
        "the pixel range is plainly another": other_range,
        "the evaluation under audit has a loss that needs more classes": few.raised,
    }
    return found, next((why for why, holds in reasons.items() if holds), None)


def _likely_range(
    work: Work,
    given: keras.Model | Callable[..., Any],
    pixels: PixelScale,
    accuracy: float,
    *,
    classes: int,
) -> tuple[str, bool]:
    """A sentence on the common pixel range that fits the model best, and whether one does."""
    images, labels = work.images[:_RANGE_IMAGES], work.labels[:_RANGE_IMAGES]
    shape = images.shape[1:]
    found: list[tuple[float, str]] = []
    for scale in common_pixel_scales(shape[2]):
        if scale == pixels:
            continue
        try:
            other = as_classifier(given, image_shape=shape, pixels=scale).model
            logits = measurements.clean_logits(
                other, images, batch_size=min(len(images), work.batch_size)
            )
        except InputError:  # a range that gives no logits is not the right one
            continue
        found.append((float((logits.argmax(axis=1) == labels).mean()), scale.name))
    if not found:
        return "", False
    best, name = max(found)
    # A model that is always wrong would do better by chance.
    by_chance = judge.near_chance(best, labels, classes, likely="").raised
    if by_chance or best < 1.5 * accuracy + 0.1:
        return "No other common range does clearly better.", False
    return f"With pixels of {name} it is {best:.1%} on {len(images)} images.", True
