"""The Square attack in the L∞ ball: random search over squares that needs only logits.

Andriushchenko, Croce, Flammarion & Hein 2020, "Square Attack: a query-efficient black-box
adversarial attack via random search", Algorithms 1 and 2. It needs no gradient, so that masked
gradients do not weaken it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from alp_repro import stateless_random
from alp_repro.attacks.apgd import linf_bounds
from alp_repro.attacks.ascent import item_targets
from alp_repro.attacks.base import ALWAYS_STORED, STEPS, Attack, Cost, Crafted
from alp_repro.attacks.draws import Target, item_seed
from alp_repro.attacks.losses import Loss, attack_loss, min_classes, misclassified
from alp_repro.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

    from alp_repro.attacks.batches import CraftItems
    from alp_repro.models.copies import LogitsFunction
else:
    from alp_repro.lazy_tensorflow import tf

# The share of the pixels in the first square (the authors' for L∞ on small images), and the
# iterations, of 10,000, at which it is halved; they are scaled to other numbers of iterations.
FIRST_SHARE = 0.8
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_REFERENCE_ITERATIONS = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search over squares, which needs no gradient (Andriushchenko et al. 2020).

    Attributes:
      nb_iter: queries of one restart, including the start.
      loss: the loss to maximise; the authors use the margin.
      target: see `GradientAttack`.

    Examples:
      >>> attack = alp_repro.Square(eps=8 / 255, nb_iter=5000)
      >>> attack.needs_gradient, attack.cost.queries
      (False, 5000)
    """

    nb_iter: int = dataclasses.field(default=1000, metadata=STEPS)
    loss: Loss = "margin"
    target: Target = "none"

    name: ClassVar[str] = "square"
    tensor_settings: ClassVar[tuple[str, ...]] = ("eps", "nb_iter")
    needs_gradient: ClassVar[bool] = False

    @property
    def cost(self) -> Cost:
        """The queries of one restart."""
        return Cost(queries=self.nb_iter)

    @property
    def min_classes(self) -> int:
        """The number of classes that the loss needs."""
        return min_classes(self.loss, targeted=self.target != "none")

    def extra_stored_settings(self) -> Mapping[str, Any]:
        """Return the settings that every stored result has, `eps_iter` among them."""
        return {**ALWAYS_STORED, "eps_iter": self.eps}

    def craft(self, logits: LogitsFunction, items: CraftItems) -> Crafted:
        """Craft a batch; see `Attack.craft`."""
        found = square_attack(
            logits,
            items.images,
            items.labels,
            eps=self.eps,
            nb_iter=self.nb_iter,
            loss=self.loss,
            targets=item_targets(self.target, items),
            **items.random_keys,
        )
        return Crafted(found, tf.zeros_like(items.labels))


class _State(NamedTuple):
    queries: tf.Tensor
    images: tf.Tensor  # the best so far
    loss: tf.Tensor
    broken: tf.Tensor


def square_side(
    iteration: tf.Tensor | int, nb_iter: tf.Tensor | int, *, height: int, width: int
) -> tf.Tensor:
    """Return the side of an iteration's square, int32: √(share · height · width), at least 1."""
    of_reference = iteration * _REFERENCE_ITERATIONS // nb_iter
    halved = tf.reduce_sum(tf.cast(of_reference > tf.constant(HALVINGS), tf.float32))
    side = tf.round(tf.sqrt(FIRST_SHARE * 0.5**halved * height * width))
    return tf.clip_by_value(tf.cast(side, tf.int32), 1, min(height, width))


def square_attack(
    logits: LogitsFunction,
    images: tf.Tensor,
    labels: tf.Tensor,
    *,
    eps: tf.Tensor | float,
    nb_iter: tf.Tensor | int,
    image_index: tf.Tensor,
    restart: tf.Tensor,
    seed: tf.Tensor,
    loss: str = "margin",
    targets: tf.Tensor | None = None,
) -> tf.Tensor:
    """Return adversarial images from `nb_iter` queries per image; the paper's loss is the margin.

    The start has vertical stripes of ±ε; each further query sets one random square to +ε or -ε, by
    a random sign for each channel, and is accepted if the loss is higher. The search for an image
    stops when it is broken. Random numbers depend only on (seed, restart, image index).

    Args:
      logits: float32 images to logits; called `nb_iter` times, or until every image is broken.
      images: float32 [batch, height, width, channels] in [0, 1].
      labels, image_index, restart: int [batch].
      eps: input scale.
      nb_iter: queries, including the start.
      seed: int scalar below 2³¹.
      loss: a key of `losses.LOSSES`.
      targets: int [batch], -1: none.

    Returns:
      Float32 images inside the ball, in float32 arithmetic, and inside [0, 1].

    Raises:
      InputError: fewer than one query.
    """
    if isinstance(nb_iter, int) and nb_iter < 1:
        raise InputError(f"Square nb_iter {nb_iter}: expected 1 or more")
    height, width, channels = images.shape[1:]
    lower, upper = linf_bounds(images, eps=eps)
    nb_iter = tf.convert_to_tensor(nb_iter, tf.int32)
    words = _item_words(width * channels + 2 + channels, image_index, restart, seed)
    stripes, of_items = words[:, : width * channels], words[:, width * channels :]

    def visited(points: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = logits(points)
        values = attack_loss(loss, labels=labels, logits=outputs, targets=targets)
        values = tf.where(tf.math.is_nan(values), -np.inf, tf.cast(values, tf.float32))
        return values, misclassified(outputs, labels)

    def candidate(state: _State) -> tf.Tensor:
        # Words of an item and words of a step, combined by XOR: see `item_noise`.
        of_step = stateless_random.bits(
            [2 + channels], item_seed(seed, state.queries, tf.constant(-3))
        )
        drawn = tf.bitwise.bitwise_xor(of_items, of_step)
        side = square_side(state.queries, nb_iter, height=height, width=width)
        inside = _squares(drawn[:, :2], side, height=height, width=width)
        ends = tf.where(_signs(drawn[:, 2:])[:, None, None, :], upper, lower)
        return tf.where(inside[..., None], ends, state.images)

    def body(state: _State) -> tuple[_State]:
        points = candidate(state)
        values, wrong = visited(points)
        better = ~state.broken & (wrong | (values > state.loss))
        return (
            _State(
                queries=state.queries + 1,
                images=tf.where(better[:, None, None, None], points, state.images),
                loss=tf.where(better, values, state.loss),
                broken=state.broken | wrong,
            ),
        )

    columns = tf.reshape(_signs(stripes), [-1, 1, width, channels])
    starts = tf.where(columns, upper, lower)
    first = _State(tf.constant(1), starts, *visited(starts))
    (last,) = tf.while_loop(
        lambda state: (state.queries < nb_iter) & ~tf.reduce_all(state.broken),
        body,
        (first,),
        parallel_iterations=1,
    )
    return tf.stop_gradient(last.images)


def _item_words(
    count: int, image_index: tf.Tensor, restart: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """Return uniform uint32 words [batch, count]; each row depends only on its item's indices."""
    return stateless_random.bits_of_each(item_seed(seed, image_index, restart), [count])


def _signs(words: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.right_shift(words, 31) > 0


def _squares(words: tf.Tensor, side: tf.Tensor, *, height: int, width: int) -> tf.Tensor:
    """Return bool [batch, height, width], True inside each item's square of this side."""
    places = stateless_random.uniform_from_bits(words)
    room = tf.cast(tf.stack([height - side + 1, width - side + 1]), tf.float32)
    corner = tf.cast(tf.floor(places * room), tf.int32)
    rows, columns = tf.range(height), tf.range(width)
    in_rows = (rows >= corner[:, :1]) & (rows < corner[:, :1] + side)
    in_columns = (columns >= corner[:, 1:]) & (columns < corner[:, 1:] + side)
    return in_rows[:, :, None] & in_columns[:, None, :]
