"""Models whose gradients and whose predictions have different sources.

Each returns logits for an attack to climb, of which the largest is that of the predicted class. So
an attack knows at every point whether it has succeeded, by the prediction that counts.

- `crafted_on`: a surrogate's logits and gradients, the predictions of a model that may have no
  gradient (BPDA of Athalye et al. 2018 if the two share all but one step, else a transfer attack).
- `voting`: the mean logits of several passes over a random model, whose gradient is that of the
  expectation (Athalye et al. 2018), and the class that most of these passes predict.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alp_repro.errors import InputError
from alp_repro.models.copies import float32_model, logits_function
from alp_repro.models.probes import probe_images

_LEAD = 0.05  # the lead of a prediction that the guide is undecided about, of the logits' range
_LARGEST_LEAD = 1.0  # a masked class (-1e9) must not widen the range


def crafted_on(
    model: keras.Model, surrogate: keras.Model, *, image_shape: tuple[int, int, int]
) -> keras.Model:
    """Return a model with the predictions of one model and the gradients of another.

    Args:
      model: float32 images in [0, 1] to logits [n, classes]; needs no gradient.
      surrogate: the same, differentiable.
      image_shape: height, width, channels.

    Raises:
      InputError: they have different numbers of classes, or one cannot be copied in float32.
    """
    probes = tf.constant(probe_images(image_shape))
    classes = [logits_function(one)(probes).shape[1] for one in (model, surrogate)]
    if classes[0] != classes[1]:
        raise InputError(
            f"the surrogate has {classes[1]} classes: expected {classes[0]}, as the model has"
        )
    return CraftedOn(float32_model(model), float32_model(surrogate), classes=classes[0])


def voting(model: keras.Model, *, classes: int, passes: int) -> Voting:
    """Return a model that predicts the majority class of several passes over a random model.

    Args:
      model: float32 images in [0, 1] to random logits [n, classes].
      classes: the number of classes.
      passes: over each image in each call; the gradient is averaged over them too.

    Raises:
      InputError: it cannot be copied in float32.
    """
    return Voting(float32_model(model), classes=classes, passes=passes)


class CraftedOn(keras.Model):
    """The predictions of one model with the gradients of another; see `crafted_on`."""

    def __init__(self, judge: keras.Model, surrogate: keras.Model, *, classes: int) -> None:
        super().__init__(name=f"{judge.name}_on_{surrogate.name}", dtype="float32")
        self.judge, self.surrogate = judge, surrogate
        self._classes = classes

    @property
    def output_shape(self) -> tuple[None, int]:
        """(None, classes), as of a functional model."""
        return None, self._classes

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the surrogate's logits, with the model's prediction on top; ignore `training`."""
        judged = tf.stop_gradient(logits_function(self.judge)(images))
        finite = tf.reduce_all(tf.math.is_finite(judged), axis=1, keepdims=True)
        guide = tf.where(finite, logits_function(self.surrogate)(images), np.nan)
        return _deciding(guide, tf.argmax(judged, axis=1, output_type=tf.int32))


class Voting(keras.Model):
    """The majority class of several passes over a random model; see `voting`."""

    def __init__(self, model: keras.Model, *, classes: int, passes: int) -> None:
        super().__init__(name=model.name, dtype="float32")
        self.drawn = model
        self._classes, self.passes = classes, passes

    @property
    def output_shape(self) -> tuple[None, int]:
        """(None, classes), as of a functional model."""
        return None, self._classes

    def get_config(self) -> dict[str, Any]:
        """Return what distinguishes this function from its model's, for `models.identity`."""
        return {"passes": self.passes}

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the mean logits of the passes, with the majority class on top."""
        total, counts = self._passed(images)
        mean = total / self.passes
        # The mean decides between classes with equally many passes.
        decision = tf.argmax(counts + 0.5 * tf.nn.softmax(mean), axis=1, output_type=tf.int32)
        return _deciding(mean, decision)

    def votes(self, images: tf.Tensor) -> tf.Tensor:
        """Return how many of the passes predict each class, float32 [n, classes]."""
        return self._passed(images)[1]

    def _passed(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the sums of the logits and of the predictions over separate passes.

        In one larger batch, the passes could share random numbers that are drawn once per batch.
        """
        logits = logits_function(self.drawn)
        images = tf.convert_to_tensor(images)

        def once(i: tf.Tensor, total: tf.Tensor, counts: tf.Tensor) -> tuple[tf.Tensor, ...]:
            outputs = tf.ensure_shape(logits(images), [images.shape[0], self._classes])
            chosen = tf.one_hot(tf.argmax(outputs, axis=1), self._classes)
            return i + 1, total + outputs, counts + chosen

        nothing = tf.zeros([tf.shape(images)[0], self._classes])
        nothing = tf.ensure_shape(nothing, [images.shape[0], self._classes])
        _, total, counts = tf.while_loop(
            lambda i, *_: i < self.passes,
            once,
            (tf.constant(0), nothing, nothing),
            parallel_iterations=1,
            maximum_iterations=self.passes,
        )
        return total, tf.stop_gradient(counts)


def _deciding(guide: tf.Tensor, decision: tf.Tensor) -> tf.Tensor:
    """Return the guide's logits and gradients with the predicted class on top.

    The lead of the predicted class falls with the guide's own margin for it, and stays above 0
    where the guide would predict another class: the more confident the guide, the closer the
    prediction seems to flip, so that losses rank points as the guide does.
    """
    guide -= tf.stop_gradient(tf.reduce_max(guide, axis=1, keepdims=True))  # room for the lead
    chosen = tf.one_hot(decision, guide.shape[1], on_value=True, off_value=False)
    own = tf.reduce_max(tf.where(chosen, guide, guide.dtype.min), axis=1, keepdims=True)
    best_other = tf.reduce_max(tf.where(chosen, guide.dtype.min, guide), axis=1, keepdims=True)
    behind = best_other - own
    lead = tf.clip_by_value(
        -_LEAD * tf.reduce_min(guide, axis=1, keepdims=True), 1e-6, _LARGEST_LEAD
    )
    gap = tf.where(behind <= 0, lead - behind, lead / (1 + tf.maximum(behind, 0) / lead))
    return _like(guide, tf.where(chosen, best_other + gap, guide))


@tf.custom_gradient
def _like(guide: tf.Tensor, values: tf.Tensor) -> Any:
    """Return exactly these values, with the gradient of the guide."""
    return tf.identity(values), lambda upstream: (upstream, tf.zeros_like(upstream))
