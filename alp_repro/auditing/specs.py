"""What an audit looks for: each indicator's definition, source, threshold and advice."""

from __future__ import annotations

import dataclasses
from typing import Literal

State = Literal["raised", "clear", "not judged"]

AUTO_ATTACK = "AutoAttack's checks (Croce & Hein 2020; flags of its repository)"
PINTOR = "Pintor et al. 2022, Indicators of attack failure"
ZIMMERMANN = "Zimmermann et al. 2022, Increasing confidence in adversarial robustness evaluations"
CARLINI = "Carlini et al. 2019, On evaluating adversarial robustness, section 5"
OURS = "ours"
OURS_AFTER_MOSBACH = "ours, after Mosbach et al. 2018"

# Thresholds are those of the source's published code, unless the spec's source says "threshold
# ours": that code has another one there, or only reports the value.
RANDOM_CHANGE = 1e-3
ZERO_SHARE = 0.01
NO_GRADIENT_SHARE = 0.9
UNSTABLE_CHANGE = 0.1
IMAGES_SHARE = 0.01
STILL_RISING_SHARE = 0.5
RESTART_POINTS = 0.05
ITERATION_POINTS = 0.05
GRID_POINTS = 0.10
OVERESTIMATE_POINTS = 0.10
PLANTED_SHARE = 0.95
CONTRADICTION_SHARE = 0.05
# With steps that grow with the ball, the attack leaves an image or two of sound models at ε = 1.
GRID_SHARE = 0.1
SMALL_SPREAD = 1e-3
RELU_ZEROS = 0.05


@dataclasses.dataclass(frozen=True)
class IndicatorSpec:
    """One thing that can make an evaluation overestimate robustness, before it is measured.

    Attributes:
      key: short name, for files and tests.
      title: what it says when raised, in a few words.
      definition: what is measured.
      source: who proposed it.
      threshold: when it is raised.
      advice: what to do when it is raised.
    """

    key: str
    title: str
    definition: str
    source: str
    threshold: str
    advice: str

    def indicator(self, raised: bool, saw: str) -> Indicator:
        """Return the indicator of a measurement; `saw`: what was measured."""
        return Indicator(**vars(self), state="raised" if raised else "clear", saw=saw)

    def not_judged(self, why: str) -> Indicator:
        """Return the indicator where nothing could be measured."""
        return Indicator(**vars(self), state="not judged", saw=why)


@dataclasses.dataclass(frozen=True)
class Indicator(IndicatorSpec):
    """An indicator as an audit found it.

    Attributes:
      state: raised, clear, or not judged.
      saw: what was measured, or why nothing was.
    """

    state: State
    saw: str

    @property
    def raised(self) -> bool:
        """True where the state is `raised`."""
        return self.state == "raised"


CHANCE = IndicatorSpec(
    "near_chance",
    "accuracy near chance",
    "Clean accuracy on the given images, compared with that of always guessing one class.",
    OURS,
    "clean accuracy at most 1.5 times chance (and below 60%)",
    "Check the range of the pixels, their mean and deviation, the order of the labels and of the "
    "colour channels. Attacks on a model that guesses mean nothing.",
)
RANDOM = IndicatorSpec(
    "random_outputs",
    "outputs depend on more than the image",
    "Largest change of a logit between passes over the same images, and when the images are "
    "batched differently, relative to the range of an image's logits.",
    f"{AUTO_ATTACK}; threshold ours, theirs is 1e-4 for logits of unit length",
    f"a change above {RANDOM_CHANGE:g} that random numbers alone do not explain: a model that "
    "draws some is classified by what most of many passes give",
    "Call batch norm in inference mode (training=False), and draw noise for each image separately: "
    "otherwise the other images of a batch can break an image.",
)
NO_GRADIENT = IndicatorSpec(
    "no_gradient",
    "no gradient",
    "Share of random starts where the margin, a loss that cannot saturate, has no gradient, or one "
    "that is zero in every pixel.",
    f"{PINTOR} (unavailable gradients); threshold ours, theirs is a single image",
    f"{NO_GRADIENT_SHARE:.0%} or more",
    "Gradient attacks do not move from their start. Give a surrogate to take gradients of: the "
    "same model without the step that has none (rounding, argmax, look-up, stop_gradient), or with "
    "the identity as its backward pass (BPDA, Athalye et al. 2018), or another differentiable "
    "model. Without one, only black-box attacks tell anything.",
)
ZERO_GRADIENTS = IndicatorSpec(
    "zero_gradients",
    "zero gradients",
    "Share of random starts where the cross-entropy has a gradient that is zero in every pixel.",
    f"{AUTO_ATTACK}; {PINTOR}; threshold ours, theirs is a single image",
    f"{ZERO_SHARE:.0%} or more",
    "The loss has saturated: attack with the margin or DLR loss (loss=margin), which do not "
    "saturate, or divide the logits by a constant, which changes no prediction.",
)
UNSTABLE = IndicatorSpec(
    "unstable_gradients",
    "unstable loss",
    "Mean relative change of the cross-entropy at 20 random points within 0.001 of each image; a "
    "point counts for at most 100%.",
    f"{PINTOR} (unstable predictions: 100 points within 4/255); points, radius and threshold ours",
    f"above {UNSTABLE_CHANGE:.0%}",
    "The loss changes too fast for the steps of an attack: average gradients over noisy copies, or "
    "use the attack strong (gradient_noise and momentum) and a black-box attack.",
)
LOGIT_SCALE = IndicatorSpec(
    "tiny_logits",
    "logits too small for float32",
    "Median over images of the range of an image's logits.",
    OURS,
    f"below {SMALL_SPREAD:g}",
    "The cross-entropy equals log(classes) to float32 precision, so that attacks compare rounding "
    "errors. Multiply the logits by a constant, which changes no prediction.",
)
RELU = IndicatorSpec(
    "relu_logits",
    "ReLU on the logits",
    "Share of logits that are exactly zero, where none is negative.",
    OURS,
    f"no negative logit, and {RELU_ZEROS:.0%} or more zeros",
    "A final ReLU has no gradient where a logit is zero, so that losses cannot raise a wrong class "
    "from there. Remove it: it only makes ties.",
)
FORGOTTEN = IndicatorSpec(
    "forgotten_success",
    "an earlier iterate was better",
    "Share of images where the default attack visits a misclassified iterate, but its last one, "
    "which counts, is classified correctly.",
    f"{PINTOR} (silent success); threshold ours, theirs is a single image",
    f"above {IMAGES_SHARE:.0%}",
    "Check every iterate (success=any), or take smaller steps at the end (step_schedule=linear).",
)
JUDGE = IndicatorSpec(
    "judge_disagrees",
    "the model and its float32 copy disagree",
    "Share of images, clean and adversarial, that the given model and its float32 copy, which "
    "decides what is adversarial, classify differently.",
    f"{PINTOR} (transfer failure); threshold ours, theirs is a single image",
    f"above {IMAGES_SHARE:.0%}",
    "Attack in float32 the model that is evaluated; look at mixed precision and at layers with "
    "state that is not among the weights.",
)
INCOMPLETE = IndicatorSpec(
    "incomplete",
    "the loss was still rising",
    "Of the images that no iterate of the default attack breaks, the share whose best loss so far "
    "grows by more than 5% of the loss's whole range within the last 10 iterates.",
    f"{PINTOR} (incomplete optimisation, of one image); the share and the points are ours",
    f"{STILL_RISING_SHARE:.0%} or more of at least 5 images, and 5 times the iterations lower the "
    f"accuracy by {ITERATION_POINTS * 100:g} points or more, where they were run",
    "Use more iterations (nb_iter) or larger steps.",
)
UNBOUNDED = IndicatorSpec(
    "unbounded_fails",
    "even an unbounded attack fails",
    "Share of correctly classified images that an attack with ε = 1, which may reach any image, "
    "does not break.",
    f"{PINTOR} (unconstrained attack failure); Carlini et al. 2019; threshold ours",
    f"above {IMAGES_SHARE:.0%}",
    "There is an image of another class for every classifier: an attack that may change everything "
    "and does not find one has no useful gradient. Look at the indicators of gradients.",
)
BLACK_BOX = IndicatorSpec(
    "black_box_stronger",
    "black box stronger than white box",
    "Share of correctly classified images that Square, without gradients, breaks after every "
    "gradient attack has failed on them.",
    f"{AUTO_ATTACK}; threshold ours, theirs is 0.2 points",
    f"above {IMAGES_SHARE:.0%}, and at least two images",
    "Gradients mislead here: do not rely on gradient attacks, and give the black box more queries "
    "(more minutes).",
)
FEW_CLASSES = IndicatorSpec(
    "few_classes",
    "too few classes for a loss",
    "Number of classes, and which losses it rules out (DLR needs 3, its targeted form 4).",
    AUTO_ATTACK,
    "the evaluation under audit uses a loss that needs more classes than the model has",
    "Use the margin loss.",
)
RESTARTS = IndicatorSpec(
    "restarts",
    "restarts not converged",
    "By how much the default attack's accuracy falls from 1 restart to all of them, and how many "
    "images the second half of the restarts breaks, as the next doubling may again.",
    OURS_AFTER_MOSBACH,
    f"a fall of {RESTART_POINTS * 100:g} points or more",
    "Report the accuracy over many restarts, never over one; double them until that breaks nothing "
    "more.",
)
STEP_SIZE = IndicatorSpec(
    "step_size",
    "other steps are stronger",
    "Difference between the default attack and the best cell of a heat map over step sizes and "
    "iterations, one restart each, on the same images.",
    OURS_AFTER_MOSBACH,
    f"{GRID_POINTS * 100:g} points or more",
    "Search over step sizes and iterations, as the heat map does, before reporting a number.",
)
OVERESTIMATE = IndicatorSpec(
    "overestimate",
    "far from the worst case",
    "Accuracy under the evaluation under audit minus that in the worst case over all attacks.",
    OURS_AFTER_MOSBACH,
    f"{OVERESTIMATE_POINTS * 100:g} points or more",
    "Report the worst case over several attacks.",
)
PLANTED = IndicatorSpec(
    "unit_test",
    "planted examples not found",
    "Share of adversarial examples, planted by a new last layer on the model's own features, that "
    "the strongest of our gradient attacks finds, compared with the default attack and with as "
    "many random points.",
    f"{ZIMMERMANN}; threshold ours, their code reports the share",
    f"below {PLANTED_SHARE:.0%}",
    "Even this audit's attacks miss examples that are known to exist: they are too weak for these "
    "features. Do not rely on the worst case; find out why gradients mislead.",
)
ONE_STEP = IndicatorSpec(
    "one_step_stronger",
    "one step stronger than many",
    "Correctly classified images that a single step of ε breaks, compared with those that the "
    "evaluation under audit breaks.",
    f"{CARLINI}; threshold ours",
    f"the step breaks more, by above {IMAGES_SHARE:.0%} of the images and at least two",
    "Many steps should find what one step finds: use larger steps, more of them, or a loss that "
    "does not saturate.",
)
NOISE = IndicatorSpec(
    "noise_stronger",
    "random points stronger than the attack",
    "Share of correctly classified images that one of 100 random points of the ball (stripes of "
    "±ε) breaks and the evaluation under audit does not.",
    f"{CARLINI}; threshold ours",
    f"above {IMAGES_SHARE:.0%}, and at least two images",
    "The attack misses what random points find, so its gradients mislead: look at the indicators "
    "of gradients.",
)
EPS_GRID = IndicatorSpec(
    "eps_grid",
    "accuracy does not fall to 0 with a larger ε",
    "Images that the evaluation under audit does not break in balls of growing ε, up to 1 (any "
    "image at all), with steps that grow in proportion.",
    f"{CARLINI}; threshold ours",
    f"above {GRID_SHARE:.0%} of the images, and at least three, stand at ε = 1, or stand in a "
    "larger ball and not in a smaller one",
    "A larger ball contains the smaller one, and the largest contains images of every class. An "
    "attack that does not find those finds little in the ball of interest: use more iterations, "
    "larger steps, or a loss that does not saturate.",
)
CONTRADICTION = IndicatorSpec(
    "contradiction",
    "results contradict each other",
    "Share of correctly classified images that a weaker attack breaks beyond what a stronger one "
    "does (half the ball and the ball, the iterations and 5 times as many), net of the reverse; "
    "number of broken images that are classified correctly when predicted again.",
    f"{CARLINI}; threshold ours",
    f"above {CONTRADICTION_SHARE:.0%}, and at least two images",
    "One of the two numbers is wrong: rely on the smaller accuracy, and find out what weakens the "
    "stronger attack (steps that grow with the ball, a start, a seed, a prediction that changes "
    "from pass to pass).",
)
SURROGATE = IndicatorSpec(
    "surrogate_differs",
    "the surrogate predicts other classes",
    "Share of the images for which the surrogate predicts another class than the model.",
    OURS,
    f"above {CONTRADICTION_SHARE:.0%}",
    "Attacks find what fools the surrogate, which may not fool the model: use the model itself "
    "with the step that has no gradient replaced by the identity, at least in the backward pass.",
)
