"""The penalties of logit pairing, pure functions of logits (Kannan et al. 2018; paper, section 2).

Every function takes float logits of shape [batch, classes] and returns a float32 scalar, the mean
over the batch. Weights (λ) are applied by the training step, never here. `PENALTIES`, at the end,
names them: what a recipe may weigh, a flag may choose and a log and a legend show comes from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import tensorflow as tf


def cross_entropy(
    labels: tf.Tensor, logits: tf.Tensor, *, label_smoothing: float = 0.0
) -> tf.Tensor:
    """Mean softmax cross-entropy of integer labels.

    CE = -1/n Σᵢ Σₖ q(i, k) log softmax(zᵢ)ₖ, where q is (1 - s) · onehot(yᵢ) + s / K.

    Args:
      labels: int [batch], in [0, classes).
      logits: float [batch, classes].
      label_smoothing: s in [0, 1); the paper uses 0.1 on Tiny ImageNet and 0 elsewhere.
    """
    import tensorflow as tf

    if not label_smoothing:
        return tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        )
    classes = logits.shape[-1]
    targets = tf.one_hot(labels, classes, dtype=logits.dtype)
    targets = (1.0 - label_smoothing) * targets + label_smoothing / classes
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits))


def clean_logit_pairing(logits: tf.Tensor) -> tf.Tensor:
    """CLP: mean squared difference between the logits of random pairs of clean images.

    CLP = mean over pairs (i, j) and classes of (z(xᵢ) - z(xⱼ))²; the pairs are the batch's first
    half against its second half (a shuffled batch makes them random); an odd last image is left
    out. A batch of one has no pair and a penalty of 0.
    """
    import tensorflow as tf

    pairs = tf.shape(logits)[0] // 2
    difference = logits[:pairs] - logits[pairs : 2 * pairs]
    count = tf.maximum(pairs, 1) * logits.shape[-1]
    return tf.reduce_sum(tf.square(difference)) / tf.cast(count, logits.dtype)


def logit_squeezing(logits: tf.Tensor) -> tf.Tensor:
    """LSQ: mean over the batch of the Euclidean norm ‖z(x)‖₂ (not squared).

    The gradient at z = 0 is taken as 0, where the norm itself has none.
    """
    import tensorflow as tf

    squared = tf.reduce_sum(tf.square(logits), axis=-1)
    positive = squared > 0
    # The inner `where` keeps the square root's infinite slope at 0 out of the gradient.
    norms = tf.where(positive, tf.sqrt(tf.where(positive, squared, 1.0)), 0.0)
    return tf.reduce_mean(norms)


def adversarial_logit_pairing(clean_logits: tf.Tensor, adversarial_logits: tf.Tensor) -> tf.Tensor:
    """ALP: mean squared difference between an image's clean and adversarial logits.

    ALP = mean over batch and classes of (z(x) - z(x_adv))², with gradient through both terms.
    """
    import tensorflow as tf

    return tf.reduce_mean(tf.square(clean_logits - adversarial_logits))


def clean_adversarial_divergence(
    clean_logits: tf.Tensor, adversarial_logits: tf.Tensor
) -> tf.Tensor:
    """TRADES: mean Kullback-Leibler divergence of the adversarial from the clean predictions.

    KL = mean over the batch of Σₖ p(x)ₖ · (log p(x)ₖ - log p(x_adv)ₖ), p = softmax(z), with
    gradient through both, as in the authors' code (yaodongyu/TRADES; Zhang et al. 2019,
    arXiv:1901.08573), beside the cross-entropy of clean images alone and `crafting` trades. Their
    weight, β or 1/λ, is 6 on CIFAR-10 (WRN-34-10, ten steps of 0.007, eps 0.031) and 1 on MNIST (a
    network of four convolutions, 40 steps of 0.01, eps 0.3), their numbers 84.92 and 99.48% clean
    accuracy, of which AutoAttack leaves 53.08 and 92.81% (their and fra31/auto-attack's README).
    """
    import tensorflow as tf

    clean = tf.nn.log_softmax(clean_logits)
    difference = clean - tf.nn.log_softmax(adversarial_logits)
    return tf.reduce_mean(tf.reduce_sum(tf.exp(clean) * difference, axis=-1))


@dataclasses.dataclass(frozen=True)
class Penalty:
    """A regulariser that a recipe may weigh.

    Attributes:
      label: its name in legends.
      function: one argument for each of `needs` to the penalty of a batch.
      needs: what it takes, in the order of its arguments: the logits of the clean or of the
        adversarial images, or the labels, int32 [batch].
      pairs: compares the first half of a batch with the second, so that two images are needed.
    """

    label: str
    function: Callable[..., tf.Tensor]
    needs: tuple[Literal["clean", "adversarial", "labels"], ...] = ("clean",)
    pairs: bool = False


# A name here is the penalty's in recipes, --regularizer, settings.json and training.csv.
PENALTIES: dict[str, Penalty] = {
    "clp": Penalty("CLP", clean_logit_pairing, pairs=True),
    "lsq": Penalty("LSQ", logit_squeezing),
    "alp": Penalty("ALP", adversarial_logit_pairing, needs=("clean", "adversarial")),
    "trades": Penalty("TRADES", clean_adversarial_divergence, needs=("clean", "adversarial")),
}
