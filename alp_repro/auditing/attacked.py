"""What an audit attacks and what it judges by: not always the model that was given.

A random model is judged by what most of many passes give, and attacked by gradients that are
averaged over passes. A model with a surrogate is attacked by the surrogate's gradients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from alp_repro.auditing import kinds, measurements
from alp_repro.classifiers import Classifier
from alp_repro.classifiers.decisions import crafted_on, voting
from alp_repro.evaluation.clean import batched, clean_logits
from alp_repro.evaluation.model_check import changes_each_time, why_not_deterministic

# Of an attack on a random model: AutoAttack's version "rand" averages over as many.
GRADIENT_PASSES = 20
# Of its verdicts, drawn anew: an attack has chosen its image by the passes that it saw.
VERDICT_PASSES = 100


@dataclasses.dataclass(frozen=True)
class Attacked:
    """The given classifier, and what stands for it.

    Attributes:
      given: the model as it was given, images to logits.
      model: what an attack that follows gradients sees.
      judge: what an attack without gradients sees; its predictions are the verdicts of both.
      verdicts: of a random model, counts how many of new passes give each class, images of any
        number to float32 [n, classes]; None: it is not random.
      logits: float32 [n, classes], the given model's, of one pass.
      changes: how far they move; see `measurements.randomness`.
      no_function: why attacks would mean nothing: its outputs depend on other images; None: they
        do not.
    """

    given: keras.Model
    model: keras.Model
    judge: keras.Model
    verdicts: Callable[[tf.Tensor], tf.Tensor] | None
    logits: np.ndarray
    changes: measurements.Numbers
    no_function: str | None = None

    @property
    def random(self) -> bool:
        """Whether the same images get other logits each time."""
        return self.verdicts is not None

    def fresh_counts(self, images: np.ndarray, *, batch_size: int) -> np.ndarray:
        """Return how many of new passes over a random model give each class, int [n, classes]."""
        assert self.verdicts is not None
        (counts,) = batched(self.verdicts, min(batch_size, len(images)), images)
        return counts.round().astype(np.int64)


def attacked(
    classifier: Classifier,
    surrogate: Classifier | None,
    images: np.ndarray,
    *,
    batch_size: int,
) -> Attacked:
    """Return what is attacked of a classifier.

    Args:
      classifier: the given one.
      surrogate: what gradients are taken of; None: of the classifier itself.
      images: float32 [n, height, width, channels] in [0, 1].
      batch_size: images in a batch.

    Raises:
      InputError: its logits are not finite; the surrogate has another number of classes.
    """
    given = classifier.model
    logits = clean_logits(given, images, batch_size=batch_size)
    changes = measurements.randomness(given, images, logits, batch_size=batch_size)
    moved = max(changes.values()) > kinds.RANDOM_CHANGE
    random = changes["repeated"] > kinds.RANDOM_CHANGE or changes_each_time(given, images)
    judge: keras.Model = given
    verdicts = None
    why: str | None = None
    if random:
        judge = voting(given, classes=classifier.classes, passes=GRADIENT_PASSES)
        counting = voting(given, classes=classifier.classes, passes=VERDICT_PASSES)
        # Of any number of images, which differs from attack to attack: traced once.
        signature = [tf.TensorSpec([None, *images.shape[1:]], tf.float32)]
        verdicts = tf.function(counting.votes, autograph=False, input_signature=signature)
    else:
        why = why_not_deterministic(given, images)
        if why is None and moved:
            why = "an image's logits depend on the other images of its batch"
    model = judge
    if surrogate is not None:
        shape = (images.shape[1], images.shape[2], images.shape[3])
        model = crafted_on(judge, surrogate.model, image_shape=shape)
    return Attacked(given, model, judge, verdicts, logits, changes, why)
