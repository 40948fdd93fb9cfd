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
# Of each source's published code; where a kind's source says that a threshold is ours, that code
# has another one or only reports the value.

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
# Steps that grow with the ball are clumsy at the end: sound models keep an image or two.
GRID_SHARE = 0.1
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


CHANCE = Kind(
    "near_chance",
    "accuracy near chance",
    "Clean accuracy on the given images, beside that of guessing one class.",
    OURS,
    "clean accuracy at most 1.5 times chance (and below 60%)",
    "Check the range of the pixels, their mean and deviation, the order of the "
    "labels and of the colour channels. Attack numbers of a model at chance mean nothing.",
)
RANDOM = Kind(
    "random_outputs",
    "outputs depend on more than the image",
    "Largest change of a logit between passes over the same images, and when a batch is made up "
    "differently, relative to the range that the logits of an image have.",
    f"{AUTO_ATTACK}; threshold ours, theirs is 1e-4 of logits of unit length",
    f"a change above {RANDOM_CHANGE:g} that is not chance alone: a model that draws random numbers "
    "is judged by what most of many passes give",
    "Call batch norm in inference mode (training=False), and give each image noise of its own: "
    "otherwise the other images of a batch break it.",
)
NO_GRADIENT = Kind(
    "no_gradient",
    "no gradient",
    "Share of random starts where the margin, a loss that cannot saturate, has no gradient or one "
    "that is zero in every pixel.",
    f"{PINTOR} (unavailable gradients); threshold ours, theirs is a single image",
    f"{NO_GRADIENT_SHARE:.0%} or more",
    "Gradient attacks stay at their start. Give a surrogate to take gradients of: the same model "
    "without the step that has none (rounding, argmax, look-up, stop_gradient), or with the "
    "identity as its backward pass (BPDA, Athalye et al. 2018), or another differentiable model. "
    "Without one, read the black-box line of the table.",
)
ZERO_GRADIENTS = Kind(
    "zero_gradients",
    "zero gradients",
    "Share of random starts where the cross-entropy has a gradient that is zero in every pixel.",
    f"{AUTO_ATTACK}; {PINTOR}; threshold ours, theirs is a single image",
    f"{ZERO_SHARE:.0%} or more",
    "The loss has saturated: attack with the margin or DLR loss (loss=margin), which do not, or "
    "divide the logits by a constant, which changes no prediction.",
)
UNSTABLE = Kind(
    "unstable_gradients",
    "unstable loss",
    "Mean relative change of the cross-entropy at 20 random points within 0.001 of each image; a "
    "point counts for 100% at the most.",
    f"{PINTOR} (unstable predictions: 100 points within 4/255); points, radius and threshold ours",
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
    f"{PINTOR} (silent success); threshold ours, theirs is of one image",
    f"above {IMAGES_SHARE:.0%}",
    "Judge every iterate (success=any), or take smaller steps at the end (step_schedule=linear).",
)
JUDGE = Kind(
    "judge_disagrees",
    "the attacked model and the judge disagree",
    "Share of images, clean and adversarial, that the model as it was given and its float32 copy, "
    "which judges, classify differently.",
    f"{PINTOR} (transfer failure); threshold ours, theirs is of one image",
    f"above {IMAGES_SHARE:.0%}",
    "Craft in float32 on the model that is judged; look at mixed precision and at layers with a "
    "state that is not among the weights.",
)
INCOMPLETE = Kind(
    "incomplete",
    "the loss was still rising",
    "Of the images that the default attack's way does not break, the share whose best loss so far "
    "grows by more than 5% of the loss's whole range within the last 10 iterates.",
    f"{PINTOR} (incomplete optimisation, of one image); the share and the points are ours",
    f"{STILL_RISING_SHARE:.0%} or more of at least 5 images, and 5 times the iterations take "
    f"{ITERATION_POINTS * 100:g} points or more, where they were tried",
    "More iterations (nb_iter), or larger steps.",
)
UNBOUNDED = Kind(
    "unbounded_fails",
    "even an unbounded attack fails",
    "Share of correctly classified images that an attack with ε = 1, any image at all, leaves.",
    f"{PINTOR} (unconstrained attack failure); Carlini et al. 2019; threshold ours",
    f"above {IMAGES_SHARE:.0%}",
    "Any classifier can be given an image of another class: an attack that may change everything "
    "and does not succeed has lost the gradient. Look at the indicators of gradients.",
)
BLACK_BOX = Kind(
    "black_box_stronger",
    "black box stronger than white box",
    "Share of correctly classified images that Square, without gradients, breaks after every "
    "gradient attack has failed on them.",
    f"{AUTO_ATTACK}; threshold ours, theirs is 0.2 points",
    f"above {IMAGES_SHARE:.0%}, and two images or more",
    "Gradients mislead here: trust no gradient attack's number, and give the black box more "
    "queries (more minutes).",
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
    OURS_AFTER_MOSBACH,
    f"a drop of {RESTART_POINTS * 100:g} points or more",
    "Report the accuracy over many restarts, never of one; go on until a doubling breaks nothing.",
)
STEP_SIZE = Kind(
    "step_size",
    "other steps are stronger",
    "Difference between the default attack and the best cell of a heat map over step sizes and "
    "iterations, one restart each, on the same images.",
    OURS_AFTER_MOSBACH,
    f"{GRID_POINTS * 100:g} points or more",
    "Search step size and iterations before reporting a number, as the heat map does.",
)
OVERESTIMATE = Kind(
    "overestimate",
    "far from the worst case",
    "Accuracy under the evaluation under audit minus that under the worst case of all attacks.",
    OURS_AFTER_MOSBACH,
    f"{OVERESTIMATE_POINTS * 100:g} points or more",
    "Report the worst case over several attacks.",
)
PLANTED = Kind(
    "unit_test",
    "planted examples not found",
    "Share of adversarial examples, planted by a new last layer on the model's own features, that "
    "the strongest kind of our attacks finds, beside the default attack and as many random points.",
    f"{ZIMMERMANN}; threshold ours, their code reports the share",
    f"below {PLANTED_SHARE:.0%}",
    "Even the attacks of this audit miss examples that are known to be there: they are too weak "
    "for these features. Do not believe the worst case; find out why gradients lead nowhere.",
)
ONE_STEP = Kind(
    "one_step_stronger",
    "one step stronger than many",
    "Correctly classified images that a single step of ε breaks, beside those that the evaluation "
    "under audit does.",
    f"{CARLINI}; threshold ours",
    f"the step breaks more, by above {IMAGES_SHARE:.0%} of the images, and two or more",
    "Many steps hold what one step finds, so the attack loses its way: larger steps, more of them, "
    "or a loss that does not saturate.",
)
NOISE = Kind(
    "noise_stronger",
    "random points stronger than the attack",
    "Share of correctly classified images that some of 100 random points of the ball (stripes of "
    "±ε) break and the evaluation under audit leaves.",
    f"{CARLINI}; threshold ours",
    f"above {IMAGES_SHARE:.0%}, and two images or more",
    "The attack misses what chance finds, so its gradients lead nowhere: look at the indicators of "
    "gradients.",
)
EPS_GRID = Kind(
    "eps_grid",
    "accuracy does not fall to 0 with a larger ε",
    "Images that the evaluation under audit leaves in balls of growing ε up to 1, any image at "
    "all, with steps as large in proportion.",
    f"{CARLINI}; threshold ours",
    f"above {GRID_SHARE:.0%} of the images, and three or more, are left at ε = 1, or are "
    "left more by a larger ball than by a smaller one",
    "A larger ball holds what a smaller one does, and the largest an image of every class. An "
    "attack that does not find them finds little in the ball that matters: more iterations, larger "
    "steps, a loss that does not saturate.",
)
CONTRADICTION = Kind(
    "contradiction",
    "results contradict each other",
    "Share of correctly classified images that an attack breaks and one that can do the same and "
    "more leaves (half the ball and the ball, the iterations and 5 times as many, net of the "
    "other way round); share of the broken images that are classified correctly when asked again.",
    f"{CARLINI}; threshold ours",
    f"above {CONTRADICTION_SHARE:.0%}, and two images or more",
    "One of the two numbers is wrong: believe the smaller accuracy, and look for what keeps the "
    "stronger attack from it (a step in proportion to the ball, a start, a seed, a prediction that "
    "changes from pass to pass).",
)
SURROGATE = Kind(
    "surrogate_differs",
    "the surrogate is another function",
    "Share of the images for which the surrogate gives another prediction than the model.",
    OURS,
    f"above {CONTRADICTION_SHARE:.0%}",
    "Attacks find what fools the surrogate, and little of it may fool the model: take the model "
    "itself with the step that has no gradient replaced by the identity, or by itself forwards and "
    "the identity backwards.",
)
