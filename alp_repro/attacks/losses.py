"""Per-example losses that a gradient attack maximises.

Every untargeted loss is a function of ``labels`` (int32 ``[b]``) and ``logits`` (``[b, k]``) that
returns float32 ``[b]``, as Cleverhans' ``loss_fn(labels=, logits=)`` expects. The
targeted forms also take ``targets`` (int32 ``[b]``) and are *maximised* too. Where a target is
the true class, the targeted margin and the targeted DLR are zero and so is their gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

from alp_repro.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

    from alp_repro.models.copies import LogitsFunction

Loss = Literal["cross_entropy", "margin", "dlr", "mixed"]
_LEAST_SPREAD = 1e-12  # keeps the DLR's denominator positive when the largest logits tie


class AttackLoss(NamedTuple):
    """The two forms of an attack loss: away from the true class, and towards another."""

    untargeted: Callable[..., tf.Tensor]
    targeted: Callable[..., tf.Tensor]


def cross_entropy(*, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Compute the cross-entropy of the true class: ``-log softmax(z)[y]``.

    The loss of the paper's evaluation attack (Madry et al. 2018). labels: int32 ``[b]``;
    logits: ``[b, k]``; returns float32 ``[b]``.
    """
    import tensorflow as tf

    return tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=labels, logits=tf.cast(logits, tf.float32)
    )


def margin(*, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Compute the best other logit minus the true one: ``max_{i≠y} z_i - z_y``.

    Positive when misclassified.

    Carlini & Wagner 2017, f6 without its threshold, for the true class and maximised. labels:
    int32 ``[b]``; logits: ``[b, k]``; returns float32 ``[b]``.
    """
    import tensorflow as tf

    logits = tf.cast(logits, tf.float32)
    is_true = tf.one_hot(labels, logits.shape[-1], on_value=True, off_value=False)
    best_other = tf.reduce_max(tf.where(is_true, logits.dtype.min, logits), axis=-1)
    return best_other - _logit_of(labels, logits)


def dlr(*, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Compute the difference of logits ratio: ``(max_{i≠y} z_i - z_y) / (z_π1 - z_π3)``.

    π sorts the logits in descending order. The ratio is the margin without the scale of the logits,
    which logit squeezing shrinks. Croce & Hein 2020, eq. 6.
    labels: int32 ``[b]``; logits: ``[b, k]``, k ≥ 3, InputError otherwise; returns float32 ``[b]``.
    """
    import tensorflow as tf

    logits = tf.cast(logits, tf.float32)
    largest = _largest(3, logits, loss="dlr")
    spread = tf.maximum(largest[:, 0] - largest[:, 2], _LEAST_SPREAD)
    return margin(labels=labels, logits=logits) / spread


def targeted_cross_entropy(
    *, labels: tf.Tensor, logits: tf.Tensor, targets: tf.Tensor
) -> tf.Tensor:
    """Compute the log-probability of the target: ``log softmax(z)[t]``, minus its cross-entropy.

    Kurakin et al. 2017, "Adversarial machine learning at scale", the target class methods. labels
    are not used; targets: int32 ``[b]``; logits: ``[b, k]``; returns float32 ``[b]``.
    """
    del labels
    return -cross_entropy(labels=targets, logits=logits)


def targeted_margin(*, labels: tf.Tensor, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Compute the target logit minus the true one: ``z_t - z_y``.

    The numerator of Croce & Hein 2020, eq. 7. labels, targets: int32 ``[b]``; logits: ``[b, k]``;
    returns float32 ``[b]``.
    """
    import tensorflow as tf

    logits = tf.cast(logits, tf.float32)
    return _logit_of(targets, logits) - _logit_of(labels, logits)


def dlr_targeted(*, labels: tf.Tensor, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Compute the targeted DLR: ``(z_t - z_y) / (z_π1 - (z_π3 + z_π4) / 2)``.

    Croce & Hein 2020, eq. 7. labels, targets: int32 ``[b]``; logits: ``[b, k]``, k ≥ 4, InputError
    otherwise; returns float32 ``[b]``.
    """
    import tensorflow as tf

    logits = tf.cast(logits, tf.float32)
    largest = _largest(4, logits, loss="targeted dlr")
    spread = largest[:, 0] - 0.5 * (largest[:, 2] + largest[:, 3])
    difference = targeted_margin(labels=labels, logits=logits, targets=targets)
    return difference / tf.maximum(spread, _LEAST_SPREAD)


LOSSES: dict[str, AttackLoss] = {
    "cross_entropy": AttackLoss(cross_entropy, targeted_cross_entropy),
    "margin": AttackLoss(margin, targeted_margin),
    "dlr": AttackLoss(dlr, dlr_targeted),
    # For an attack that has a target in some restarts: on adversarially trained models each form is
    # the stronger of its kind (docs/performance.md).
    "mixed": AttackLoss(cross_entropy, targeted_margin),
}


def attack_loss(
    name: str, *, labels: tf.Tensor, logits: tf.Tensor, targets: tf.Tensor | None = None
) -> tf.Tensor:
    """Compute the named loss to maximise: off the true class, or towards ``targets`` if given.

    name: a key of ``LOSSES``, InputError otherwise; labels, targets: int32 ``[b]``, where a target
    of -1 means none; logits: ``[b, k]``; returns float32 ``[b]``.
    """
    import tensorflow as tf

    if name not in LOSSES:
        raise InputError(f"attack loss {name!r}: expected one of {', '.join(LOSSES)}")
    if targets is None:
        return LOSSES[name].untargeted(labels=labels, logits=logits)
    towards = LOSSES[name].targeted(labels=labels, logits=logits, targets=tf.maximum(targets, 0))
    return tf.where(targets < 0, LOSSES[name].untargeted(labels=labels, logits=logits), towards)


def min_classes(name: Loss, *, targeted: bool) -> int:
    """Return the fewest classes for which a loss is defined."""
    return {"dlr": 4 if targeted else 3}.get(name, 2)


def loss_and_gradient(
    logits: LogitsFunction, labels: tf.Tensor, *, loss: Loss, targets: tf.Tensor | None = None
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Return a function of images that computes logits, attack losses and their gradients.

    In a graph the function is not inlined. Where it is inlined in a loop, TensorFlow's oneDNN pass
    may visit a max-pool's gradient before the max-pool, depending on memory addresses, and then
    leaves it to a far slower kernel: in two processes of three, seen with TensorFlow 2.21
    (docs/performance.md).

    Args:
      logits: the crafting model.
      labels: int [batch].
      loss: a key of `LOSSES`.
      targets: int [batch] for a targeted attack, -1 for an item without a target.
    """
    import tensorflow as tf

    def value_and_gradient(points: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            outputs = logits(points)
            values = attack_loss(loss, labels=labels, logits=outputs, targets=targets)
        return outputs, values, tape.gradient(values, points)

    if not tf.inside_function():
        return value_and_gradient
    return tf.function(
        value_and_gradient, experimental_attributes={"_noinline": True}, autograph=False
    )


def finite_gradient(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a gradient with 0 in place of non-finite entries, and which items had any.

    One branch of a model may have no gradient at a point (√0) where the rest has one. gradient:
    ``[b, ...]``; returns the same shape and bool ``[b]``.
    """
    import tensorflow as tf

    finite = tf.math.is_finite(gradient)
    whole = tf.reduce_all(finite, axis=list(range(1, gradient.shape.rank)))
    return tf.where(finite, gradient, tf.zeros_like(gradient)), ~whole


def misclassified(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return bool ``[b]``: a wrong class has the largest logit, and all logits are finite."""
    import tensorflow as tf

    wrong = tf.argmax(logits, axis=-1, output_type=tf.int32) != tf.cast(labels, tf.int32)
    return wrong & tf.reduce_all(tf.math.is_finite(logits), axis=-1)


def per_image(values: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Reshape ``[b]`` to broadcast over the pixels of ``images``."""
    import tensorflow as tf

    return tf.reshape(values, [-1] + [1] * (images.shape.rank - 1))


def _logit_of(classes: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    return tf.gather(logits, classes, axis=-1, batch_dims=1)


def _largest(count: int, logits: tf.Tensor, *, loss: str) -> tf.Tensor:
    import tensorflow as tf

    classes = logits.shape[-1]
    if classes < count:
        raise InputError(f"attack loss {loss}: expected {count} or more classes, got {classes}")
    return tf.math.top_k(logits, k=count).values
