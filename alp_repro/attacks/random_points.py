"""Random points of the ball: what chance breaks, which every attack has to exceed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from alp_repro.attacks.base import Attack, Cost, Crafted
from alp_repro.attacks.draws import random_starts

if TYPE_CHECKING:
    import tensorflow as tf

    from alp_repro.attacks.batches import CraftItems
    from alp_repro.models.copies import LogitsFunction
else:
    from alp_repro.lazy_tensorflow import tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomPoints(Attack):
    """A random point of the ball for each restart, whatever the model says.

    Uniform points are the starts of `PGD` of the same seed: on a model without a gradient its steps
    lead nowhere, and these are what it tries.

    Attributes:
      corners: every pixel moves by eps, up or down at random, in place of uniformly.
    """

    corners: bool = False

    name: ClassVar[str] = "random_points"
    needs_gradient: ClassVar[bool] = False

    @property
    def cost(self) -> Cost:
        """Nothing but the verdict, which no attack counts."""
        return Cost()

    def craft(self, logits: LogitsFunction, items: CraftItems) -> Crafted:
        """Draw a point for each item; see `Attack.craft`."""
        points = random_starts(items.images, eps=self.eps, **items.random_keys)
        if self.corners:
            corner = items.images + self.eps * tf.sign(points - items.images)
            points = tf.clip_by_value(corner, 0.0, 1.0)
        return Crafted(points, tf.zeros_like(items.labels))
