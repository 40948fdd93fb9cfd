"""PGD whose restarts take turns of three: what each finds, the others pass over."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from alp_repro.attacks.draws import Draws, choose_targets
from alp_repro.attacks.pgd import PGD
from alp_repro.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

    from alp_repro.attacks.batches import CraftItems
else:
    from alp_repro.lazy_tensorflow import tf

_TURN = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turns(PGD):
    """PGD in turns of three restarts.

    The first of a turn is aimed at another wrong class, from the closest on. The second has no
    target, the third is aimed like the first; both take steps of their own size, and neither
    gradient_noise nor momentum.

    Attributes:
      own_step: what the steps of the second and third are, as a share of eps_iter.
    """

    own_step: float = 0.125

    name: ClassVar[str] = "turns"
    of_the_paper: ClassVar[bool] = False

    def check(self) -> None:
        """Refuse settings out of range, or that contradict each other."""
        super().check()
        if not 0 < self.own_step <= 1:
            raise InputError(f"attack own_step {self.own_step:g}: a share in (0, 1] is needed")
        if self.target != "none":
            raise InputError(f"attack turns: target={self.target} is not its own: it has targets")

    def draw(self, items: CraftItems) -> Draws:
        """Draw what a run needs, for each item."""
        turn, place = items.restart // _TURN, items.restart % _TURN
        aims = choose_targets(
            "each",
            clean_logits=items.clean_logits(items.images),
            labels=items.labels,
            **{**items.what_draws_depend_on, "restart": turn},
        )
        first = place == 0
        return (
            super()
            .draw(items)
            ._replace(
                targets=tf.where(place == 1, -1, aims),
                step_share=tf.where(first, 1.0, self.own_step),
                smoothing=tf.where(first, 1.0, 0.0),
            )
        )
