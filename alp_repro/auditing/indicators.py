"""What an audit looks for: each indicator's definition, source, threshold, finding and advice.

A measurement comes in, an `Indicator` goes out; nothing is measured here.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

State = Literal["raised", "clear", "not judged"]

AUTO_ATTACK = "AutoAttack's checks (Croce & Hein 2020; flags of its repository)"
PINTOR = "Pintor et al. 2022, Indicators of attack failure"
ZIMMERMANN = "Zimmermann et al. 2022, Increasing confidence in adversarial robustness evaluations"
OURS = "ours, after Mosbach et al. 2018"

RANDOM_CHANGE = 1e-3
ZERO_SHARE = 0.01
NO_GRADIENT_SHARE = 0.9
UNSTABLE_CHANGE = 0.1
IMAGES_SHARE = 0.01
STILL_RISING_SHARE = 0.5
RESTART_POINTS = 0.05
GRID_POINTS = 0.10
OVERESTIMATE_POINTS = 0.10
PLANTED_SHARE = 0.95
SMALL_SPREAD = 1e-3
RELU_ZEROS = 0.05


@dataclasses.dataclass(frozen=True)
class Indicator:
    """One thing that can make an evaluation too kind.

    Attributes:
      key: short name, for files and tests.
      title: what it says when raised, in a few words.
      definition: what is measured.
      source: who proposed it.
      threshold: when it is raised.
      state: raised, clear, or not judged.
      saw: what was measured here, or why it was not.
      advice: what to do when it is raised.
    """

    key: str
    title: str
    definition: str
    source: str
    threshold: str
    state: State
    saw: str
    advice: str

    @property
    def raised(self) -> bool:
        """Whether it is raised."""
        return self.state == "raised"


@dataclasses.dataclass(frozen=True)
class Kind:
    """An indicator before it has seen anything."""

    key: str
    title: str
    definition: str
    source: str
    threshold: str
    advice: str

    def judged(self, raised: bool, saw: str) -> Indicator:
        """The indicator with what it saw."""
        return Indicator(**dataclasses.asdict(self), state="raised" if raised else "clear", saw=saw)

    def not_judged(self, why: str) -> Indicator:
        """The indicator where nothing could be measured."""
        return Indicator(**dataclasses.asdict(self), state="not judged", saw=why)


def percent(share: float) -> str:
    """A share in percent, one decimal below 10%."""
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


CHANCE = Kind(
    "near_chance",
    "accuracy near chance",
    "Clean accuracy on the given images, beside that of guessing one class.",
    OURS,
    "clean accuracy at most 1.5 times chance (and below 60%)",
    "Check the pixel range (--pixel_range, or --pixel_mean and --pixel_std), the order of the "
    "labels and of the colour channels. Attack numbers of a model at chance mean nothing.",
)
RANDOM = Kind(
    "random_outputs",
    "random outputs",
    "Largest change of a logit between passes over the same images, and when a batch is made up "
    "differently, relative to the range of all logits.",
    AUTO_ATTACK,
    f"a change above {RANDOM_CHANGE:g}",
    "Remove what is random at inference (noise, dropout called with training=True, batch norm in "
    "training mode). A defence that is meant to be random has to be attacked in expectation "
    "(Athalye et al. 2018); one pass an image, as here, breaks images by luck.",
)
NO_GRADIENT = Kind(
    "no_gradient",
    "no gradient",
    "Share of random starts where the margin, a loss that cannot saturate, has no gradient or one "
    "that is zero in every pixel.",
    f"{PINTOR} (unavailable gradients)",
    f"{NO_GRADIENT_SHARE:.0%} or more",
    "Gradient attacks stay at their start. Remove the step that has no gradient (rounding, "
    "argmax, look-up, stop_gradient) or replace its backward pass by the identity (BPDA, Athalye "
    "et al. 2018), and read the black-box line of the table.",
)
ZERO_GRADIENTS = Kind(
    "zero_gradients",
    "zero gradients",
    "Share of random starts where the cross-entropy has a gradient that is zero in every pixel.",
    f"{AUTO_ATTACK}; {PINTOR}",
    f"{ZERO_SHARE:.0%} or more",
    "The loss has saturated: attack with the margin or DLR loss (loss=margin), which do not, or "
    "divide the logits by a constant, which changes no prediction.",
)
UNSTABLE = Kind(
    "unstable_gradients",
    "unstable loss",
    "Mean relative change of the cross-entropy at random points within 0.001 of the images.",
    f"{PINTOR} (unstable predictions)",
    f"above {UNSTABLE_CHANGE:.0%}",
    "The loss changes faster than a step of the attack can follow: average gradients over noisy "
    "copies, or use the attack strong (gradient_noise and momentum) and a black-box attack.",
)
LOGIT_SCALE = Kind(
    "tiny_logits",
    "logits too small for float32",
    "Median over images of the range of an image's logits.",
    OURS,
    f"below {SMALL_SPREAD:g}",
    "The cross-entropy is log(classes) in every digit that float32 has: attacks that compare "
    "losses compare rounding. Multiply the logits by a constant, which changes no prediction.",
)
RELU = Kind(
    "relu_logits",
    "ReLU on the logits",
    "Share of logits that are exactly zero, where none is negative.",
    OURS,
    f"no negative logit and {RELU_ZEROS:.0%} or more zeros",
    "A last ReLU has no gradient where a logit is zero, so that losses cannot raise a wrong "
    "class from there. Take it off: it only makes ties.",
)
FORGOTTEN = Kind(
    "forgotten_success",
    "an earlier iterate was better",
    "Share of images with a misclassified iterate on the default attack's way whose last iterate, "
    "the one that is judged, is classified correctly.",
    f"{PINTOR} (silent success)",
    f"above {IMAGES_SHARE:.0%}",
    "Judge every iterate (success=any), or take smaller steps at the end (step_schedule=linear).",
)
JUDGE = Kind(
    "judge_disagrees",
    "the attacked model and the judge disagree",
    "Share of images, clean and adversarial, that the model as it was given and its float32 copy, "
    "which judges, classify differently.",
    f"{PINTOR} (transfer failure)",
    f"above {IMAGES_SHARE:.0%}",
    "Craft in float32 on the model that is judged; look at mixed precision and at layers with a "
    "state that is not among the weights.",
)
INCOMPLETE = Kind(
    "incomplete",
    "the loss was still rising",
    "Of the images that the default attack's way does not break, the share whose best loss gains "
    "more than 1% of its whole rise in the last 10 steps.",
    f"{PINTOR} (incomplete optimisation)",
    f"{STILL_RISING_SHARE:.0%} or more, with 5 images or more standing",
    "More iterations (nb_iter), or larger steps.",
)
UNBOUNDED = Kind(
    "unbounded_fails",
    "even an unbounded attack fails",
    "Share of correctly classified images that an attack with ε = 1, any image at all, leaves.",
    f"{PINTOR} (unconstrained attack failure); Carlini et al. 2019",
    f"above {IMAGES_SHARE:.0%}",
    "Any classifier can be given an image of another class: an attack that may change everything "
    "and does not succeed has lost the gradient. Look at the indicators of gradients.",
)
BLACK_BOX = Kind(
    "black_box_stronger",
    "black box stronger than white box",
    "Share of correctly classified images that Square, without gradients, breaks after every "
    "gradient attack has failed on them.",
    AUTO_ATTACK,
    f"above {IMAGES_SHARE:.0%}",
    "Gradients mislead here: trust no gradient attack's number, and give the black box more "
    "queries (a larger --minutes).",
)
FEW_CLASSES = Kind(
    "few_classes",
    "too few classes for a loss",
    "Number of classes, and which losses it rules out (DLR needs 3, its targeted form 4).",
    AUTO_ATTACK,
    "the evaluation under audit uses a loss that the model has too few classes for",
    "Use the margin loss.",
)
RESTARTS = Kind(
    "restarts",
    "restarts not converged",
    "Drop of the default attack's accuracy from 1 restart to all, and how many further images "
    "break in the last doubling of the restarts, which the next doubling may do again.",
    OURS,
    f"a drop of {RESTART_POINTS * 100:g} points or more",
    "Report the accuracy over many restarts, never of one; go on until a doubling breaks nothing.",
)
STEP_SIZE = Kind(
    "step_size",
    "other steps are stronger",
    "Difference between the default attack and the best cell of a heat map over step sizes and "
    "iterations, one restart each, on the same images.",
    OURS,
    f"{GRID_POINTS * 100:g} points or more",
    "Search step size and iterations before reporting a number, as the heat map does.",
)
OVERESTIMATE = Kind(
    "overestimate",
    "far from the worst case",
    "Accuracy under the evaluation under audit minus that under the worst case of all attacks.",
    OURS,
    f"{OVERESTIMATE_POINTS * 100:g} points or more",
    "Report the worst case over several attacks.",
)
PLANTED = Kind(
    "unit_test",
    "planted examples not found",
    "Share of adversarial examples, planted by a new last layer on the model's own features, that "
    "the default attack finds, beside as many random points.",
    ZIMMERMANN,
    f"below {PLANTED_SHARE:.0%}",
    "The attack misses examples that are known to be there: it is too weak for these features. "
    "Make it find them (steps, iterations, loss) before its number is believed.",
)


def near_chance(accuracy: float, labels: np.ndarray, classes: int, *, likely: str) -> Indicator:
    """`likely`: a sentence on the pixel range that fits better, or an empty text."""
    guess = max(1 / classes, float(np.bincount(labels).max()) / len(labels) if len(labels) else 0)
    chance = min(guess, 2 / classes) if classes > 2 else 1 / classes
    low = accuracy <= min(1.5 * chance, 0.6)
    saw = f"clean accuracy {accuracy:.1%}, chance {1 / classes:.1%}"
    if low:
        saw += f": is the pixel range right? {likely}".rstrip()
    return CHANCE.judged(low, saw)


def random_outputs(repeated: float, batch: float) -> Indicator:
    """See `measurements.randomness`."""
    raised = max(repeated, batch) > RANDOM_CHANGE
    return RANDOM.judged(
        raised, f"change of {repeated:.2g} in repeated passes, {batch:.2g} in another batch"
    )


def no_gradient(margin: float, unavailable: float, *, constant: bool) -> Indicator:
    """See `measurements.gradients_at_starts`; `constant`: all images get the same logits."""
    saw = f"none at {percent(margin)} of the starts"
    if unavailable:
        saw += "; TensorFlow gives no gradient at all"
    if constant:
        saw += "; the logits are the same for every image"
    return NO_GRADIENT.judged(margin >= NO_GRADIENT_SHARE, saw)


def zero_gradients(share: float) -> Indicator:
    """See `measurements.gradients_at_starts`."""
    return ZERO_GRADIENTS.judged(share >= ZERO_SHARE, f"zero at {percent(share)} of the starts")


def unstable_gradients(mean_change: float) -> Indicator:
    """See `measurements.instability`."""
    return UNSTABLE.judged(mean_change > UNSTABLE_CHANGE, f"{percent(mean_change)} on average")


def logit_scale(logits: np.ndarray) -> Indicator:
    """Clean logits [n, classes]."""
    spread = float(np.median(np.ptp(logits, axis=1)))
    return LOGIT_SCALE.judged(0 < spread < SMALL_SPREAD, f"median range {spread:.3g}")


def relu_logits(logits: np.ndarray) -> Indicator:
    """Clean logits [n, classes]; a two-class model's fixed zero is no ReLU's."""
    zeros = float((logits == 0).mean())
    fixed = logits.shape[1] == 2 and bool((logits[:, 0] == 0).all())
    raised = bool(logits.min() >= 0 and RELU_ZEROS <= zeros < 1 and not fixed)
    return RELU.judged(
        raised, f"{percent(zeros)} of the logits are 0, the smallest is {logits.min():.3g}"
    )


def forgotten_success(share: float) -> Indicator:
    """See `measurements.of_way`."""
    return FORGOTTEN.judged(share > IMAGES_SHARE, f"{percent(share)} of the images")


def incomplete(share: float, standing: float) -> Indicator:
    """See `measurements.of_way`."""
    raised = share >= STILL_RISING_SHARE and standing >= 5
    return INCOMPLETE.judged(raised, f"{percent(share)} of {standing:.0f} images still standing")


def unbounded_fails(left: int, images: int) -> Indicator:
    """So many of the images are left."""
    return UNBOUNDED.judged(left > IMAGES_SHARE * images, f"{left} of {images} images left")


def black_box_stronger(broken: int, attacked: int, correct: int) -> Indicator:
    """`broken` of the `attacked` images, which are what is left of the `correct` ones."""
    return BLACK_BOX.judged(
        broken > IMAGES_SHARE * correct,
        f"{broken} of the {attacked} images that gradients left standing",
    )


def few_classes(classes: int, loss: str, *, targeted: bool) -> Indicator:
    """Of the model, and the loss of the evaluation under audit."""
    needed = {"dlr": 4 if targeted else 3}.get(loss, 2)
    return FEW_CLASSES.judged(classes < needed, f"{classes} classes, loss {loss}")


def restarts(first_break: np.ndarray, total: int, images: int) -> Indicator:
    """First restart that broke each attacked image, -1: none; `images`: of the whole audit."""
    at_one, at_all = (int(((first_break >= 0) & (first_break < r)).sum()) for r in (1, total))
    late = int((first_break >= total // 2).sum())
    drop = (at_all - at_one) / images
    saw = (
        f"{drop * 100:.1f} points from 1 to {total} restarts; the last {total - total // 2} broke "
        f"{late} images, and {2 * total} restarts may break {late} more"
    )
    return RESTARTS.judged(drop >= RESTART_POINTS, saw)


def step_size(default: float, best: float, cell: str) -> Indicator:
    """Accuracies of the default and of the best cell on the same images."""
    return STEP_SIZE.judged(
        default - best >= GRID_POINTS,
        f"{default:.1%} for the default, {best:.1%} for {cell}",
    )


def overestimate(default: float, worst: float) -> Indicator:
    """Accuracies of the evaluation under audit and of the worst case."""
    return OVERESTIMATE.judged(
        default - worst >= OVERESTIMATE_POINTS - 1e-9,
        f"{default:.1%} under the default, {worst:.1%} in the worst case",
    )


def judge_disagrees(share: float) -> Indicator:
    """Share of images that the given model and the judge classify differently."""
    return JUDGE.judged(share > IMAGES_SHARE, f"{percent(share)} of the images")


def unit_test(found: int, by_chance: int, images: int) -> Indicator:
    """See `planted.PlantedResult`."""
    saw = f"{found} of {images} found, {by_chance} by random points"
    return PLANTED.judged(found < PLANTED_SHARE * images, saw)
