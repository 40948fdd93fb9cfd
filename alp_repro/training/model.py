"""One Keras model whose `train_step` covers every table row."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from alp_repro import losses
from alp_repro.data.specs import dataset_spec
from alp_repro.errors import InputError
from alp_repro.losses import PENALTIES
from alp_repro.model_copies import crafting_copy, float32_copy, logits_function
from alp_repro.models import build_model
from alp_repro.training.adam import FusedAdam
from alp_repro.training.crafter import Crafter
from alp_repro.training.order import unit_scale
from alp_repro.training.passes import Passed, halves, in_shares
from alp_repro.training.recipe import Recipe
from alp_repro.training.replicas import replica_slice, spans_machines
from alp_repro.training.seeds import NOISE, START, step_seed

ACCURACIES = ("accuracy", "adversarial_accuracy")


class LogitPairingModel(keras.Model):
    """A classifier with the training step of a recipe: noise, crafting, penalties.

    Random numbers depend on (recipe.seed, optimizer step) alone, so that a training that was
    resumed is the training that was not interrupted.
    """

    def __init__(self, classifier: keras.Model, recipe: Recipe, **kwargs: Any) -> None:
        """Wraps a classifier that maps [0, 1] images to logits."""
        super().__init__(**kwargs)
        self.classifier = classifier
        self._logits = logits_function(classifier, training=True)
        self.recipe = recipe
        self._crafter = Crafter(classifier, recipe)
        if recipe.statistics_passes and not _averages(classifier):
            raise InputError(
                f"recipe statistics_passes: {classifier.name} has no batch norm whose averages "
                "they would move"
            )
        self._means = {name: keras.metrics.Mean(name=name) for name in _logged(recipe)}

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Float32 logits of float images."""
        return logits_function(self.classifier, training=training)(images)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The loss, its terms and the accuracies; reset each epoch."""
        return list(self._means.values())

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One update on a batch (uint8 or float images, int labels)."""
        images, labels = data
        clean = self._noisy(unit_scale(images))
        adversarial = (
            self._crafter.craft(
                clean, labels, step=self.optimizer.iterations, seed=self._seed(START)
            )
            if self.recipe.crafts
            else None
        )
        variables = self.classifier.trainable_variables
        averages = _averages(self.classifier)
        if self.recipe.statistics_passes:
            in_shares(
                self._move_averages,
                (clean, adversarial),
                shares=self.recipe.virtual_replicas,
                averages=averages,
            )
        adversarial = adversarial if self.recipe.uses_adversarial else None
        with tf.GradientTape() as tape:
            passed = in_shares(
                self._forward,
                (clean, adversarial),
                shares=self.recipe.virtual_replicas,
                averages=averages,
            )
            terms = self._terms(labels, passed)
            loss = tf.add_n(list(terms.values()))
            # Gradients are summed over replicas, and each replica's loss is a mean.
            scaled = loss / tf.distribute.get_strategy().num_replicas_in_sync
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        return self._record(loss, terms, labels, passed)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Nothing is left to build: Keras would first average a batch over machines, and fails."""

    def _forward(self, clean: tf.Tensor, adversarial: tf.Tensor | None) -> Passed:
        """The passes of one share of a batch."""
        recipe = self.recipe
        if recipe.joint_batch and adversarial is not None:
            both = self._logits(tf.concat([clean, adversarial], axis=0))
            halves_of_both = tf.split(both, 2)
            return Passed(halves_of_both[0], halves_of_both[1], {})
        clean_logits = self._logits(clean) if recipe.uses_clean else None
        alone = {}
        for name in recipe.penalties if recipe.separate_passes else ():
            penalty = PENALTIES[name]
            if penalty.needs == ("clean",):
                parts = halves(clean) if penalty.pairs else (clean,)
                alone[name] = tf.concat([self._logits(part) for part in parts], axis=0)
        return Passed(
            clean_logits, None if adversarial is None else self._logits(adversarial), alone
        )

    def _move_averages(self, clean: tf.Tensor, adversarial: tf.Tensor) -> Passed:
        """The passes of the authors' graph that the loss of this recipe does not make.

        Two of the clean images, one of each half of the pairs, and one of an adversarial batch that
        no loss uses; here it is the batch of the loss where that has one.
        """
        alone = self.recipe.penalties if self.recipe.separate_passes else {}
        further = [clean] * (2 - self.recipe.uses_clean - ("lsq" in alone))
        further += [] if "clp" in alone else halves(clean)
        for images in (*further, adversarial):
            self._logits(images)
        return Passed(None, None, {})

    def _terms(self, labels: tf.Tensor, passed: list[Passed]) -> dict[str, tf.Tensor]:
        """Weighted terms of the total loss, those with weight 0 left out; the mean over shares."""
        terms = [
            self._terms_of_share(part, share)
            for part, share in zip(tf.split(labels, len(passed)), passed, strict=True)
        ]
        means = {name: tf.add_n([each[name] for each in terms]) / len(terms) for name in terms[0]}
        if self.recipe.weight_decay:
            squares = [tf.nn.l2_loss(v) for v in self.classifier.trainable_variables]
            means["weight_decay"] = self.recipe.weight_decay * tf.add_n(squares)
        return means

    def _terms_of_share(self, labels: tf.Tensor, share: Passed) -> dict[str, tf.Tensor]:
        recipe, smoothing = self.recipe, self.recipe.label_smoothing
        terms = {}
        if recipe.clean_weight:
            value = losses.cross_entropy(labels, share.clean, label_smoothing=smoothing)
            terms["clean_ce"] = recipe.clean_weight * value
        if recipe.adversarial_weight:
            value = losses.cross_entropy(labels, share.adversarial, label_smoothing=smoothing)
            terms["adversarial_ce"] = recipe.adversarial_weight * value
        of_kind = {"clean": share.clean, "adversarial": share.adversarial}
        for name, weight in recipe.penalties.items():
            penalty = PENALTIES[name]
            logits = [share.alone.get(name, of_kind[kind]) for kind in penalty.needs]
            terms[name] = weight * penalty.function(*logits)
        return terms

    def _record(
        self,
        loss: tf.Tensor,
        terms: dict[str, tf.Tensor],
        labels: tf.Tensor,
        passed: list[Passed],
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
        results = {metric.name: metric.result() for metric in self.metrics}
        if spans_machines(tf.distribute.get_strategy()):
            # Keras takes the mean of several machines along the first axis.
            return {name: value[tf.newaxis] for name, value in results.items()}
        return results

    def _noisy(self, images: tf.Tensor) -> tf.Tensor:
        if not self.recipe.noise_stddev:
            return images
        noise = replica_slice(
            lambda shape: tf.random.stateless_normal(
                shape, self._seed(NOISE), stddev=self.recipe.noise_stddev, alg="philox"
            ),
            images,
        )
        noisy = images + noise
        return tf.clip_by_value(noisy, 0.0, 1.0) if self.recipe.clip_noise else noisy

    def _seed(self, purpose: int) -> tf.Tensor:
        return step_seed(self.recipe.seed, purpose, self.optimizer.iterations)


def _averages(classifier: keras.Model) -> list[keras.Variable]:
    """Batch norm's moving ones."""
    return [v for v in classifier.non_trainable_variables if "float" in v.dtype]


def _logged(recipe: Recipe) -> list[str]:
    """What a training of the recipe logs, and the columns of its training.csv."""
    found = {
        "loss": True,
        "accuracy": recipe.uses_clean,
        "adversarial_accuracy": recipe.uses_adversarial,
        "clean_ce": recipe.clean_weight > 0,
        "adversarial_ce": recipe.adversarial_weight > 0,
        **dict.fromkeys(recipe.penalties, True),
        "weight_decay": recipe.weight_decay > 0,
    }
    return [name for name, is_logged in found.items() if is_logged]


def compiled_model(
    recipe: Recipe, *, jit_compile: bool = False, init_from: keras.Model | None = None
) -> LogitPairingModel:
    """The model of a recipe with its optimizer.

    Args:
      recipe: what to train.
      jit_compile: XLA; right on a GPU, three times slower for convolutions on a CPU.
      init_from: a model to go on from, which is copied; None: fresh weights.

    Raises:
      InputError: `init_from` is no such model as the recipe has.
    """
    spec = dataset_spec(recipe.dataset)
    classifier = build_model(
        recipe.model,
        image_shape=spec.image_shape,
        num_classes=spec.num_classes,
        width=recipe.model_width,
        weight_seed=recipe.seed,
    )
    if init_from is not None:
        classifier = _copy_to_start_from(init_from, classifier)
    if recipe.dtype == "bfloat16":
        classifier = crafting_copy(classifier, "mixed_bfloat16")
    model = LogitPairingModel(classifier, recipe)
    model.build((None, *spec.image_shape))
    optimizer = FusedAdam(
        recipe.learning_rate,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=recipe.adam_epsilon,
        use_ema=bool(recipe.average_decay),
        ema_momentum=recipe.average_decay or None,
    )
    optimizer.build(classifier.trainable_variables)
    model.compile(optimizer=optimizer, jit_compile=jit_compile)
    return model


def _copy_to_start_from(source: keras.Model, fresh: keras.Model) -> keras.Model:
    """A copy of `source`, which may differ from `fresh` in layers without weights alone.

    An imported model may rescale its pixels, which a fresh one does not.
    """
    if source.output_shape[1:] != fresh.output_shape[1:]:
        raise InputError(
            f"the model to start from gives {source.output_shape[1:]} logits, "
            f"{fresh.output_shape[1:]} are needed: take one that was trained on the same classes"
        )
    shapes = [tuple(w.shape) for w in fresh.weights]
    if shapes != [tuple(w.shape) for w in source.weights]:
        raise InputError(
            f"the model to start from is no {fresh.name} of this width: {source.count_params()} "
            f"parameters, {fresh.count_params()} needed"
        )
    return float32_copy(source)
