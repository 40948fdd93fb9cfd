"""What attacks that climb a loss from a starting point have in common."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING

from alp_repro.attacks.base import Attack, Crafted
from alp_repro.attacks.draws import Draws, Target, choose_targets, random_starts
from alp_repro.attacks.losses import Loss, least_classes

if TYPE_CHECKING:
    import tensorflow as tf

    from alp_repro.attacks.batches import CraftItems
    from alp_repro.models.copies import LogitsFunction


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """What attacks that climb a loss from a starting point have in common.

    Attributes:
      loss: what is maximised; see `losses`.
      target: `none` (the true label's loss grows); `random`: drawn once for an image and kept over
        its restarts, may equal the true class; `least_likely` of the clean prediction; `each`:
        restart r aims at the wrong class of rank r (modulo their number) of the clean prediction.
        An image is broken when its prediction is not the true label, whatever the target.
      random_start: uniform in the ball, clipped to [0, 1]; otherwise the clean image.
    """

    loss: Loss = "cross_entropy"
    target: Target = "none"
    random_start: bool = True

    @property
    def least_classes(self) -> int:
        """What the loss needs."""
        return least_classes(self.loss, targeted=self.target != "none")

    @property
    def draws_noise(self) -> bool:
        """Whether it needs `Draws.noise`."""
        return False

    def craft(self, logits: LogitsFunction, items: CraftItems) -> Crafted:
        """Craft a batch; see `Attack.craft`."""
        return self.ascend(logits, items.images, items.labels, self.draw(items))

    @abc.abstractmethod
    def ascend(
        self, logits: LogitsFunction, images: tf.Tensor, labels: tf.Tensor, draws: Draws
    ) -> Crafted:
        """Return the end of one run from what was drawn, with no gradient through the crafting.

        Args:
          logits: the crafting model.
          images: float32 [batch, height, width, channels] in [0, 1].
          labels: int [batch].
          draws: where each item starts and aims.

        Returns:
          Images inside the ball up to rounding and inside [0, 1].
        """

    def draw(self, items: CraftItems) -> Draws:
        """Draw what a run needs, for each item."""
        starts, of_items = items.images, items.what_draws_depend_on
        if self.random_start:
            starts = random_starts(items.images, eps=self.eps, **of_items)
        return Draws(starts, aims(self.target, items))


def aims(target: Target, items: CraftItems) -> tf.Tensor | None:
    """Return the class that each item aims at; see `choose_targets`."""
    if target == "none":
        return None
    return choose_targets(
        target,
        clean_logits=items.clean_logits(items.images),
        labels=items.labels,
        **items.what_draws_depend_on,
    )
