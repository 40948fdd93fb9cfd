"""The base class of attacks that climb a loss from a starting point."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING

from alp_repro.attacks.base import Attack, Crafted
from alp_repro.attacks.draws import Draws, Target, choose_targets, random_starts
from alp_repro.attacks.losses import Loss, min_classes

if TYPE_CHECKING:
    import tensorflow as tf

    from alp_repro.attacks.batches import CraftItems
    from alp_repro.models.copies import LogitsFunction


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """The base class of attacks that climb a loss from a starting point.

    Attributes:
      loss: the loss to maximise; see `losses`.
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
    def min_classes(self) -> int:
        """The number of classes that the loss needs."""
        return min_classes(self.loss, targeted=self.target != "none")

    @property
    def draws_noise(self) -> bool:
        """True if the attack needs `Draws.noise`."""
        return False

    def craft(self, logits: LogitsFunction, items: CraftItems) -> Crafted:
        """Craft a batch; see `Attack.craft`."""
        return self.ascend(logits, items.images, items.labels, self.draw(items))

    @abc.abstractmethod
    def ascend(
        self, logits: LogitsFunction, images: tf.Tensor, labels: tf.Tensor, draws: Draws
    ) -> Crafted:
        """Run once from the given draws, with no gradient through the crafting.

        Args:
          logits: the crafting model.
          images: float32 [batch, height, width, channels] in [0, 1].
          labels: int [batch].
          draws: where each item starts and aims.

        Returns:
          Images inside the ball up to rounding and inside [0, 1].
        """

    def draw(self, items: CraftItems) -> Draws:
        """Draw the start and the target of each item."""
        starts, of_items = items.images, items.random_keys
        if self.random_start:
            starts = random_starts(items.images, eps=self.eps, **of_items)
        return Draws(starts, item_targets(self.target, items))


def item_targets(target: Target, items: CraftItems) -> tf.Tensor | None:
    """Return the class that each item aims at; see `choose_targets`."""
    if target == "none":
        return None
    return choose_targets(
        target,
        clean_logits=items.clean_logits(items.images),
        labels=items.labels,
        **items.random_keys,
    )
