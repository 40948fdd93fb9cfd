"""Logit pairing and adversarial training as a Keras model around any classifier."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alp_repro.attacks.base import Attack
from alp_repro.errors import InputError
from alp_repro.models.copies import logits_function
from alp_repro.training import averages, inputs
from alp_repro.training.crafter import Crafter
from alp_repro.training.loss_terms import forward, weighted_terms
from alp_repro.training.objective import Objective, resolve_objective
from alp_repro.training.passes import ShareLogits, averages_of, in_shares
from alp_repro.training.replicas import replica_slice, spans_machines
from alp_repro.training.seeds import NOISE, START, step_seed
from alp_repro.validation.plain_numbers import checked_seed, number

ACCURACIES = ("accuracy", "adversarial_accuracy")
# Losses of layers: kernel_regularizer, add_loss.
_OF_LAYERS = "regularization"


@keras.saving.register_keras_serializable(package="alp_repro")
class LogitPairing(keras.Model):
    """Wraps a classifier in a model that trains with logit pairing and adversarial images.

    `compile`, `fit`, `evaluate`, `predict` and `save` are Keras' own. The loss is the objective's,
    so `compile` takes none. Logs have `loss`, its terms, `accuracy` on the clean images and
    `adversarial_accuracy` on the crafted ones, where these are used. `evaluate` and
    `validation_data` use clean images and the cross-entropy; see `RobustAccuracy` for attacks.
    Losses that layers add are part of the loss, once per step: those of the last pass.

    Random numbers depend only on (seed, optimizer step), so that a resumed training gives the same
    model as one that was not interrupted.

    Attributes:
      classifier: the given model, whose weights are trained.
      objective: the loss that is minimised.

    Examples:
      >>> model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
      >>> images, labels = np.random.uniform(size=(6, 8, 8, 1)), np.arange(6) % 3
      >>> attack = alp_repro.PGD(eps=0.1, eps_iter=0.05, nb_iter=2)
      >>> robust = alp_repro.LogitPairing(model, penalties={"alp": 0.5}, attack=attack)
      >>> robust.compile(optimizer="adam", metrics=["accuracy"])
      >>> history = robust.fit(images, labels, epochs=2, verbose=0)
      >>> robust.classifier.save("robust.keras")
    """

    def __init__(  # noqa: PLR0913 - settings, each by its name
        self,
        model: keras.Model,
        *,
        penalties: Mapping[str, float] | None = None,
        attack: Attack | None = None,
        adversarial_fraction: float = 0.0,
        noise_stddev: float = 0.0,
        label_smoothing: float = 0.0,
        weight_decay: float = 0.0,
        seed: int = 0,
        objective: Objective | None = None,
        check_inputs: bool = True,
        name: str | None = None,
    ) -> None:
        """Wrap a classifier.

        Args:
          model: maps images in [0, 1], [batch, height, width, channels], to logits, [batch,
            classes]; any Keras model. Data augmentation belongs before it: inside, the clean and
            the adversarial image of a pair would be augmented differently.
          penalties: λ of each penalty by its name: "clp", "lsq", "alp".
          attack: crafts the adversarial images, on the [0, 1] scale.
          adversarial_fraction: f; the loss has (1 - f) · CE(clean) + f · CE(adversarial).
          noise_stddev: σ of the Gaussian noise on clean images, which are then clipped to [0, 1].
          label_smoothing: in [0, 1).
          weight_decay: weight of Σ ½‖w‖².
          seed: seeds the noise and the attack.
          objective: replaces all settings above except the seed, with further options.
          check_inputs: refuse pixels and labels out of range, which costs some time per batch; if
            XLA compiles the step, only arrays are checked.
          name: of the model.

        Raises:
          InputError: settings out of range or in conflict, or a model that ends in a softmax.
        """
        if not isinstance(model, keras.Model):
            raise InputError(f"model is a {type(model).__name__}: expected a Keras model")
        super().__init__(name=name, dtype=model.dtype_policy)
        fraction = number(adversarial_fraction, name="adversarial_fraction", low=0, high=1)
        settings = {
            "clean_weight": 1.0 - fraction,
            "adversarial_weight": fraction,
            "penalties": penalties or {},
            "attack": attack,
            "noise_stddev": noise_stddev,
            "label_smoothing": label_smoothing,
            "weight_decay": weight_decay,
        }
        self.objective = resolve_objective(settings, objective)
        self.seed = checked_seed(seed)
        self.check_inputs = check_inputs
        self.classifier = model
        self._logits = logits_function(model, training=True)
        self._crafter: Crafter | None = None
        self._classes: int | None = None
        names = ["loss", *self._accuracies(), *self.objective.terms, _OF_LAYERS]
        self._means = {each: keras.metrics.Mean(name=each) for each in names}
        self._layers_have_losses = False
        if model.built:
            self._prepare(getattr(model, "input_shape", None))

    def _accuracies(self) -> list[str]:
        used = (self.objective.uses_clean, self.objective.uses_adversarial)
        return [name for name, is_used in zip(ACCURACIES, used, strict=True) if is_used]

    def _prepare(self, input_shape: Any) -> None:
        """Check the outputs of a built classifier, and copy it if the attack needs a copy."""
        known = isinstance(input_shape, tuple) and None not in input_shape[1:]
        if self.check_inputs and self._classes is None and known:
            self._classes = inputs.classes_of(self.classifier, input_shape[1:])
        averages.check(self.classifier, self.objective)
        if self._crafter is None:
            self._crafter = Crafter(self.classifier, self.objective)
        self.built = True

    def build(self, input_shape: Any) -> None:
        """Build the classifier."""
        if not self.classifier.built:
            self.classifier.build(input_shape)
        self._prepare(tuple(input_shape))

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return float32 logits of images, floats in [0, 1] or uint8."""
        return logits_function(self.classifier, training=training)(inputs.unit_scale(images))

    def fit(
        self, x: Any = None, y: Any = None, batch_size: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Train as `keras.Model.fit` does, with its arguments.

        Raises:
          InputError: pixels or labels out of range, or an image without a partner.
        """
        if self.check_inputs:
            inputs.check_arrays(x, y, self._classes)
            size = inputs.batch_size_of(x, y, batch_size)
            inputs.check_batch_size(size, self.objective)
        with inputs.raising_input_errors():
            return super().fit(x, y, batch_size, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate on clean images as `keras.Model.evaluate` does; errors as of `fit`."""
        with inputs.raising_input_errors():
            return super().evaluate(*args, **kwargs)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The loss, its terms, the accuracies, and those of `compile`; reset each epoch."""
        compiled = self._compiled_metrics()
        hidden = {inner.name for metric in compiled for inner in getattr(metric, "metrics", ())}
        if not self._layers_have_losses:
            hidden.add(_OF_LAYERS)
        ours = [mean for name, mean in self._means.items() if name not in hidden]
        return ours + compiled

    def _compiled_metrics(self) -> list[keras.metrics.Metric]:
        known = {id(mean) for mean in self._means.values()}
        # Keras' own mean of the loss is never updated here.
        return [m for m in super().metrics if id(m) not in known and m.name != "loss"]

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Update the weights on a batch of uint8 or float images, integer or one-hot labels."""
        images, given_labels = inputs.images_and_labels(data)
        labels = self._checked_labels(images, given_labels)
        if self.check_inputs:
            inputs.check_batch_size(images.shape[0], self.objective)
        clean = self._noisy(inputs.unit_scale(images))
        adversarial = None
        if self.objective.crafts:
            assert self._crafter is not None
            step, seed = self.optimizer.iterations, self._seed(START)
            adversarial = self._crafter.craft(clean, labels, step=step, seed=seed)
        averages.update(self.classifier, self._logits, self.objective, clean, adversarial)
        variables = self.classifier.trainable_variables
        with tf.GradientTape() as tape:
            passed = in_shares(
                functools.partial(forward, self._logits, self.objective),
                (clean, adversarial),
                shares=self.objective.virtual_replicas,
                averages=averages_of(self.classifier),
            )
            terms = self._terms(labels, passed)
            loss = tf.add_n(list(terms.values()))
            # Gradients are summed over replicas, and each replica's loss is a mean.
            scaled = loss / tf.distribute.get_strategy().num_replicas_in_sync
            scaled = self.optimizer.scale_loss(scaled)
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        self._update_compiled(clean, given_labels, passed)
        return self._record(loss, terms, labels, passed)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Compute cross-entropy, accuracy and `compile`'s metrics on a batch of clean images."""
        images, given_labels = inputs.images_and_labels(data)
        labels = self._checked_labels(images, given_labels)
        logits = self(images, training=False)
        values = {
            "loss": tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits),
            "accuracy": keras.metrics.sparse_categorical_accuracy(labels, logits),
        }
        means = [self._means[name] for name in values if name in self._means]
        for mean in means:
            mean.update_state(values[mean.name])
        for metric in self._compiled_metrics():
            metric.update_state(given_labels, logits)
        return _results([*means, *self._compiled_metrics()])

    def _checked_labels(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Return integer labels; with `check_inputs`, check the batch's values in the graph."""
        if self.check_inputs:
            inputs.check_images(images)
        if getattr(self, "loss", None) is not None:
            raise InputError("compile(loss=...): expected no loss, since the objective defines it")
        if tf.distribute.get_strategy().num_replicas_in_sync == 1:  # with several, Keras builds it
            with tf.init_scope():
                if not self.classifier.built:
                    self.classifier(np.zeros((1, *images.shape[1:]), np.float32))
                self._prepare((None, *images.shape[1:]))
        classes = self._classes or labels.shape[-1]
        labels = inputs.integer_labels(labels, classes=classes)
        if self.check_inputs and self._classes and not self.jit_compile:
            with tf.control_dependencies(inputs.checked_in_graph(images, labels, self._classes)):
                return tf.identity(labels)
        return labels

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Build only what is not built yet: Keras would average a batch over machines and fail."""
        if not (self.classifier.built and all(m.built for m in self._compiled_metrics())):
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)
        if self.classifier.built:
            with self.distribute_strategy.scope():
                self._prepare(None)

    def _terms(self, labels: tf.Tensor, passed: list[ShareLogits]) -> dict[str, tf.Tensor]:
        """Return the weighted terms of the loss, without those of weight 0; means over shares."""
        terms = [
            weighted_terms(self.objective, part, share)
            for part, share in zip(tf.split(labels, len(passed)), passed, strict=True)
        ]
        means = {name: tf.add_n([each[name] for each in terms]) / len(terms) for name in terms[0]}
        if self.objective.weight_decay:
            squares = [tf.nn.l2_loss(v) for v in self.classifier.trainable_variables]
            means["weight_decay"] = self.objective.weight_decay * tf.add_n(squares)
        if self.classifier.losses:
            self._layers_have_losses = True
            means[_OF_LAYERS] = tf.add_n([tf.cast(v, tf.float32) for v in self.classifier.losses])
        return means

    def _update_compiled(
        self, clean: tf.Tensor, labels: tf.Tensor, passed: list[ShareLogits]
    ) -> None:
        """Update the metrics of `compile` on the clean images, with an extra pass if needed."""
        metrics = self._compiled_metrics()
        if not metrics:
            return
        if self.objective.uses_clean:
            logits = tf.concat([share.clean for share in passed], axis=0)
        else:
            logits = self(clean, training=False)
        for metric in metrics:
            metric.update_state(labels, logits)

    def _record(
        self,
        loss: tf.Tensor,
        terms: dict[str, tf.Tensor],
        labels: tf.Tensor,
        passed: list[ShareLogits],
    ) -> dict[str, tf.Tensor]:
        self._means["loss"].update_state(loss)
        for name, value in terms.items():
            self._means[name].update_state(value)
        logits = {
            "accuracy": [share.clean for share in passed],
            "adversarial_accuracy": [share.adversarial for share in passed],
        }
        for name, values in logits.items():
            if name in self._means:
                self._means[name].update_state(
                    keras.metrics.sparse_categorical_accuracy(labels, tf.concat(values, axis=0))
                )
        return _results(self.metrics)

    def _noisy(self, images: tf.Tensor) -> tf.Tensor:
        if not self.objective.noise_stddev:
            return images
        noise = replica_slice(
            lambda shape: tf.random.stateless_normal(
                shape, self._seed(NOISE), stddev=self.objective.noise_stddev, alg="philox"
            ),
            images,
        )
        noisy = images + noise
        return tf.clip_by_value(noisy, 0.0, 1.0) if self.objective.clip_noise else noisy

    def _seed(self, purpose: int) -> tf.Tensor:
        return step_seed(self.seed, purpose, self.optimizer.iterations)

    def get_config(self) -> dict[str, Any]:
        """Return the configuration for `from_config`, without weights."""
        return {
            "name": self.name,
            "model": keras.saving.serialize_keras_object(self.classifier),
            "objective": self.objective.to_json(),
            "seed": self.seed,
            "check_inputs": self.check_inputs,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> LogitPairing:
        """Return the model of a configuration that `get_config` returned."""
        model = keras.saving.deserialize_keras_object(
            config["model"], custom_objects=custom_objects
        )
        objective = Objective.from_json(config["objective"], source="the saved model's objective")
        return cls(
            model,
            objective=objective,
            seed=config["seed"],
            check_inputs=config["check_inputs"],
            name=config["name"],
        )


def _results(metrics: list[keras.metrics.Metric]) -> dict[str, tf.Tensor]:
    """Return the values of metrics by their names, as Keras expects them of a step."""
    found: dict[str, tf.Tensor] = {}
    for metric in metrics:
        value = metric.result()
        found |= value if isinstance(value, dict) else {metric.name: value}
    if spans_machines(tf.distribute.get_strategy()):
        # Keras takes the mean of several machines along the first axis.
        return {name: value[tf.newaxis] for name, value in found.items()}
    return found
