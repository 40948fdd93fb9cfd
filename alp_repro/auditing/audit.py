"""An audit: a classifier, images and an evaluation in; a verdict on that evaluation out."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro import runs
from alp_repro.attacks import Attack, Ensemble, Phase
from alp_repro.auditing import indicators, pipeline
from alp_repro.auditing.audit_run import AuditRun
from alp_repro.auditing.folder import own_folder
from alp_repro.auditing.model_under_audit import (
    GRADIENT_PASSES,
    VERDICT_PASSES,
    ModelUnderAudit,
    model_under_audit,
)
from alp_repro.auditing.plan import audit_phases, default_attack, with_comparisons
from alp_repro.auditing.result import Audit
from alp_repro.auditing.specs import Indicator
from alp_repro.classifiers import (
    UNIT_PIXELS,
    Classifier,
    PixelScale,
    as_classifier,
    common_pixel_scales,
    load_function_or_model,
)
from alp_repro.data.own_arrays import class_indices, unit_images
from alp_repro.errors import InputError, sys_exit_refused
from alp_repro.evaluation.clean import clean_logits
from alp_repro.evaluation.input_check import checked_batch_size
from alp_repro.models.program_cache import taken_as_unchanged
from alp_repro.validation.arguments import (
    checked_array,
    checked_bool,
    checked_function,
    checked_instance,
)
from alp_repro.validation.plain_numbers import checked_seed, number, quoted

if TYPE_CHECKING:
    import keras

_PIXELS_IN_A_BATCH = 2_500_000  # bounds the memory of large images
_LARGEST_BATCH = 200
_RANGE_IMAGES = 100
_PHASE_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
MOST_MINUTES = 1_000_000  # about two years


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
    phases: Sequence[Phase] | None = None,
    closer_look: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> Audit:
    """Check whether an evaluation of a classifier's robustness overestimates it.

    Runs checks and attacks from cheap to expensive and records the worst case of every image. The
    result is an upper bound of the robust accuracy, and the signs that the evaluation cannot be
    relied on.

    Args:
      model: anything that `classifiers.as_classifier` takes: a Keras model, a function from images
        to logits, a `.keras` or `.h5` file, a SavedModel folder, `module:function`.
      images: [n, height, width, channels] or without a channel axis; uint8, or floats in [0, 1].
      labels: integers [n], or one-hot.
      eps: radius of the L∞ ball on the [0, 1] scale.
      attack: the evaluation under audit; default: the paper's PGD, 40 steps of ε/30.
      minutes: time limit; what does not fit is left out and listed. Another call with the same
        folder continues, further if it has more minutes.
      folder: where the results of this one audit are saved as it goes; None: nowhere.
      pixels: range of the model's own pixels.
      surrogate: for a model without a gradient: a classifier like `model`, of the same pixels,
        whose gradients attacks follow, while the model classifies what they find. Best is the
        model itself with the step that has no gradient replaced by the identity, at least in the
        backward pass (BPDA).
      seed: of starts and targets.
      batch_size: images in a batch; None: chosen by their size.
      trust_code: run Python code that a model file carries.
      phases: attacks in place of `auditing.audit_phases`, each on `all` images or on those still
        `standing`. The first is the evaluation under audit.
      closer_look: also make the heat map, the histograms of restarts and the loss surface.
      report: called with each line of progress.

    Raises:
      InputError: the model, the images or another argument is not valid; the folder has results of
        another audit, or another process works in it.

    Examples:
      >>> layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
      >>> model = keras.Sequential(layers)
      >>> images = np.random.default_rng(0).uniform(size=(6, 8, 8, 1))
      >>> labels = np.argmax(model(images), axis=1)
      >>> audit = alp_repro.audit(model, images, labels, eps=0.1, minutes=2, closer_look=False)
      >>> audit.worst_accuracy <= audit.default_accuracy <= audit.clean_accuracy
      True
    """
    images, image_notes = unit_images(checked_array(images, name="images"))
    labels, label_notes = class_indices(checked_array(labels, name="labels"), len(images))
    eps, attack, phases = _checked_attacks(eps, attack, phases)
    minutes = number(minutes, name="minutes", low=0, high=MOST_MINUTES, above=True)
    seed = checked_seed(seed)
    pixels = checked_instance(pixels, PixelScale, name="pixels")
    report = checked_function(report, name="report")
    closer_look = checked_bool(closer_look, name="closer_look")
    trust_code = checked_bool(trust_code, name="trust_code")
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
    batch_size = checked_batch_size(batch_size)
    if phases is None:
        phases = with_comparisons(audit_phases(attack, classes=classifier.classes))
    with (
        sys_exit_refused("the model"),
        own_folder(folder) as place,
        contextlib.ExitStack() as stack,
    ):
        subject = model_under_audit(classifier, guide, images, batch_size=batch_size)
        stack.enter_context(taken_as_unchanged(subject.white_box, subject.black_box))
        run = AuditRun(
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
        first, why = _clean_checks(run, classifier, model, pixels)
        if guide is not None:
            first = (*first, _agreement(run, guide))
        for one in first:
            if one.raised:
                report(f"{one.title}: {one.saw}")
        if why or not run.correct.any():
            found = pipeline.without_attacks(run, why)
        else:
            # A heat map and a surface are of single passes.
            closer_look = closer_look and not subject.random
            found = pipeline.with_attacks(run, phases, closer_look=closer_look)
    return dataclasses.replace(
        found,
        indicators=(*first, *found.indicators),
        notes=(*image_notes, *label_notes, *classifier.notes, *_notes_on(subject, guide)),
        settings={
            "model": Path(name).name or classifier.model.name,
            "attack": str(attack),
            "minutes": minutes,
            "seed": seed,
            "batch_size": batch_size,
            "pixels": pixels.name,
            "surrogate": None if guide is None else guide.model.name,
        },
        provenance=runs.provenance(),
    )


def _checked_attacks(
    eps: Any, attack: Any, phases: Any
) -> tuple[float, Attack | Ensemble, tuple[Phase, ...] | None]:
    """Return the radius, the evaluation under audit and the phases if any, each checked."""
    try:
        eps = number(eps, name="eps", low=0, high=1, above=True)
    except InputError as error:
        raise InputError(f"{error}; on the 0-255 scale a size in (0, 255]") from None
    if attack is not None and not isinstance(attack, Ensemble):
        checked_instance(attack, Attack, name="attack")
    if phases is not None:
        phases = _checked_phases(phases, eps)
        if attack not in (None, phases[0].attack):
            raise InputError(
                f"attack {attack} is not that of the first phase, {phases[0].attack}: expected the "
                "evaluation under audit there"
            )
        attack = phases[0].attack
    if attack is None:
        attack = default_attack(eps)
    if not math.isclose(attack.eps, eps):
        raise InputError(
            f"the attack's eps {attack.eps * 255:g} is not the audit's {eps * 255:g} (0-255 scale)"
        )
    return eps, attack, phases


def _checked_phases(phases: Any, eps: float) -> tuple[Phase, ...]:
    """Return the phases, each with a name and a title."""
    if not isinstance(phases, Sequence) or not all(isinstance(one, Phase) for one in phases):
        raise InputError(f"phases {quoted(phases)}: expected a list of Phase")
    found: list[Phase] = []
    for phase in phases:
        found.append(_named(phase, [one.name for one in found]))
    names = [phase.name for phase in found]
    if not names or len(set(names)) < len(names):
        raise InputError(f"phases {names}: expected one or more, each with a name of its own")
    for phase in found:
        if phase.attack.eps > eps and not math.isclose(phase.attack.eps, eps):
            raise InputError(
                f"phase {phase.name}: eps {phase.attack.eps * 255:g}, expected at most the "
                f"audit's {eps * 255:g} (0-255 scale)"
            )
        if phase.on not in ("all", "standing"):
            raise InputError(
                f"phase {phase.name}: on={phase.on}, expected all or standing; an ensemble with a "
                "budget is one phase, as in Phase(strong_attack(eps))"
            )
    return tuple(found)


def _named(phase: Phase, taken: list[str]) -> Phase:
    """Return the phase with a name and a title: those of its attack where it has none."""
    name = phase.name
    if name == "":
        usual = phase.attack.name
        numbered = (f"{usual}_{i}" for i in range(2, len(taken) + 2))
        name = next(one for one in (usual, *numbered) if one not in taken)
    if not (isinstance(name, str) and _PHASE_NAME.fullmatch(name)):
        raise InputError(
            f"phase {quoted(name)}: expected a name that fits a file, of letters, digits, _ and -"
        )
    return dataclasses.replace(phase, name=name, title=phase.title or str(phase.attack))


def _clean_checks(
    run: AuditRun,
    classifier: Classifier,
    given: keras.Model | Callable[..., Any],
    pixels: PixelScale,
) -> tuple[tuple[Indicator, ...], str | None]:
    """Check the clean images; also why attacks would mean nothing, None: they would."""
    changes, classes = run.model.changes, classifier.classes
    accuracy = float(run.correct.mean())
    chance = indicators.near_chance(accuracy, run.labels, classes)
    other_range = False
    if chance.raised:
        likely, other_range = _likely_range(run, given, pixels, accuracy, classes=classes)
        chance = indicators.near_chance(accuracy, run.labels, classes, likely=likely)
    random = indicators.random_outputs(
        changes["repeated"],
        changes["batch"],
        why=run.model.not_attackable,
        passes=VERDICT_PASSES if run.model.random else None,
    )
    few = indicators.few_classes(classes, run.attack)
    logits = run.model.logits
    found = (chance, random, indicators.logit_scale(logits), indicators.relu_logits(logits), few)
    reasons = {
        "an image's logits depend on its batch": random.raised,
        "the model expects another pixel range": other_range,
        "the evaluation under audit has a loss that needs more classes": few.raised,
    }
    return found, next((why for why, holds in reasons.items() if holds), None)


def _agreement(run: AuditRun, guide: Classifier) -> Indicator:
    """Check how often the surrogate predicts another class than the model."""
    logits = clean_logits(guide.model, run.images, batch_size=run.batch_size)
    return indicators.surrogate_differs(float((logits.argmax(axis=1) != run.predictions).mean()))


def _notes_on(model: ModelUnderAudit, guide: Classifier | None) -> tuple[str, ...]:
    notes = []
    if guide is not None:
        notes.append(
            f"attacks follow the gradients of the surrogate {guide.model.name}; the model itself "
            "classifies what they find"
        )
    if model.random:
        notes.append(
            f"the model is random: gradients are the mean of {GRADIENT_PASSES} passes, an image's "
            f"prediction is the class that most of {VERDICT_PASSES} fresh passes give"
        )
    return tuple(notes)


def _likely_range(
    run: AuditRun,
    given: keras.Model | Callable[..., Any],
    pixels: PixelScale,
    accuracy: float,
    *,
    classes: int,
) -> tuple[str, bool]:
    """Return a sentence on the common pixel range that fits best, and whether one does."""
    images, labels = run.images[:_RANGE_IMAGES], run.labels[:_RANGE_IMAGES]
    shape = images.shape[1:]
    found: list[tuple[float, str]] = []
    for scale in common_pixel_scales(shape[2]):
        if scale == pixels:
            continue
        try:
            other = as_classifier(given, image_shape=shape, pixels=scale).model
            logits = clean_logits(other, images, batch_size=min(len(images), run.batch_size))
        except InputError:  # a range that gives no logits is not the right one
            continue
        found.append((float((logits.argmax(axis=1) == labels).mean()), scale.name))
    if not found:
        return "", False
    best, name = max(found)
    # A model that is always wrong would do better by chance.
    by_chance = indicators.near_chance(best, labels, classes).raised
    if by_chance or best < 1.5 * accuracy + 0.1:
        return "No other common range does clearly better.", False
    return f"With pixels of {name} it is {best:.1%} on {len(images)} images.", True
