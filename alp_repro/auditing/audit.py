"""An audit: a classifier, images and an evaluation in; a verdict on that evaluation out."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro import runs
from alp_repro.attacks import Attack, Ensemble
from alp_repro.auditing import course, sanity
from alp_repro.auditing import indicators as judge
from alp_repro.auditing.attacked import GRADIENT_PASSES, VERDICT_PASSES, Attacked, attacked
from alp_repro.auditing.folder import own_folder
from alp_repro.auditing.kinds import Indicator
from alp_repro.auditing.result import Audit
from alp_repro.auditing.stages import Stage, attack_stages, default_attack
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
from alp_repro.evaluation.clean import clean_logits
from alp_repro.evaluation.input_check import MOST_ITEMS
from alp_repro.validation.arguments import (
    checked_array,
    checked_function,
    checked_instance,
    checked_switch,
)
from alp_repro.validation.plain_numbers import number, quoted, whole_number

if TYPE_CHECKING:
    import keras

_PIXELS_IN_A_BATCH = 2_500_000  # bounds the memory of large images
_LARGEST_BATCH = 200
_RANGE_IMAGES = 100
_STAGE_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
MOST_MINUTES = 1_000_000  # a bound that no honest call reaches


def audit(  # noqa: PLR0913 - settings, each by its name
    model: str | Path | keras.Model | Callable[..., Any],
    images: np.ndarray,
    labels: np.ndarray,
    eps: float = 8 / 255,
    *,
    attack: Attack | Ensemble | None = None,
    minutes: float = 10.0,
    folder: str | Path | None = None,
    pixels: PixelScale = UNIT_PIXELS,
    surrogate: str | Path | keras.Model | Callable[..., Any] | None = None,
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
      surrogate: a classifier as `model`, of the same pixels, whose gradients attacks follow in the
        place of the model's, which judges: for a model that has none. Best is the model itself,
        the step without a gradient replaced by the identity, backwards at least (BPDA).
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
    images, image_notes = unit_images(checked_array(images, name="images"))
    labels, label_notes = class_numbers(checked_array(labels, name="labels"), len(images))
    eps, attack = _checked_attack(eps, attack)
    minutes = number(minutes, name="minutes", low=0, high=MOST_MINUTES, above=True)
    seed = whole_number(seed, name="seed", low=0, high=2**31 - 1)
    pixels = checked_instance(pixels, PixelScale, name="pixels")
    report = checked_function(report, name="report")
    closer_look = checked_switch(closer_look, name="closer_look")
    trust_code = checked_switch(trust_code, name="trust_code")
    name = str(model) if isinstance(model, str | Path) else ""
    if isinstance(model, str | Path):
        model = load_function_or_model(model, trust_code=trust_code)
    shape = (images.shape[1], images.shape[2], images.shape[3])
    classifier = as_classifier(model, image_shape=shape, pixels=pixels)
    guide = None
    if surrogate is not None:
        guide = as_classifier(surrogate, image_shape=shape, pixels=pixels, trust_code=trust_code)
    if labels.max() >= classifier.classes:
        raise InputError(
            f"labels up to {labels.max()}: the model has classes 0 to {classifier.classes - 1}"
        )
    if batch_size is None:
        fitting = max(1, _PIXELS_IN_A_BATCH // math.prod(shape))
        batch_size = min(_LARGEST_BATCH, len(images), fitting)
    batch_size = whole_number(batch_size, name="batch_size", low=1, high=MOST_ITEMS)
    if stages is None:
        stages = sanity.with_checks(attack_stages(attack, classes=classifier.classes))
    stages = _checked_stages(stages, eps)
    with exits_refused("the model"), own_folder(folder) as place:
        subject = attacked(classifier, guide, images, batch_size=batch_size)
        work = Work(
            subject,
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
        if guide is not None:
            first = (*first, _agreement(work, guide))
        for one in first:
            if one.raised:
                report(f"{one.title}: {one.saw}")
        if why or not work.correct.any():
            found = course.not_attacked(work, why)
            checks = sanity.not_judged(why or "no image is classified correctly")
        else:
            # A heat map and a surface are of single passes.
            closer_look = closer_look and not subject.random
            found = course.attacked(work, stages, closer_look=closer_look)
            checks = sanity.checks(work, found.found)
    return dataclasses.replace(
        found,
        indicators=(*first, *found.indicators, *checks),
        notes=(*image_notes, *label_notes, *classifier.notes, *_how_judged(subject, guide)),
        settings={
            "model": Path(name).name or classifier.model.name,
            "minutes": minutes,
            "seed": seed,
            "batch_size": batch_size,
            "pixels": pixels.name,
            "surrogate": None if guide is None else guide.model.name,
        },
        provenance=runs.provenance(),
    )


def _checked_attack(eps: Any, attack: Any) -> tuple[float, Attack | Ensemble]:
    try:
        eps = number(eps, name="eps", low=0, high=1, above=True)
    except InputError as error:
        raise InputError(f"{error}; on the 0-255 scale a size in (0, 255]") from None
    if attack is None:
        return eps, default_attack(eps)
    if not isinstance(attack, Ensemble):
        checked_instance(attack, Attack, name="attack")
    if not math.isclose(attack.eps, eps):
        raise InputError(
            f"the attack's eps {attack.eps * 255:g} and the audit's {eps * 255:g} (0-255 scale): "
            "one and the same is needed"
        )
    return eps, attack


def _checked_stages(stages: Sequence[Stage], eps: float) -> tuple[Stage, ...]:
    if not isinstance(stages, Sequence) or not all(isinstance(one, Stage) for one in stages):
        raise InputError(f"stages {quoted(stages)}: expected a list of Stage")
    for stage in stages:
        if not isinstance(stage.attack, Ensemble):
            checked_instance(stage.attack, Attack, name=f"the attack of stage {quoted(stage.name)}")
        if not (isinstance(stage.name, str) and _STAGE_NAME.fullmatch(stage.name)):
            raise InputError(
                f"stage {quoted(stage.name)}: expected a name of letters, digits, _ and -, which a "
                "file can be called"
            )
    names = [stage.name for stage in stages]
    if not names or len(set(names)) < len(names):
        raise InputError(f"stages {names}: expected one or more, each with a name of its own")
    for place, stage in enumerate(stages):
        inside = place > 0 and stage.attack.eps < eps  # what it breaks, the audit's ball holds
        if not (inside or math.isclose(stage.attack.eps, eps)):
            raise InputError(
                f"stage {stage.name}: its eps {stage.attack.eps * 255:g} is not the audit's "
                f"{eps * 255:g} (0-255 scale): expected one and the same, or a smaller one after "
                "the first stage"
            )
    return tuple(stages)


def _first_look(
    work: Work,
    classifier: Classifier,
    given: keras.Model | Callable[..., Any],
    pixels: PixelScale,
) -> tuple[tuple[Indicator, ...], str | None]:
    """Return what the clean images tell, and why attacks would mean nothing; None: they would."""
    moved, moved_by = work.attacked.changes, work.attacked.no_function
    accuracy = float(work.correct.mean())
    chance = judge.near_chance(accuracy, work.labels, classifier.classes, likely="")
    other_range = False
    if chance.raised:
        likely, other_range = _likely_range(
            work, given, pixels, accuracy, classes=classifier.classes
        )
        chance = judge.near_chance(accuracy, work.labels, classifier.classes, likely=likely)
    random = judge.random_outputs(
        moved["repeated"],
        moved["batch"],
        why=moved_by,
        passes=VERDICT_PASSES if work.attacked.random else None,
    )
    few = judge.few_classes(classifier.classes, work.attack)
    found = (
        chance,
        random,
        judge.logit_scale(work.logits),
        judge.relu_logits(work.logits),
        few,
    )
    reasons = {
        "an image's logits depend on its batch": random.raised,
        "the pixel range is plainly another": other_range,
        "the evaluation under audit has a loss that needs more classes": few.raised,
    }
    return found, next((why for why, holds in reasons.items() if holds), None)


def _agreement(work: Work, guide: Classifier) -> Indicator:
    """How often the surrogate predicts what the model does."""
    logits = clean_logits(guide.model, work.images, batch_size=work.batch_size)
    return judge.surrogate_differs(float((logits.argmax(axis=1) != work.predictions).mean()))


def _how_judged(subject: Attacked, guide: Classifier | None) -> tuple[str, ...]:
    notes = []
    if guide is not None:
        notes.append(
            f"attacks follow the gradients of the surrogate {guide.model.name}; the model judges"
        )
    if subject.random:
        notes.append(
            f"the model is random: gradients are the mean of {GRADIENT_PASSES} passes, an image's "
            f"prediction is the one that most of {VERDICT_PASSES} fresh passes give"
        )
    return tuple(notes)


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
            logits = clean_logits(other, images, batch_size=min(len(images), work.batch_size))
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
