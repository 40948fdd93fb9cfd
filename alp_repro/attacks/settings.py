"""What an attack is: its settings, the numbers a graph takes, the preset `strong`.

Sizes are on the model's input scale, [0, 1].
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import numpy as np
import tensorflow as tf

from alp_repro.dtypes import Dtype
from alp_repro.errors import InputError

Method = Literal["pgd", "apgd", "spsa"]
Loss = Literal["cross_entropy", "margin", "dlr"]
StepSchedule = Literal["constant", "linear"]
Success = Literal["last", "any"]
Target = Literal["none", "random", "least_likely", "each", "rotate"]
Engine = Literal["loop", "cleverhans"]
_CHOICES = {
    "method": Method,
    "loss": Loss,
    "step_schedule": StepSchedule,
    "success": Success,
    "target": Target,
    "dtype": Dtype,
    "engine": Engine,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """Settings of one L∞ attack; sizes are on the model's input scale [0, 1] (76.5/255 = 0.3).

    Attributes:
      eps: radius of the ball.
      eps_iter: size of a sign step (of the first one under the linear schedule). SPSA: Adam's
        learning rate. APGD ignores it and begins with 2·eps.
      nb_iter: steps of one restart.
      restarts: independent full runs, each from its own start (paper: r).
      method: `pgd` (Madry et al. 2017), `apgd` (Croce & Hein 2020), `spsa` (Uesato et al. 2018).
      loss: what is maximised; see `attack_losses`.
      step_schedule: `constant`, or `linear`: step i of n is eps_iter · (1 - i/n).
      momentum: a PGD step follows the sign of the gradient plus this share of the direction before
        (Dong et al. 2018, without their scaling of the gradient); 0: the paper.
      gradient_noise: the gradient of a PGD step is taken at the point plus uniform noise of this
        half-width, which falls linearly to 0 half way through a run: a loss that is flat or bumpy
        at the point itself is climbed as it looks from afar. Averaged by the momentum, it is one
        sample a step of the expectation of Athalye et al. 2018. 0: the paper.
      success: `last`: the last iterate is judged (the paper); `any`: the iterate with the largest
        margin of a wrong class over the true one.
      target: `none` (the true label's loss grows); `random`: drawn once for an image and kept over
        its restarts, may equal the true class; `least_likely` of the clean prediction; `each`:
        restart r aims at the wrong class of rank r (modulo their number) of the clean prediction;
        `rotate`: restarts in turns of three: aimed as those of `each` in turn; at the same class
        without gradient_noise and momentum; with neither these nor a target.
        An image is broken when its prediction is not the true label, whatever the target.
      random_start: uniform in the ball, clipped to [0, 1]; otherwise the clean image.
      dtype: of the crafting passes; the verdict is always float32.
      engine: `loop` is ours; `cleverhans` calls `projected_gradient_descent` itself (reference:
        reproducible for equal batches only, since its starts are stateful).

    Raises:
      InputError: a size or count out of range, or an unknown choice, named with what is allowed.
    """

    eps: float
    eps_iter: float
    nb_iter: int
    restarts: int = 1
    method: Method = "pgd"
    loss: Loss = "cross_entropy"
    step_schedule: StepSchedule = "constant"
    momentum: float = 0.0
    gradient_noise: float = 0.0
    success: Success = "last"
    target: Target = "none"
    random_start: bool = True
    dtype: Dtype = "float32"
    engine: Engine = "loop"

    def __post_init__(self) -> None:
        """Checks every setting."""
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise InputError(
                    f"attack {name}={getattr(self, name)!r}: one of {', '.join(get_args(choices))}"
                )
        if not 0 < self.eps <= 1:
            raise InputError(
                f"attack eps {self.eps * 255:g}: a size in (0, 255] on the 0-255 scale is needed"
            )
        if not 0 < self.eps_iter <= self.eps and self.method == "pgd":
            raise InputError(
                f"attack eps_iter {self.eps_iter * 255:g}: a step in (0, eps] is needed; eps is "
                f"{self.eps * 255:g} (0-255 scale)"
            )
        for name in ("nb_iter", "restarts"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"attack {name} {getattr(self, name)}: a count of 1 or more is needed"
                )
        if not (0 <= self.momentum < 1 and 0 <= self.gradient_noise < np.inf):
            raise InputError(
                f"attack momentum {self.momentum:g}, gradient_noise {self.gradient_noise * 255:g}: "
                "a share in [0, 1) and a size of 0 or more are needed"
            )
        if (self.momentum or self.gradient_noise) and self.method != "pgd":
            raise InputError(f"attack {self.method}: momentum and gradient_noise are PGD's")
        if self.gradient_noise and self.success == "any":
            raise InputError(
                "attack success=any: an iterate's own logits are needed, and with gradient_noise "
                "they are never computed; success=last works"
            )
        if self.target == "rotate" and (self.method == "spsa" or self.engine == "cleverhans"):
            raise InputError("attack target=rotate: our loop's pgd and apgd alone know it")
        ours_alone = (
            self.method, self.loss, self.step_schedule, self.momentum, self.gradient_noise,
            self.success, self.dtype,
        )  # fmt: skip
        faithful = ("pgd", "cross_entropy", "constant", 0.0, 0.0, "last", "float32")
        if self.engine == "cleverhans" and ours_alone != faithful:
            raise InputError(
                "attack engine=cleverhans: its projected_gradient_descent knows a constant step, "
                "the cross-entropy, the last iterate and float32 only"
            )


@dataclasses.dataclass(frozen=True)
class Sizes:
    """An attack's numbers as a graph takes them, input scale.

    As tensors they let one compiled program serve attacks that differ in nothing else, and a
    training grow its ball.
    """

    eps: tf.Tensor | float
    eps_iter: tf.Tensor | float
    nb_iter: tf.Tensor | int


def strong_attack(eps: float, *, dtype: Dtype = "float32") -> Attack:
    """Our preset `strong`: 1,800 gradients an image with ten classes (docs/performance.md).

    Eighteen runs of 100 steps that fall linearly from ε, in turns of three. The first of a turn is
    aimed at another wrong class by gradients at noisy points that momentum averages: a distorted
    surface, as of CLP and LSQ, hides its way up from the true label's loss at the point itself, not
    from these. The second is aimed there by the point's own gradients and the third has no target,
    both without momentum: on smooth surfaces, as of adversarially trained models, these find what
    the first pass over. The sizes were found on MNIST.
    """
    return Attack(
        eps=eps, eps_iter=eps, nb_iter=100, restarts=18, loss="margin", step_schedule="linear",
        momentum=0.75, gradient_noise=4 * eps, target="rotate", dtype=dtype,
    )  # fmt: skip
