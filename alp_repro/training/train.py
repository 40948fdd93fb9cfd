"""Training with logit pairing: one Keras model whose `train_step` covers every table row."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alp_repro import attacks, losses, runs, stateless_random
from alp_repro.attacks.programs import attack_program
from alp_repro.training.augmentation import augment_batch
from alp_repro.data.load import Images, dataset_spec
from alp_repro.errors import InputError
from alp_repro.models import build_model
from alp_repro.training.recipe import Recipe
from alp_repro.evaluation.restarts import exact_bounds, float32_model

# Stateless random numbers of one step are told apart by these.
_NOISE, _START, _ORDER, _AUGMENT, _TARGET = range(5)
ENOUGH_SECONDS = 10.0
ACCURACIES = ("accuracy", "adversarial_accuracy")
TERMS = ("clean_ce", "adversarial_ce", "clp", "lsq", "alp", "weight_decay")


class LogitPairingModel(keras.Model):
    """A classifier with the training step of a recipe: noise, crafting, penalties.

    Random numbers depend on (recipe.seed, optimizer step) alone, so that a training that was
    resumed is the training that was not interrupted.
    """

    def __init__(self, classifier: keras.Model, recipe: Recipe, **kwargs: Any) -> None:
        """Wraps a classifier that maps [0, 1] images to logits."""
        super().__init__(**kwargs)
        self.classifier = classifier
        self._logits = attacks.logits_function(classifier, training=True)
        self.recipe = recipe
        self._crafter = _Crafter(classifier, recipe)
        self._means = {
            name: keras.metrics.Mean(name=name)
            for name in ("loss", *ACCURACIES, *TERMS)
            if name == "loss" or _is_used(name, recipe)
        }

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Float32 logits of float images."""
        return attacks.logits_function(self.classifier, training=training)(images)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The loss, its terms and the accuracies; reset each epoch."""
        return list(self._means.values())

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One update on a batch (uint8 or float images, int labels)."""
        images, labels = data
        clean = self._noisy(_unit_scale(images))
        adversarial = (
            self._crafter.craft(
                clean, labels, step=self.optimizer.iterations, seed=self._seed(_START)
            )
            if self.recipe.uses_adversarial
            else None
        )
        variables = self.classifier.trainable_variables
        with tf.GradientTape() as tape:
            clean_logits, adversarial_logits = self._forward(clean, adversarial)
            terms = self._terms(labels, clean_logits, adversarial_logits)
            loss = tf.add_n(list(terms.values()))
            # Gradients are summed over replicas, and each replica's loss is a mean.
            scaled = loss / tf.distribute.get_strategy().num_replicas_in_sync
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        return self._record(loss, terms, labels, clean_logits, adversarial_logits)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Nothing is left to build: Keras would first average a batch over machines, and fails."""

    def _forward(
        self, clean: tf.Tensor, adversarial: tf.Tensor | None
    ) -> tuple[tf.Tensor | None, tf.Tensor | None]:
        if adversarial is None:
            return self._logits(clean), None
        if self.recipe.joint_batch:
            both = self._logits(tf.concat([clean, adversarial], axis=0))
            halves = tf.split(both, 2)
            return halves[0], halves[1]
        clean_logits = self._logits(clean) if self.recipe.uses_clean else None
        return clean_logits, self._logits(adversarial)

    def _terms(
        self, labels: tf.Tensor, clean: tf.Tensor | None, adversarial: tf.Tensor | None
    ) -> dict[str, tf.Tensor]:
        """Weighted terms of the total loss, those with weight 0 left out."""
        recipe, smoothing = self.recipe, self.recipe.label_smoothing
        terms = {}
        if recipe.clean_weight:
            value = losses.cross_entropy(labels, clean, label_smoothing=smoothing)
            terms["clean_ce"] = recipe.clean_weight * value
        if recipe.adversarial_weight:
            value = losses.cross_entropy(labels, adversarial, label_smoothing=smoothing)
            terms["adversarial_ce"] = recipe.adversarial_weight * value
        if recipe.clp:
            terms["clp"] = recipe.clp * losses.clean_logit_pairing(clean)
        if recipe.lsq:
            terms["lsq"] = recipe.lsq * losses.logit_squeezing(clean)
        if recipe.alp:
            terms["alp"] = recipe.alp * losses.adversarial_logit_pairing(clean, adversarial)
        if recipe.weight_decay:
            squares = [tf.nn.l2_loss(v) for v in self.classifier.trainable_variables]
            terms["weight_decay"] = recipe.weight_decay * tf.add_n(squares)
        return terms

    def _record(
        self,
        loss: tf.Tensor,
        terms: dict[str, tf.Tensor],
        labels: tf.Tensor,
        clean: tf.Tensor | None,
        adversarial: tf.Tensor | None,
    ) -> dict[str, tf.Tensor]:
        self._means["loss"].update_state(loss)
        for name, value in terms.items():
            self._means[name].update_state(value)
        logits = {"accuracy": clean, "adversarial_accuracy": adversarial}
        for name, value in logits.items():
            if value is not None and name in self._means:
                self._means[name].update_state(
                    keras.metrics.sparse_categorical_accuracy(labels, value)
                )
        results = {metric.name: metric.result() for metric in self.metrics}
        if _spans_machines(tf.distribute.get_strategy()):
            # Keras takes the mean of several machines along the first axis.
            return {name: value[tf.newaxis] for name, value in results.items()}
        return results

    def _noisy(self, images: tf.Tensor) -> tf.Tensor:
        if not self.recipe.noise_stddev:
            return images
        noise = _replica_slice(
            lambda shape: tf.random.stateless_normal(
                shape, self._seed(_NOISE), stddev=self.recipe.noise_stddev, alg="philox"
            ),
            images,
        )
        noisy = images + noise
        return tf.clip_by_value(noisy, 0.0, 1.0) if self.recipe.clip_noise else noisy

    def _seed(self, purpose: int) -> tf.Tensor:
        return step_seed(self.recipe.seed, purpose, self.optimizer.iterations)


class _Crafter:
    """Crafts the adversarial images of a batch; no Keras object, so that no copy is saved.

    A copy of the model is needed for another dtype, and where crafting in training mode would
    move the averages of the model's batch norm.
    """

    def __init__(self, classifier: keras.Model, recipe: Recipe) -> None:
        self._recipe, self._classifier, self._copy = recipe, classifier, None
        if recipe.attack is None:
            return
        moves_averages = recipe.attack_batch_statistics and classifier.non_trainable_variables
        if moves_averages or not recipe.dtype == recipe.attack.dtype == "float32":
            self._copy = attacks.crafting_copy(classifier, recipe.attack.dtype)

    def craft(
        self, images: tf.Tensor, labels: tf.Tensor, *, step: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        attack = self._recipe.attack
        assert attack is not None
        if self._copy is not None:
            attacks.copy_weights(self._classifier, self._copy)
        logits = attacks.logits_function(
            self._copy or self._classifier, training=self._recipe.attack_batch_statistics
        )
        scale = tf.constant(1.0)
        if self._recipe.attack_warmup_steps:
            scale = tf.cast(step + 1, tf.float32) / self._recipe.attack_warmup_steps
            scale = tf.minimum(scale, 1.0)
        starts = images
        if attack.random_start:
            noise = _replica_slice(
                lambda shape: stateless_random.uniform(shape, seed, low=-1.0, high=1.0), images
            )
            starts = tf.clip_by_value(images + attack.eps * scale * noise, 0.0, 1.0)
        return attacks.craft(
            logits, images, labels, attack=attack, starts=starts,
            sizes=attacks.Sizes(attack.eps * scale, attack.eps_iter * scale, attack.nb_iter),
            targets=self._targets(images, labels, seed),
        )  # fmt: skip

    def _targets(self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor | None:
        attack = self._recipe.attack
        assert attack is not None
        if attack.target == "none":
            return None
        positions = _replica_slice(lambda shape: tf.range(shape[0]), images)
        clean_logits = attacks.logits_function(self._classifier, training=False)(images)
        return attacks.choose_targets(
            attack.target, clean_logits=clean_logits, labels=labels, image_index=positions,
            restart=tf.zeros_like(positions), seed=tf.cast(seed[1] % (2**31), tf.int32),
        )  # fmt: skip


def step_seed(seed: int, purpose: int, step: tf.Tensor) -> tf.Tensor:
    """Stateless seed, int64 [2], of one purpose at one step."""
    return tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64) * 8 + purpose])


def _replica_slice(draw: Any, images: tf.Tensor) -> tf.Tensor:
    """This replica's rows of what the whole batch draws, so that replicas change no result."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas == 1:
        return draw(tf.shape(images))
    rows = tf.shape(images)[0]
    context = tf.distribute.get_replica_context()
    everything = draw(tf.concat([[rows * replicas], tf.shape(images)[1:]], axis=0))
    return everything[context.replica_id_in_sync_group * rows :][:rows]


def _unit_scale(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(images, tf.float32) / 255.0 if images.dtype == tf.uint8 else images


def _is_used(name: str, recipe: Recipe) -> bool:
    weights = {
        "clean_ce": recipe.clean_weight,
        "adversarial_ce": recipe.adversarial_weight,
        "accuracy": recipe.uses_clean,
        "adversarial_accuracy": recipe.uses_adversarial,
    }
    return bool(weights.get(name, getattr(recipe, name, 0.0)))


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
        recipe.model, image_shape=spec.image_shape, num_classes=spec.num_classes,
        width=recipe.model_width, weight_seed=recipe.seed,
    )  # fmt: skip
    if init_from is not None:
        classifier = _copy_to_start_from(init_from, classifier)
    if recipe.dtype == "bfloat16":
        float32 = classifier
        classifier = attacks.crafting_copy(float32, "mixed_bfloat16")
        classifier.set_weights(float32.get_weights())
    model = LogitPairingModel(classifier, recipe)
    model.build((None, *spec.image_shape))
    optimizer = keras.optimizers.Adam(
        recipe.learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-6,
        use_ema=bool(recipe.average_decay), ema_momentum=recipe.average_decay or None,
    )  # fmt: skip
    optimizer.build(classifier.trainable_variables)
    model.compile(optimizer=optimizer, jit_compile=jit_compile)
    return model


class EpochOrder(keras.callbacks.Callback):
    """The training set in an order that depends on (seed, epoch) alone.

    The data set reads the epoch when Keras begins to iterate over it, so a resumed training sees
    the order it would have seen.
    """

    def __init__(self, data: Images, recipe: Recipe, *, replicas: int = 1) -> None:
        """Takes uint8 images and labels, which stay in memory once.

        With several replicas each takes an equal share of every batch; up to `replicas` - 1 images
        of an epoch's partial batch that cannot be shared are left out.

        Raises:
          InputError: the batch size is no multiple of the replicas.
        """
        super().__init__()
        if recipe.batch_size % replicas:
            raise InputError(
                f"a global batch of {recipe.batch_size} cannot be shared by {replicas} replicas: "
                f"--batch_size must be a multiple of {replicas}"
            )
        self._epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._images = tf.constant(data.images)
        self._labels = tf.constant(data.labels, tf.int32)
        self._recipe = recipe
        self._count = len(data.labels) - len(data.labels) % recipe.batch_size % replicas

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves on to the order of this epoch."""
        self._epoch.assign(epoch)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-self._count // self._recipe.batch_size)

    def dataset(self) -> tf.data.Dataset:
        """The batches (images, labels) of the current epoch; the last may be partial."""
        return (
            tf.data.Dataset.from_tensors(0)
            .flat_map(lambda _: self._batches(self._epoch))
            .apply(tf.data.experimental.assert_cardinality(self.steps))
            .prefetch(2)
        )

    def shares(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """This machine's shares of the batches of all epochs from the current one on.

        For `distribute_datasets_from_function`: the replicas here take them in turn. Every machine
        makes the whole batch, so that augmentation draws what it would draw on one device.
        """
        replicas = context.num_replicas_in_sync
        local = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local

        def split(*batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
            shapes = (tf.concat([[replicas, -1], tf.shape(part)[1:]], axis=0) for part in batch)
            shares = map(tf.reshape, batch, shapes)
            return tuple(share[first : first + local] for share in shares)

        return (
            tf.data.Dataset.from_tensors(0)
            .flat_map(lambda _: tf.data.Dataset.range(self._epoch, tf.int64.max))
            .flat_map(self._batches)
            .map(split)
            .unbatch()
            # Keras counts the steps; TensorFlow need not ask all replicas whether data is left.
            .apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
            .prefetch(2)
        )

    def _batches(self, epoch: tf.Tensor) -> tf.data.Dataset:
        def gather(position: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            images = tf.gather(self._images, indices)
            if self._recipe.augment:
                seed = step_seed(self._recipe.seed, _AUGMENT, epoch * self.steps + position)
                images = augment_batch(_unit_scale(images), seed=seed)
            return images, tf.gather(self._labels, indices)

        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(self._labels)), step_seed(self._recipe.seed, _ORDER, epoch), alg="philox"
        )
        batches = tf.data.Dataset.from_tensor_slices(order[: self._count])
        batches = batches.batch(self._recipe.batch_size).enumerate()
        return batches.map(gather, num_parallel_calls=tf.data.AUTOTUNE)


class StopWhenNotFinite(keras.callbacks.Callback):
    """Ends the training with the epoch and step at which the loss became NaN or infinite.

    What the last finished epoch saved is kept.
    """

    def __init__(self) -> None:
        """Starts at epoch 0."""
        super().__init__()
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Raises InputError on a loss that is not finite."""
        loss = (logs or {}).get("loss")
        if loss is not None and not np.isfinite(loss):
            raise InputError(
                f"the loss is {float(loss)} at epoch {self._epoch + 1}, step {batch + 1}: lower "
                "the learning rate or a penalty's weight; the last good checkpoint is kept"
            )


class _SaveRawWeights(keras.callbacks.Callback):
    """Saves the classifier after the last epoch, before Keras puts averages in its place."""

    def __init__(self, run: runs.RunDir, recipe: Recipe) -> None:
        super().__init__()
        self._run, self._recipe = run, recipe

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch + 1 == self._recipe.epochs:
            save_classifier(self._run.model, self.model.classifier, self._recipe)


def save_classifier(path: Path, classifier: keras.Model, recipe: Recipe) -> None:
    """Writes a trained classifier as a float32 model, rounded where the recipe wants it so."""
    if recipe.round_weights or recipe.dtype != "float32":
        classifier = attacks.float32_copy(classifier)
    if recipe.round_weights:
        classifier.set_weights(
            [tf.cast(tf.cast(w, tf.bfloat16), tf.float32) for w in classifier.get_weights()]
        )
    runs.save_model(path, classifier)


class WarnAtChance(keras.callbacks.Callback):
    """Says at once that an epoch ended with an accuracy of a model that has learned nothing.

    Logit squeezing can drive all logits to zero in the first epoch, where a training stays.
    """

    def __init__(self, num_classes: int) -> None:
        """Takes the number of classes, one over which is chance."""
        super().__init__()
        self._threshold = 1.5 / num_classes

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Prints a line if the epoch's best accuracy is near chance."""
        found = [logs[name] for name in ACCURACIES if name in logs] if logs else []
        if found and max(found) < self._threshold:
            print(
                f"epoch {epoch + 1}: training accuracy {max(found):.1%} is that of chance; the "
                "logits may have collapsed for good: another --seed may not",
                flush=True,
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Watch:
    """Test images on which a training's clean and adversarial accuracy are logged now and then.

    Attributes:
      images: uint8 or float [n, height, width, channels], attacked as one batch.
      labels: int [n].
      attack: one restart of it is run.
      every: epochs between two looks; the last epoch is always one.
    """

    images: np.ndarray
    labels: np.ndarray
    attack: attacks.Attack
    every: int


class LogTestAccuracy(keras.callbacks.Callback):
    """Adds `test_accuracy` and `test_adversarial_accuracy` to the logs of each epoch; NaN between.

    The authors' own training loop logs both.
    """

    def __init__(self, watch: Watch, recipe: Recipe) -> None:
        """Keeps the images on the [0, 1] scale."""
        super().__init__()
        images = watch.images.astype(np.float32)
        self._images = images / np.float32(255) if watch.images.dtype == np.uint8 else images
        self._labels = np.asarray(watch.labels, np.int32)
        self._watch, self._recipe = watch, recipe
        self._float32: keras.Model | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the epochs that are due."""
        assert logs is not None
        due = (epoch + 1) % self._watch.every == 0 or epoch + 1 == self._recipe.epochs
        clean, adversarial = self._accuracies() if due else (np.nan, np.nan)
        logs |= {"test_accuracy": clean, "test_adversarial_accuracy": adversarial}

    def _accuracies(self) -> tuple[float, float]:
        model = self._classifier()
        attack, images = self._watch.attack, self._images
        count = len(images)
        program = attack_program(
            model, attack=attack, image_shape=images.shape[1:], batch_size=count,
            seed=self._recipe.seed,
        )  # fmt: skip
        outcome = program(
            images, self._labels, np.arange(count), np.zeros(count, np.int32),
            *exact_bounds(images, attack.eps),
        )  # fmt: skip
        logits = attacks.logits_function(model)(tf.constant(images)).numpy()
        clean = float(np.mean(np.argmax(logits, axis=1) == self._labels))
        return clean, float(1.0 - np.mean(outcome.broken))

    def _classifier(self) -> keras.Model:
        """The classifier with its weights of now, in float32."""
        classifier = self.model.classifier
        if self._float32 is None:
            self._float32 = float32_model(classifier)
        elif self._float32 is not classifier:
            self._float32.set_weights(classifier.get_weights())
        return self._float32


class Backup(keras.callbacks.Callback):
    """The whole state of an unfinished training after each epoch, in one file that is replaced.

    Keras' BackupAndRestore writes weights and epoch in place, one after the other: a process that
    is killed there leaves a state that cannot be read, or weights that belong to another epoch.
    """

    def __init__(self, run: runs.RunDir) -> None:
        """Keeps the state in the run's backup folder."""
        super().__init__()
        self._path = run.backup / "latest.weights.h5"

    def restore(self, model: LogitPairingModel, *, steps_per_epoch: int) -> int:
        """Loads what an earlier training left into a compiled model; returns the epochs done.

        Raises:
          InputError: the file is damaged.
        """
        if not self._path.exists():
            return 0
        try:
            model.load_weights(self._path)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{self._path} is damaged ({str(error).strip().splitlines()[0]}): remove it to "
                "train from the beginning"
            ) from error
        return int(model.optimizer.iterations.numpy()) // steps_per_epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves weights, optimizer and averages."""
        runs.write_atomically(self._path, self.model.save_weights)

    def remove(self) -> None:
        """Removes the state of a training that is finished."""
        shutil.rmtree(self._path.parent, ignore_errors=True)


def learning_rate_at(recipe: Recipe, epoch: int) -> float:
    """The recipe's rate, divided by 10 at each of its drops (epochs counted from 0)."""
    return recipe.learning_rate * 0.1 ** sum(epoch >= drop for drop in recipe.learning_rate_drops)


def train(
    recipe: Recipe,
    run: runs.RunDir,
    data: Images,
    *,
    strategy: tf.distribute.Strategy | None = None,
    init_from: keras.Model | None = None,
    watch: Watch | None = None,
    jit_compile: bool = False,
    tensorboard: bool = False,
    verbose: int | str = "auto",
    details: dict[str, Any] | None = None,
) -> keras.Model:
    """Trains the model of a recipe into a run folder, or goes on where an earlier call was stopped.

    A finished run is returned as it is. Progress is kept at each epoch's end.

    Args:
      recipe: what to train.
      run: its folder.
      data: the training set; its first `recipe.train_images` are used.
      strategy: of `tf.distribute`; the batch size is the global one. Pairs of CLP are formed, and
        batch statistics taken, within a replica. Of several machines, which must share the run
        folder, only the chief writes.
      init_from: a model of the same architecture to go on from, with its own scale of pixels.
      watch: test images whose accuracies are logged beside those of the training.
      jit_compile: see `compiled_model`.
      tensorboard: writes event files to the run folder.
      verbose: Keras' progress bar.
      details: further provenance (flags, scale, data source).

    Raises:
      InputError: the folder belongs to another recipe or cannot be written to, the data set is too
        small, the batch does not divide over the replicas, or the loss is not finite.
    """
    strategy = strategy or tf.distribute.get_strategy()
    chief = is_chief(strategy)
    if recipe.attack is not None and recipe.attack.dtype != "float32" and _spans_machines(strategy):
        raise InputError(
            f"a training attack in {recipe.attack.dtype} works on one machine only: TensorFlow "
            "passes no such weights between machines; use float32"
        )
    settings = _settings(recipe, init_from)
    _check_owner(run, settings)
    if run.finished:
        return runs.load_model(run.model)
    data = _first(data, recipe.train_images)
    order = EpochOrder(data, recipe, replicas=strategy.num_replicas_in_sync)
    several = strategy.num_replicas_in_sync > 1
    with strategy.scope():
        model = compiled_model(recipe, jit_compile=jit_compile, init_from=init_from)
    if chief and not run.settings.exists():
        runs.write_json(run.settings, settings)  # now that nothing more can be refused
    backup = Backup(run)
    callbacks = [
        order,
        StopWhenNotFinite(),
        WarnAtChance(model.classifier.output_shape[-1]),
        keras.callbacks.LearningRateScheduler(lambda epoch, _: learning_rate_at(recipe, epoch)),
    ]
    if watch is not None and chief:
        callbacks.append(LogTestAccuracy(watch, recipe))  # before the log, which it adds to
    if chief:
        log = keras.callbacks.CSVLogger(str(run.log), append=True)
        callbacks += [_SaveRawWeights(run, recipe), log, backup]
    if tensorboard and chief:
        callbacks.append(keras.callbacks.TensorBoard(str(run.path / "tensorboard")))
    started = time.monotonic()
    model.fit(
        strategy.distribute_datasets_from_function(order.shares) if several else order.dataset(),
        steps_per_epoch=order.steps if several else None, epochs=recipe.epochs,
        initial_epoch=backup.restore(model, steps_per_epoch=order.steps),
        callbacks=callbacks, verbose=verbose, shuffle=False,
    )  # fmt: skip
    if not chief:
        return model.classifier
    if recipe.average_decay:
        save_classifier(run.averages, model.classifier, recipe)
    trained = runs.load_model(run.model)
    runs.write_json(run.recipe, {
        "recipe": recipe.to_json(),
        "weights": runs.weights_hash(trained),
        "seconds_of_last_session": round(time.monotonic() - started, 1),
        "data_source": data.source,
        **runs.provenance(),
        **(details or {}),
    })  # fmt: skip
    backup.remove()
    return trained


def estimate_seconds(recipe: Recipe, data: Images, *, steps: int = 5) -> float:
    """Duration of a whole training on this machine, from a few timed steps; fewer if they last."""
    model = compiled_model(recipe)
    batch = min(recipe.batch_size, len(data.labels))
    images, labels = tf.constant(data.images[:batch]), tf.constant(data.labels[:batch], tf.int32)
    step = tf.function(lambda: model.train_step((images, labels)))
    step()
    started = time.monotonic()
    seconds, done = 0.0, 0
    while done < steps and seconds < ENOUGH_SECONDS:
        step()["loss"].numpy()
        seconds, done = time.monotonic() - started, done + 1
    per_step = seconds / done
    count = recipe.train_images or len(data.labels)
    return per_step * -(-count // recipe.batch_size) * recipe.epochs


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this is the only process of a training, or the one of several that writes."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type or resolver.task_type == "chief":
        return True
    first = resolver.task_type == "worker" and resolver.task_id == 0
    return first and "chief" not in resolver.cluster_spec().jobs


def _spans_machines(strategy: tf.distribute.Strategy) -> bool:
    replicas = strategy.num_replicas_in_sync
    return replicas > 1 and replicas > len(strategy.extended.worker_devices)


def _settings(recipe: Recipe, init_from: keras.Model | None) -> dict[str, Any]:
    settings: dict[str, Any] = runs.plain(recipe.to_json())
    if init_from is not None:
        settings["init_from"] = runs.weights_hash(init_from)
    return settings


def _check_owner(run: runs.RunDir, wanted: dict[str, Any]) -> None:
    """Makes sure that a folder can be written to and is nobody else's."""
    run.make()
    if not run.settings.exists():
        return
    found = runs.read_json(run.settings)
    if isinstance(found, dict):
        # Settings of before there was a choice.
        found = {"dtype": "float32", "round_weights": False, **found}
    if isinstance(found, dict) and "init_from" not in wanted and run.finished:
        found.pop("init_from", None)  # nothing starts from it any more
    if found != wanted:
        raise InputError(
            f"{run.path} holds a model with other settings ({_differences(found, wanted)}): "
            "name another --row or --runs_dir, or remove the folder"
        )


def _differences(found: Any, wanted: dict[str, Any]) -> str:
    if not isinstance(found, dict):
        return "unreadable"
    changed = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
    return ", ".join(
        f"{key} {found.get(key)!r} there, {wanted.get(key)!r} asked for" for key in changed[:3]
    )


def _first(data: Images, count: int | None) -> Images:
    if count is None:
        return data
    if count > len(data.labels):
        raise InputError(
            f"{count} training images asked for: the training set has {len(data.labels)}"
        )
    return Images(data.images[:count], data.labels[:count], data.indices[:count], data.source)


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
    return attacks.float32_copy(source)
