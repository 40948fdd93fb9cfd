"""The model under audit, and what stands in for it under attack.

A random model is classified by the class that most of many passes give, and attacked by gradients
that are averaged over passes. A model with a surrogate is attacked by the surrogate's gradients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from alp_repro.auditing import measurements, specs
from alp_repro.classifiers import Classifier
from alp_repro.classifiers.decisions import crafted_on, voting
from alp_repro.evaluation.clean import batched, clean_logits
from alp_repro.evaluation.model_check import changes_each_time, why_not_deterministic

# Passes that the gradient on a random model is averaged over, as in AutoAttack's version "rand".
GRADIENT_PASSES = 20
# Fresh passes behind each verdict: an attack has chosen its image by the passes that it saw.
VERDICT_PASSES = 100


@dataclasses.dataclass(frozen=True)
class ModelUnderAudit:
    """The given classifier, and what stands in for it.

    Attributes:
      given: the model as it was given, images to logits.
      white_box: what an attack that follows gradients sees; its predictions are the black box's.
      black_box: what an attack without gradients sees.
      fresh_votes: of a random model, counts how many fresh passes give each class, any number of
        images to float32 [n, classes]; None: it is not random.
      logits: float32 [n, classes], the given model's, of one pass.
      changes: how far the logits move; see `measurements.randomness`.
      not_attackable: why attacks would mean nothing: an image's logits depend on other images;
        None: they do not.
    """

    given: keras.Model
    white_box: keras.Model
    black_box: keras.Model
    fresh_votes: Callable[[tf.Tensor], tf.Tensor] | None
    logits: np.ndarray
    changes: measurements.Numbers
    not_attackable: str | None = None

    @property
    def random(self) -> bool:
        """True where the same images get other logits each time."""
        return self.fresh_votes is not None

    def fresh_counts(self, images: np.ndarray, *, batch_size: int) -> np.ndarray:
        """Return how many fresh passes over a random model give each class, int [n, classes]."""
        assert self.fresh_votes is not None
        (counts,) = batched(self.fresh_votes, min(batch_size, len(images)), images)
        return counts.round().astype(np.int64)


def model_under_audit(
    classifier: Classifier,
    surrogate: Classifier | None,
    images: np.ndarray,
    *,
    batch_size: int,
) -> ModelUnderAudit:
    """Return a classifier with what stands in for it under attack.

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
    black_box: keras.Model = given
    fresh_votes = None
    why: str | None = None
    if changes["repeated"] > specs.RANDOM_CHANGE or changes_each_time(given, images):
        black_box = voting(given, classes=classifier.classes, passes=GRADIENT_PASSES)
        counting = voting(given, classes=classifier.classes, passes=VERDICT_PASSES)
        # Of any number of images, which differs from attack to attack: traced once.
        signature = [tf.TensorSpec([None, *images.shape[1:]], tf.float32)]
        fresh_votes = tf.function(counting.votes, autograph=False, input_signature=signature)
    else:
        why = why_not_deterministic(given, images)
        if why is None and changes["batch"] > specs.RANDOM_CHANGE:
            why = "an image's logits depend on the other images of its batch"
    white_box = black_box
    if surrogate is not None:
        shape = (images.shape[1], images.shape[2], images.shape[3])
        white_box = crafted_on(black_box, surrogate.model, image_shape=shape)
    return ModelUnderAudit(given, white_box, black_box, fresh_votes, logits, changes, why)
