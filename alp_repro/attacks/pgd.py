"""PGD in the L∞ ball (Madry et al. 2017), with momentum, noise and other options.

The loop takes the steps of Cleverhans' `projected_gradient_descent` (`optimize_linear`, `clip_eta`)
from a given starting point and in one `tf.while_loop`, so that it compiles and resumes; a test
compares it with Cleverhans bit by bit. Everything here is on the model's input scale, [0, 1].
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np

from alp_repro.attacks.ascent import GradientAttack
from alp_repro.attacks.base import SIZE, STEPS, Cost, Crafted
from alp_repro.attacks.draws import Draws, item_noise
from alp_repro.attacks.losses import attack_loss, finite_gradient, loss_and_gradient
from alp_repro.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

    from alp_repro.attacks.batches import CraftItems
    from alp_repro.models.copies import LogitsFunction
else:
    from alp_repro.lazy_tensorflow import tf

StepSchedule = Literal["constant", "linear"]
Success = Literal["last", "any"]
Engine = Literal["loop", "cleverhans"]
_LARGEST_NOISE = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Sign steps up a loss, each projected into the ball: the paper's attack (Madry et al. 2017).

    Attributes:
      eps_iter: size of a sign step (of the first one under the linear schedule).
      nb_iter: steps of one restart.
      step_schedule: `constant`, or `linear`: step i of n is eps_iter · (1 - i/n).
      momentum: a step follows the sign of the gradient plus this fraction of the previous direction
        (Dong et al. 2018, without their scaling of the gradient); 0: the paper.
      gradient_noise: the gradient of a step is taken at the point plus uniform noise of this
        half-width, which falls linearly to 0 half way through a run: the attack climbs a smoothed
        version of a loss that is flat or bumpy at the point itself. Averaged by the momentum, it is
        one sample per step of the expectation of Athalye et al. 2018. 0: the paper.
      success: `last`: the last iterate is the result (the paper); `any`: the iterate with the
        largest margin of a wrong class over the true one.
      engine: `loop` is this project's; `cleverhans` calls `projected_gradient_descent` (a
        reference, reproducible only for equal batches, since its starts are stateful).
    """

    eps_iter: float = dataclasses.field(metadata=SIZE)
    nb_iter: int = dataclasses.field(metadata=STEPS)
    step_schedule: StepSchedule = "constant"
    momentum: float = 0.0
    gradient_noise: float = dataclasses.field(default=0.0, metadata=SIZE)
    success: Success = "last"
    engine: Engine = "loop"

    name: ClassVar[str] = "pgd"
    tensor_settings: ClassVar[tuple[str, ...]] = ("eps", "eps_iter", "nb_iter")
    is_paper_attack: ClassVar[bool] = True

    def check(self) -> None:
        """Raise InputError on settings out of range or in conflict."""
        super().check()
        smallest = float(np.finfo(np.float32).tiny)
        # A single step may cross the ball from a random start: fast adversarial training has
        # 1.25·eps (Wong et al. 2020).
        longest = self.eps * (2 if self.nb_iter == 1 else 1)
        if not (smallest <= self.eps_iter <= longest if self.eps else 0 <= self.eps_iter <= 1):
            raise InputError(
                f"attack eps_iter {self.eps_iter * 255:g}: expected a step in (0, eps], or in "
                f"(0, 2 eps] for a single step; eps is {self.eps * 255:g} (0-255 scale)"
            )
        if not (0 <= self.momentum < 1 and 0 <= self.gradient_noise <= _LARGEST_NOISE):
            raise InputError(
                f"attack momentum {self.momentum:g}, gradient_noise {self.gradient_noise * 255:g}: "
                f"expected momentum in [0, 1) and gradient_noise in [0, {_LARGEST_NOISE * 255:g}] "
                "(0-255 scale)"
            )
        if self.gradient_noise and self.success == "any":
            raise InputError(
                "attack success=any needs the logits of each iterate, which are not computed with "
                "gradient_noise: use success=last"
            )
        known = ("engine", "target", "random_start")
        if not self.compiled and (ours := self.non_default_text(leaving_out=known)):
            raise InputError(
                f"attack engine=cleverhans does not support {ours}: Cleverhans has constant steps, "
                "the cross-entropy, the last iterate and float32 only"
            )

    @property
    def compiled(self) -> bool:
        """True unless Cleverhans' own loop crafts."""
        return self.engine == "loop"

    @property
    def draws_noise(self) -> bool:
        """True if the gradients are taken at noisy points."""
        return self.gradient_noise > 0

    @property
    def cost(self) -> Cost:
        """One gradient for each step."""
        return Cost(gradients=self.nb_iter)

    @property
    def iterates_are_results(self) -> bool:
        """True if the k-th iterate of a longer run is the result of the attack with nb_iter=k.

        It is not with gradient_noise or another schedule, which depend on the length of the run.
        With any setting that is not listed here, each count gets its own run.
        """
        harmless = ("loss", "target", "random_start", "dtype", "momentum")
        return not self.non_default_settings(leaving_out=harmless)

    def craft(self, logits: LogitsFunction, items: CraftItems) -> Crafted:
        """Craft a batch; see `Attack.craft`."""
        if self.compiled:
            return super().craft(logits, items)
        from alp_repro.attacks.cleverhans_engines import cleverhans_pgd

        return cleverhans_pgd(self, logits, items)

    def draw(self, items: CraftItems) -> Draws:
        """Draw the start, the target and the noise of each item."""
        draws = super().draw(items)
        if not self.gradient_noise:
            return draws
        noise = item_noise(tuple(items.images.shape[1:]), **items.random_keys)
        return draws._replace(noise=noise)

    def ascend(
        self, logits: LogitsFunction, images: tf.Tensor, labels: tf.Tensor, draws: Draws
    ) -> Crafted:
        """Return the end of one run; see `GradientAttack.ascend`.

        Raises:
          InputError: the attack has `gradient_noise` and `draws` has no noise.
        """
        run = PgdRun(logits, images, labels, self, draws)
        return run.result(run.advance(run.first(), self.nb_iter))


def pgd_step(
    points: tf.Tensor,
    gradient: tf.Tensor,
    *,
    images: tf.Tensor,
    eps: tf.Tensor | float,
    step_size: tf.Tensor | float,
) -> tf.Tensor:
    """Take a sign step of Cleverhans' `projected_gradient_descent`, clipped to the ball and [0, 1].

    Args:
      points, gradient, images: float32 of one shape; the ball lies around `images`.
      eps, step_size: input scale.
    """
    from cleverhans.tf2.utils import clip_eta, optimize_linear

    points = tf.clip_by_value(points + optimize_linear(gradient, step_size, np.inf), 0.0, 1.0)
    return tf.clip_by_value(images + clip_eta(points - images, np.inf, eps), 0.0, 1.0)


class Iterate(NamedTuple):
    """The state of a run. best: with success=any, the points of the largest margin and it."""

    iteration: tf.Tensor
    points: tf.Tensor
    direction: tf.Tensor
    nonfinite_gradients: tf.Tensor
    best: tuple[tf.Tensor, ...]


class PgdRun:
    """One restart of PGD on a batch, which can be advanced in parts."""

    def __init__(
        self,
        logits: LogitsFunction,
        images: tf.Tensor,
        labels: tf.Tensor,
        attack: PGD,
        draws: Draws,
    ) -> None:
        if attack.gradient_noise and draws.noise is None:
            raise InputError(
                "attack gradient_noise is for evaluations: expected 0 in a training attack"
            )
        self._logits, self._images, self._labels = logits, images, labels
        self._attack, self._draws = attack, draws
        self._iterations = tf.convert_to_tensor(attack.nb_iter)
        self._momentum = _of_items(attack.momentum, draws.smoothing)
        self._step_size = _of_items(attack.eps_iter, draws.step_share)
        self._value_and_gradient = loss_and_gradient(
            logits, labels, loss=attack.loss, targets=draws.targets
        )

    def first(self) -> Iterate:
        """Return the state before the first step."""
        starts, items = self._draws.starts, tf.shape(self._labels)
        best = (starts, tf.fill(items, -np.inf)) if self._attack.success == "any" else ()
        count = tf.zeros(items, tf.int32)
        return Iterate(tf.constant(0), starts, tf.zeros_like(starts), count, best)

    def advance(self, iterate: Iterate, until: tf.Tensor | int) -> Iterate:
        """Take steps up to this number of iterations."""
        reached = tf.while_loop(
            lambda *state: state[0] < until,
            lambda *state: tuple(self._step(Iterate(*state))),
            tuple(iterate),
            parallel_iterations=1,
        )
        return Iterate(*reached)

    def result(self, iterate: Iterate) -> Crafted:
        """Return the adversarial images."""
        points = iterate.points
        if self._attack.success == "any":
            points = self._better(iterate.best, points, self._logits(points))[0]
        return Crafted(tf.stop_gradient(points), iterate.nonfinite_gradients)

    def _step(self, iterate: Iterate) -> Iterate:
        attack, i = self._attack, iterate.iteration
        outputs, _, gradient = self._value_and_gradient(self._gradient_points(iterate))
        gradient, nonfinite = finite_gradient(gradient)
        if attack.momentum:
            gradient = self._momentum * iterate.direction + gradient
        size = self._step_size
        if attack.step_schedule == "linear":
            size = size * (1.0 - self._share_done(i))
        points = pgd_step(
            iterate.points, gradient, images=self._images, eps=attack.eps, step_size=size
        )
        best = iterate.best
        if attack.success == "any":
            best = self._better(best, iterate.points, outputs)
        count = iterate.nonfinite_gradients + tf.cast(nonfinite, tf.int32)
        return Iterate(i + 1, points, gradient, count, best)

    def _gradient_points(self, iterate: Iterate) -> tf.Tensor:
        """Return where the gradient is taken: at the iterate, plus the attack's noise."""
        noise, half_width = self._draws.noise, self._attack.gradient_noise
        if noise is None or not half_width:
            return iterate.points
        i = iterate.iteration
        width = half_width * tf.maximum(0.0, 1.0 - 2.0 * self._share_done(i))
        return iterate.points + _of_items(width, self._draws.smoothing) * noise(i)

    def _better(
        self, best: tuple[tf.Tensor, ...], points: tf.Tensor, outputs: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        margin = attack_loss("margin", labels=self._labels, logits=outputs)
        larger = margin > best[1]
        chosen = tf.where(larger[:, None, None, None], points, best[0])
        return chosen, tf.where(larger, margin, best[1])

    def _share_done(self, i: tf.Tensor) -> tf.Tensor:
        return tf.cast(i, tf.float32) / tf.cast(self._iterations, tf.float32)


def _of_items(value: tf.Tensor | float, share: tf.Tensor | None) -> tf.Tensor | float:
    """Return the value, or each item's share of it, to broadcast over pixels."""
    return value if share is None else value * share[:, None, None, None]
