"""The judgement of an audit: a measurement comes in, an `Indicator` goes out.

Nothing is measured here; what each indicator means is in `kinds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from alp_repro.auditing import kinds
from alp_repro.auditing.kinds import Indicator
from alp_repro.auditing.planted import PlantedResult
from alp_repro.models.probes import deciding_spreads

if TYPE_CHECKING:
    from alp_repro.attacks import Attack, Ensemble


def percent(share: float) -> str:
    """A share in percent, one decimal below 10%."""
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def near_chance(accuracy: float, labels: np.ndarray, classes: int, *, likely: str) -> Indicator:
    """`likely`: a sentence on the pixel range that fits better, or an empty text."""
    guess = max(1 / classes, float(np.bincount(labels).max()) / len(labels) if len(labels) else 0)
    chance = min(guess, 2 / classes) if classes > 2 else 1 / classes
    low = accuracy <= min(1.5 * chance, 0.6)
    saw = f"clean accuracy {accuracy:.1%}, chance {1 / classes:.1%}"
    if low:
        saw += f": is the pixel range right? {likely}".rstrip()
    return kinds.CHANCE.judged(low, saw)


def random_outputs(
    repeated: float, batch: float, *, why: str | None, passes: int | None = None
) -> Indicator:
    """Whether chance or other images decide about an image.

    Args:
      repeated, batch: see `measurements.randomness`.
      why: what an evaluation would refuse the model for.
      passes: the model is random, and judged by what most of so many give; None: it is not.
    """
    saw = f"change of {repeated:.2g} in repeated passes, {batch:.2g} in another batch"
    if passes is not None:
        return kinds.RANDOM.judged(
            False, f"{saw}: each image is judged by what most of {passes} passes give"
        )
    raised = why is not None or max(repeated, batch) > kinds.RANDOM_CHANGE
    return kinds.RANDOM.judged(raised, f"{saw}: {why}" if why else saw)


def no_gradient(margin: float, unavailable: float, *, constant: bool) -> Indicator:
    """See `measurements.gradients_at_starts`; `constant`: all images get the same logits."""
    saw = f"none at {percent(margin)} of the starts"
    if unavailable:
        saw += "; TensorFlow gives no gradient at all"
    if constant:
        saw += "; the logits are the same for every image"
    return kinds.NO_GRADIENT.judged(margin >= kinds.NO_GRADIENT_SHARE, saw)


def zero_gradients(share: float) -> Indicator:
    """See `measurements.gradients_at_starts`."""
    return kinds.ZERO_GRADIENTS.judged(
        share >= kinds.ZERO_SHARE, f"zero at {percent(share)} of the starts"
    )


def unstable_gradients(mean_change: float) -> Indicator:
    """See `measurements.instability`."""
    return kinds.UNSTABLE.judged(
        mean_change > kinds.UNSTABLE_CHANGE, f"{percent(mean_change)} on average"
    )


def logit_scale(logits: np.ndarray) -> Indicator:
    """Clean logits [n, classes]."""
    spread = float(np.median(deciding_spreads(logits)))
    return kinds.LOGIT_SCALE.judged(0 < spread < kinds.SMALL_SPREAD, f"median range {spread:.3g}")


def relu_logits(logits: np.ndarray) -> Indicator:
    """Clean logits [n, classes]; a two-class model's fixed zero is no ReLU's."""
    zeros = float((logits == 0).mean())
    fixed = logits.shape[1] == 2 and bool((logits[:, 0] == 0).all())
    raised = bool(logits.min() >= 0 and kinds.RELU_ZEROS <= zeros < 1 and not fixed)
    return kinds.RELU.judged(
        raised, f"{percent(zeros)} of the logits are 0, the smallest is {logits.min():.3g}"
    )


def forgotten_success(share: float) -> Indicator:
    """See `measurements.of_way`."""
    return kinds.FORGOTTEN.judged(share > kinds.IMAGES_SHARE, f"{percent(share)} of the images")


def incomplete(share: float, standing: float, *, more: float | None) -> Indicator:
    """See `measurements.of_way`; `more`: the accuracy that more iterations take, None: unknown."""
    raised = share >= kinds.STILL_RISING_SHARE and standing >= 5
    saw = f"{percent(share)} of {standing:.0f} images still standing"
    if more is not None:
        saw += f"; 5 times the iterations take {100 * more:.1f} points more"
        raised = raised and more >= kinds.ITERATION_POINTS
    return kinds.INCOMPLETE.judged(raised, saw)


def unbounded_fails(left: int, images: int) -> Indicator:
    """So many of the images are left."""
    return kinds.UNBOUNDED.judged(
        left > kinds.IMAGES_SHARE * images, f"{left} of {images} images left"
    )


def black_box_stronger(broken: int, attacked: int, correct: int) -> Indicator:
    """`broken` of the `attacked` images, which are what is left of the `correct` ones."""
    return kinds.BLACK_BOX.judged(
        broken > max(1, kinds.IMAGES_SHARE * correct),
        f"{broken} of the {attacked} images that gradients left standing",
    )


def few_classes(classes: int, attack: Attack | Ensemble) -> Indicator:
    """Of the model, and the evaluation under audit."""
    needed = attack.least_classes
    return kinds.FEW_CLASSES.judged(
        classes < needed, f"{classes} classes, and the attack is defined for {needed} or more"
    )


def restarts(first_break: np.ndarray, total: int, images: int) -> Indicator:
    """First restart that broke each attacked image, -1: none; `images`: of the whole audit."""
    at_one, at_all = (int(((first_break >= 0) & (first_break < r)).sum()) for r in (1, total))
    late = int((first_break >= total // 2).sum())
    drop = (at_all - at_one) / images
    saw = (
        f"{drop * 100:.1f} points from 1 to {total} restarts; the last {total - total // 2} broke "
        f"{late} images, and {2 * total} restarts may break {late} more"
    )
    return kinds.RESTARTS.judged(drop >= kinds.RESTART_POINTS, saw)


def step_size(default: float, best: float, cell: str) -> Indicator:
    """Accuracies of the default and of the best cell on the same images."""
    return kinds.STEP_SIZE.judged(
        default - best >= kinds.GRID_POINTS,
        f"{default:.1%} for the default, {best:.1%} for {cell}",
    )


def overestimate(default: float, worst: float) -> Indicator:
    """Accuracies of the evaluation under audit and of the worst case."""
    return kinds.OVERESTIMATE.judged(
        default - worst >= kinds.OVERESTIMATE_POINTS - 1e-9,
        f"{default:.1%} under the default, {worst:.1%} in the worst case",
    )


def judge_disagrees(share: float) -> Indicator:
    """Share of images that the given model and the judge classify differently."""
    return kinds.JUDGE.judged(share > kinds.IMAGES_SHARE, f"{percent(share)} of the images")


def unit_test(test: PlantedResult) -> Indicator:
    """See `planted.PlantedResult`."""
    saw = (
        f"{test.by_strongest} of {test.images} found, {test.found} by the default attack, "
        f"{test.by_chance} by random points"
    )
    return kinds.PLANTED.judged(test.by_strongest < kinds.PLANTED_SHARE * test.images, saw)


def one_step_stronger(one_step: int, default: int, images: int) -> Indicator:
    """Images broken by a single step and by the evaluation under audit, of so many."""
    return kinds.ONE_STEP.judged(
        one_step - default > max(1, kinds.IMAGES_SHARE * images),
        f"one step breaks {one_step} of {images} images, the evaluation under audit {default}",
    )


def noise_stronger(missed: int, found: int, images: int) -> Indicator:
    """Of so many images random points break `found`, `missed` of them no attack under audit."""
    return kinds.NOISE.judged(
        missed > max(1, kinds.IMAGES_SHARE * images),
        f"random points break {found} of {images} images, {missed} of which the evaluation under "
        "audit leaves",
    )


def eps_grid(sizes: Sequence[float], left: Sequence[int], images: int) -> Indicator:
    """Of so many images each ball leaves some; sizes on the [0, 1] scale, ascending."""
    rise = max(later - min(left[: i + 1]) for i, later in enumerate(left))
    raised = max(left[-1], rise) > max(2, kinds.GRID_SHARE * images)
    told = ", ".join(f"{n} at {size * 255:.3g}" for n, size in zip(left, sizes, strict=True))
    return kinds.EPS_GRID.judged(raised, f"of {images} images {told}")


def contradiction(pairs: Sequence[tuple[str, int, int]], right_again: int) -> Indicator:
    """What weaker attacks break and stronger ones leave.

    Args:
      pairs: words for each pair, by how many images the weaker one breaks more, of how many.
      right_again: broken images that are right when asked again; of those of the first pair.
    """

    def much(count: int, images: int) -> bool:
        return count > max(1, kinds.CONTRADICTION_SHARE * images)

    images = pairs[0][2] if pairs else 0
    told = [f"{words} breaks {max(n, 0)} images more" for words, n, _ in pairs]
    told.append(f"{right_again} broken images are right when asked again")
    raised = any(much(n, of) for _, n, of in pairs) or much(right_again, images)
    return kinds.CONTRADICTION.judged(raised, "; ".join(told))


def surrogate_differs(share: float) -> Indicator:
    """Share of the images that the surrogate and the model classify differently."""
    return kinds.SURROGATE.judged(
        share > kinds.CONTRADICTION_SHARE, f"{percent(share)} of the images"
    )
