"""The thresholds of an audit: a measurement comes in, an `Indicator` goes out.

Nothing is measured here; what each indicator means is in `specs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from alp_repro.auditing import specs
from alp_repro.auditing.planted import PlantedResult
from alp_repro.auditing.specs import Indicator
from alp_repro.models.probes import deciding_spreads

if TYPE_CHECKING:
    from alp_repro.attacks import Attack, Ensemble


def percent(share: float) -> str:
    """Format a share in percent, with one decimal below 10%."""
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def near_chance(
    accuracy: float, labels: np.ndarray, classes: int, *, likely: str = ""
) -> Indicator:
    """Compare the clean accuracy with that of a guess.

    `likely`: a sentence on the pixel range that fits better, or an empty text.
    """
    guess = max(1 / classes, float(np.bincount(labels).max()) / len(labels) if len(labels) else 0)
    chance = min(guess, 2 / classes) if classes > 2 else 1 / classes
    low = accuracy <= min(1.5 * chance, 0.6)
    saw = f"clean accuracy {accuracy:.1%}, chance {1 / classes:.1%}"
    if low:
        saw += f": is the pixel range right? {likely}".rstrip()
    return specs.CHANCE.indicator(low, saw)


def random_outputs(
    repeated: float, batch: float, *, why: str | None, passes: int | None = None
) -> Indicator:
    """Decide whether the logits of an image depend on more than the image.

    Args:
      repeated, batch: see `measurements.randomness`.
      why: the reason for which an evaluation would refuse the model; None: it would not.
      passes: of a random model, the passes whose majority is its prediction; None: not random.
    """
    saw = f"change of {repeated:.2g} in repeated passes, {batch:.2g} in another batch"
    if passes is not None:
        saw += f": each image is classified by what most of {passes} passes give"
        return specs.RANDOM.indicator(False, saw)
    raised = why is not None or max(repeated, batch) > specs.RANDOM_CHANGE
    return specs.RANDOM.indicator(raised, f"{saw}: {why}" if why else saw)


def no_gradient(margin: float, unavailable: float, *, constant: bool) -> Indicator:
    """Decide whether there is a gradient at all; see `measurements.gradients_at_starts`.

    `constant`: all images get the same logits.
    """
    saw = f"none at {percent(margin)} of the starts"
    if unavailable:
        saw += "; TensorFlow gives no gradient at all"
    if constant:
        saw += "; the logits are the same for every image"
    return specs.NO_GRADIENT.indicator(margin >= specs.NO_GRADIENT_SHARE, saw)


def zero_gradients(share: float) -> Indicator:
    """Decide whether the cross-entropy has saturated; see `measurements.gradients_at_starts`."""
    return specs.ZERO_GRADIENTS.indicator(
        share >= specs.ZERO_SHARE, f"zero at {percent(share)} of the starts"
    )


def unstable_gradients(mean_change: float) -> Indicator:
    """Decide whether the loss is unstable; see `measurements.instability`."""
    return specs.UNSTABLE.indicator(
        mean_change > specs.UNSTABLE_CHANGE, f"{percent(mean_change)} on average"
    )


def logit_scale(logits: np.ndarray) -> Indicator:
    """Decide whether clean logits [n, classes] are too small for float32."""
    spread = float(np.median(deciding_spreads(logits)))
    return specs.LOGIT_SCALE.indicator(
        0 < spread < specs.SMALL_SPREAD, f"median range {spread:.3g}"
    )


def relu_logits(logits: np.ndarray) -> Indicator:
    """Decide whether clean logits [n, classes] come out of a ReLU.

    The fixed zero of a two-class model is not taken for one.
    """
    zeros = float((logits == 0).mean())
    fixed = logits.shape[1] == 2 and bool((logits[:, 0] == 0).all())
    raised = bool(logits.min() >= 0 and specs.RELU_ZEROS <= zeros < 1 and not fixed)
    return specs.RELU.indicator(
        raised, f"{percent(zeros)} of the logits are 0, the smallest is {logits.min():.3g}"
    )


def forgotten_success(share: float) -> Indicator:
    """Decide whether the last iterate loses images; see `measurements.trajectory_summary`."""
    return specs.FORGOTTEN.indicator(share > specs.IMAGES_SHARE, f"{percent(share)} of the images")


def incomplete(share: float, standing: float, *, more: float | None) -> Indicator:
    """Decide whether the attack stops too early; see `measurements.trajectory_summary`.

    `more`: by how much more iterations lower the accuracy, None: unknown.
    """
    raised = share >= specs.STILL_RISING_SHARE and standing >= 5
    saw = f"{percent(share)} of {standing:.0f} images still standing"
    if more is not None:
        saw += f"; 5 times the iterations lower the accuracy by {100 * more:.1f} points"
        raised = raised and more >= specs.ITERATION_POINTS
    return specs.INCOMPLETE.indicator(raised, saw)


def unbounded_fails(left: int, images: int) -> Indicator:
    """Decide by how many of the images an unbounded attack leaves."""
    return specs.UNBOUNDED.indicator(
        left > specs.IMAGES_SHARE * images, f"{left} of {images} images left"
    )


def black_box_stronger(broken: int, attacked: int, correct: int) -> Indicator:
    """Decide whether gradients mislead.

    Args:
      broken: images that the black box breaks.
      attacked: images that gradient attacks left.
      correct: correctly classified images.
    """
    return specs.BLACK_BOX.indicator(
        broken > max(1, specs.IMAGES_SHARE * correct),
        f"{broken} of the {attacked} images that gradients left standing",
    )


def few_classes(classes: int, attack: Attack | Ensemble) -> Indicator:
    """Decide whether the model has enough classes for the evaluation under audit."""
    needed = attack.min_classes
    return specs.FEW_CLASSES.indicator(
        classes < needed, f"{classes} classes, and the attack needs {needed} or more"
    )


def restarts(first_break: np.ndarray, total: int, images: int) -> Indicator:
    """Decide whether more restarts go on breaking images.

    Args:
      first_break: int [k], the first restart that broke each attacked image, -1: none.
      total: restarts.
      images: number of images of the whole audit.
    """
    at_one, at_all = (int(((first_break >= 0) & (first_break < r)).sum()) for r in (1, total))
    late = int((first_break >= total // 2).sum())
    drop = (at_all - at_one) / images
    saw = (
        f"{drop * 100:.1f} points from 1 to {total} restarts; the last {total - total // 2} broke "
        f"{late} images, and {2 * total} restarts may break {late} more"
    )
    return specs.RESTARTS.indicator(drop >= specs.RESTART_POINTS, saw)


def step_size(default: float, best: float, cell: str) -> Indicator:
    """Compare the accuracies of the default and of the best cell on the same images."""
    return specs.STEP_SIZE.indicator(
        default - best >= specs.GRID_POINTS,
        f"{default:.1%} for the default, {best:.1%} for {cell}",
    )


def overestimate(default: float, worst: float) -> Indicator:
    """Compare the accuracies under the evaluation under audit and in the worst case."""
    return specs.OVERESTIMATE.indicator(
        default - worst >= specs.OVERESTIMATE_POINTS - 1e-9,
        f"{default:.1%} under the default, {worst:.1%} in the worst case",
    )


def judge_disagrees(share: float) -> Indicator:
    """Decide by the share of images that the model and its float32 copy classify differently."""
    return specs.JUDGE.indicator(share > specs.IMAGES_SHARE, f"{percent(share)} of the images")


def unit_test(test: PlantedResult) -> Indicator:
    """Decide whether our strongest attack passes the unit test."""
    saw = (
        f"{test.by_strongest} of {test.images} found, {test.found} by the default attack, "
        f"{test.by_chance} by random points"
    )
    return specs.PLANTED.indicator(test.by_strongest < specs.PLANTED_SHARE * test.images, saw)


def one_step_stronger(one_step: int, default: int, images: int) -> Indicator:
    """Compare how many of the images a single step and the evaluation under audit break."""
    return specs.ONE_STEP.indicator(
        one_step - default > max(1, specs.IMAGES_SHARE * images),
        f"one step breaks {one_step} of {images} images, the evaluation under audit {default}",
    )


def noise_stronger(missed: int, found: int, images: int) -> Indicator:
    """Decide whether random points find more than the attack.

    Args:
      missed: images that random points break and the evaluation under audit does not.
      found: images that random points break.
      images: number of attacked images.
    """
    return specs.NOISE.indicator(
        missed > max(1, specs.IMAGES_SHARE * images),
        f"random points break {found} of {images} images, and the evaluation under audit misses "
        f"{missed} of these",
    )


def eps_grid(sizes: Sequence[float], left: Sequence[int], images: int) -> Indicator:
    """Decide whether larger balls leave fewer images, and the largest next to none.

    Args:
      sizes: radii on the [0, 1] scale, ascending.
      left: images that stand in each ball.
      images: number of attacked images.
    """
    rise = max(later - min(left[: i + 1]) for i, later in enumerate(left))
    raised = max(left[-1], rise) > max(2, specs.GRID_SHARE * images)
    counts = ", ".join(f"{n} at {size * 255:.3g}" for n, size in zip(left, sizes, strict=True))
    return specs.EPS_GRID.indicator(raised, f"of {images} images, {counts} stand")


def contradiction(pairs: Sequence[tuple[str, int, int]], correct_again: int) -> Indicator:
    """Decide whether weaker attacks break what stronger ones leave.

    Args:
      pairs: name of the weaker attack, how many images more it breaks, of how many.
      correct_again: broken images that are classified correctly when predicted again.
    """

    def many(count: int, images: int) -> bool:
        return count > max(1, specs.CONTRADICTION_SHARE * images)

    images = pairs[0][2] if pairs else 0
    saw = [f"{name} breaks {max(n, 0)} images more" for name, n, _ in pairs]
    saw.append(f"{correct_again} broken images are classified correctly when predicted again")
    raised = any(many(n, of) for _, n, of in pairs) or many(correct_again, images)
    return specs.CONTRADICTION.indicator(raised, "; ".join(saw))


def surrogate_differs(share: float) -> Indicator:
    """Decide by the share of images that the surrogate and the model classify differently."""
    return specs.SURROGATE.indicator(
        share > specs.CONTRADICTION_SHARE, f"{percent(share)} of the images"
    )
