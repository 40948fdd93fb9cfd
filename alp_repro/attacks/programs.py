"""One batch of work items, compiled: start, craft, project, judge in float32.

A program maps a batch of (image, restart) items to `BatchOutcome`s. Three kinds share that form:
our loop (PGD and APGD), Cleverhans' own `projected_gradient_descent`, and its `spsa`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent
from cleverhans.tf2.attacks.spsa import SPSAAdam, margin_logit_loss, projected_optimization

from alp_repro.attacks.draws import calm_items, choose_targets, item_noise, random_starts
from alp_repro.attacks.pgd import craft
from alp_repro.attacks.settings import Attack, Sizes
from alp_repro.attacks.square import square_attack
from alp_repro.model_copies import copy_weights, crafting_copy, logits_function
from alp_repro.program_cache import kept_for_models


class BatchOutcome(NamedTuple):
    """What one batch did: NumPy arrays, one entry an item.

    broken: bool, the final image is not predicted as its label; losses: float32, its
    cross-entropy; adversarial: float32 like the images, inside the given bounds.
    """

    broken: np.ndarray
    losses: np.ndarray
    adversarial: np.ndarray


AttackProgram = Callable[..., BatchOutcome]
# Crafts adversarial images from (images, labels, image_index, restart), our loop from sizes too.
_Crafting = Callable[..., tf.Tensor]

# The protocol's SPSA: what `Attack` has no name for.
SPSA_SAMPLES = 8192
SPSA_DELTA = 0.01


def attack_program(
    model: keras.Model,
    *,
    attack: Attack,
    image_shape: tuple[int, ...],
    batch_size: int,
    seed: int,
    strategy: tf.distribute.Strategy | None = None,
    jit_compile: bool = False,
) -> AttackProgram:
    """A function of (images, labels, image_index, restart, lower, upper) -> BatchOutcome.

    Its arguments are NumPy arrays of `batch_size` items (times the replicas of `strategy`). It is
    traced once, also for several attacks on a model that differ in their sizes alone.

    Args:
      model: float32, images to logits.
      attack: settings.
      image_shape: height, width, channels.
      batch_size: items of one replica.
      seed: of starts and random targets.
      strategy: each replica takes its share of the items.
      jit_compile: XLA.
    """
    if attack.method == "spsa" or attack.engine == "cleverhans":
        return _eager_program(
            model, attack, _signature(image_shape, batch_size), seed=seed, jit_compile=jit_compile
        )
    shape_of_attack = dataclasses.replace(
        attack, eps=1.0, eps_iter=1.0, restarts=1,
        nb_iter=attack.nb_iter if attack.method == "apgd" else 1,
    )  # fmt: skip
    program, update = _compiled(
        model, image_shape, shape_of_attack, batch_size, seed, strategy, jit_compile
    )
    update()
    sizes = (np.float32(attack.eps), np.float32(attack.eps_iter), np.int32(attack.nb_iter))
    return lambda *inputs: program(inputs, sizes)


def _signature(image_shape: tuple[int, ...], batch_size: int) -> list[tf.TensorSpec]:
    return [
        tf.TensorSpec([batch_size, *image_shape], tf.float32),
        tf.TensorSpec([batch_size], tf.int32),
        tf.TensorSpec([batch_size], tf.int64),
        tf.TensorSpec([batch_size], tf.int32),
        tf.TensorSpec([batch_size, *image_shape], tf.float32),
        tf.TensorSpec([batch_size, *image_shape], tf.float32),
    ]


_SIZES = [tf.TensorSpec([], tf.float32), tf.TensorSpec([], tf.float32), tf.TensorSpec([], tf.int32)]


@kept_for_models(maxsize=2)
def _compiled(
    model: keras.Model,
    image_shape: tuple[int, ...],
    attack: Attack,
    batch_size: int,
    seed: int,
    strategy: tf.distribute.Strategy | None,
    jit_compile: bool,
) -> tuple[Callable[[Any, Any], BatchOutcome], Callable[[], None]]:
    """One compiled program for all attacks on a model that differ in their sizes alone.

    With it a function that brings up to date what it holds of the model's weights. The last few
    are kept, since the columns of a table follow each other on one model.
    """
    source = model
    if strategy is not None:
        with strategy.scope():
            model = crafting_copy(source, "float32")
    with strategy.scope() if strategy else nullcontext():
        crafter = crafting_copy(model, attack.dtype) if attack.dtype != "float32" else model
    judge, crafting = _judge(model), _loop(model, crafter, attack, seed)

    def update() -> None:
        for theirs, ours in ((source, model), (model, crafter)):
            if theirs is not ours:
                copy_weights(theirs, ours)

    @tf.function(
        input_signature=[_signature(image_shape, batch_size), _SIZES], jit_compile=jit_compile
    )
    def program(inputs: Any, sizes: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return judge(crafting(*inputs[:4], sizes=Sizes(*sizes)), inputs)

    if strategy is not None:
        return _on_replicas(program, strategy), update
    return lambda inputs, sizes: _on_host(program(list(inputs), list(sizes))), update


def _eager_program(
    model: keras.Model,
    attack: Attack,
    signature: list[tf.TensorSpec],
    *,
    seed: int,
    jit_compile: bool,
) -> AttackProgram:
    """Crafting by Cleverhans' own functions, which are not compiled, and our compiled verdict."""
    by_cleverhans = (_spsa if attack.method == "spsa" else _cleverhans)(model, attack, seed)
    judge = tf.function(_judge(model), jit_compile=jit_compile)

    def program(*inputs: np.ndarray) -> BatchOutcome:
        tensors = [tf.constant(v, s.dtype) for v, s in zip(inputs, signature, strict=True)]
        return _on_host(judge(by_cleverhans(*tensors[:4]), tensors))

    return program


def _on_host(results: tuple[tf.Tensor, ...]) -> BatchOutcome:
    return BatchOutcome(*(value.numpy() for value in results))


def _on_replicas(
    program: Any, strategy: tf.distribute.Strategy
) -> Callable[[Any, Any], BatchOutcome]:
    """Splits each input over the replicas and joins their results in order."""

    @tf.function
    def everywhere(inputs: Any, sizes: Any) -> tuple[Any, Any, Any]:
        # Behind a plain function: `run` would bind the signature to all replicas' values at once.
        return strategy.run(lambda *share: program(list(share), sizes), args=inputs)

    def distributed(inputs: Any, sizes: Any) -> BatchOutcome:
        shares = [np.split(value, strategy.num_replicas_in_sync) for value in inputs]
        values = [
            strategy.experimental_distribute_values_from_function(
                lambda context, share=share: tf.constant(share[context.replica_id_in_sync_group])
            )
            for share in shares
        ]
        results = everywhere(tuple(values), [tf.constant(size) for size in sizes])
        return BatchOutcome(
            *(
                np.concatenate([v.numpy() for v in strategy.experimental_local_results(result)])
                for result in results
            )
        )

    return distributed


def exact_bounds(images: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest float32 pixels in the ε-ball and in [0, 1], exactly.

    Args:
      images: float32, in [0, 1].
      eps: float64 radius; |bound - image| ≤ eps holds without rounding.
    """
    wide = images.astype(np.float64)
    lower = np.maximum(wide - eps, 0.0).astype(np.float32)
    upper = np.minimum(wide + eps, 1.0).astype(np.float32)
    # Rounding to float32 may have gone outwards by one step at the most.
    lower = np.where(wide - lower > eps, np.nextafter(lower, np.float32(2)), lower)
    upper = np.where(upper - wide > eps, np.nextafter(upper, np.float32(-1)), upper)
    return lower, upper


def _judge(model: keras.Model) -> Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """The verdict: float32, on the image as it would be stored, never the crafting model's."""
    logits = logits_function(model)

    def judge(crafted: tf.Tensor, inputs: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        _, labels, _, _, lower, upper = inputs
        final = tf.clip_by_value(crafted, lower, upper)
        outputs = logits(final)
        broken = tf.argmax(outputs, axis=1, output_type=tf.int32) != labels
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=outputs)
        return broken, losses, final

    return judge


def _loop(model: keras.Model, crafter: keras.Model, attack: Attack, seed: int) -> _Crafting:
    crafting_logits, clean_logits = logits_function(crafter), logits_function(model)

    def crafting(
        images: tf.Tensor, labels: tf.Tensor, image_index: tf.Tensor, restart: tf.Tensor, *,
        sizes: Sizes,
    ) -> tf.Tensor:  # fmt: skip
        starts = images
        if attack.random_start:
            starts = random_starts(
                images, image_index=image_index, restart=restart, seed=tf.constant(seed),
                eps=sizes.eps,
            )  # fmt: skip
        targets = None
        if attack.target != "none":
            targets = choose_targets(
                attack.target, clean_logits=clean_logits(images), labels=labels,
                image_index=image_index, restart=restart, seed=tf.constant(seed),
            )  # fmt: skip
        if attack.method == "square":
            return square_attack(
                crafting_logits, images, labels, eps=sizes.eps, nb_iter=sizes.nb_iter,
                image_index=image_index, restart=restart, seed=tf.constant(seed),
                loss=attack.loss, targets=targets,
            )  # fmt: skip
        noise = None
        if attack.gradient_noise:
            noise = item_noise(
                tuple(images.shape[1:]), image_index=image_index, restart=restart,
                seed=tf.constant(seed),
            )  # fmt: skip
        return craft(
            crafting_logits, images, labels, attack=attack, starts=starts, targets=targets,
            noise=noise, calm=calm_items(attack.target, restart), sizes=sizes,
        )  # fmt: skip

    return crafting


def _cleverhans(model: keras.Model, attack: Attack, seed: int) -> _Crafting:
    """Cleverhans' own call; its starts come from TensorFlow's global generator, seeded by batch."""
    logits = logits_function(model)

    def crafting(
        images: tf.Tensor, labels: tf.Tensor, image_index: tf.Tensor, restart: tf.Tensor
    ) -> tf.Tensor:
        tf.random.set_seed(_mixed(seed, int(image_index[0]), int(restart[0])))
        targets = choose_targets(
            attack.target, clean_logits=logits(images), labels=labels, image_index=image_index,
            restart=restart, seed=tf.constant(seed),
        )  # fmt: skip
        return projected_gradient_descent(
            logits, images, attack.eps, attack.eps_iter, attack.nb_iter, np.inf,
            clip_min=0.0, clip_max=1.0, y=labels if targets is None else targets,
            targeted=targets is not None, rand_init=attack.random_start,
        )  # fmt: skip

    return crafting


class _SpsaAdam(SPSAAdam):
    """Cleverhans' SPSA optimizer, whose constructor Keras 3 refuses (its argument is `lr`)."""

    def __init__(self, learning_rate: float) -> None:
        keras.optimizers.Adam.__init__(self, learning_rate=learning_rate)
        self.lr = learning_rate
        self._delta = SPSA_DELTA
        self._num_samples = SPSA_SAMPLES // 2  # each is used with both signs
        self._num_iters = 1


def _spsa(model: keras.Model, attack: Attack, seed: int) -> _Crafting:
    """Cleverhans' `spsa`, one image at a time as it demands (Uesato et al. 2018)."""
    logits = logits_function(model)
    optimizer = _SpsaAdam(attack.eps_iter)

    def crafting(
        images: tf.Tensor, labels: tf.Tensor, image_index: tf.Tensor, restart: tf.Tensor
    ) -> tf.Tensor:
        targets = choose_targets(
            attack.target, clean_logits=logits(images), labels=labels, image_index=image_index,
            restart=restart, seed=tf.constant(seed),
        )  # fmt: skip
        sign, aims = (-1.0, labels) if targets is None else (1.0, targets)

        def loss(points: tf.Tensor, aim: tf.Tensor) -> tf.Tensor:
            outputs = logits(points)
            return sign * margin_logit_loss(outputs, aim, nb_classes=outputs.shape[-1])

        crafted = []
        for i in range(images.shape[0]):
            tf.random.set_seed(_mixed(seed, int(image_index[i]), int(restart[i])))
            crafted.append(
                projected_optimization(
                    loss,
                    images[i : i + 1],
                    aims[i : i + 1],
                    attack.eps,
                    attack.nb_iter,
                    optimizer,
                    0.0,
                    1.0,
                )
            )
        return tf.concat(crafted, axis=0)

    return crafting


def _mixed(*values: int) -> int:
    """One 31-bit seed of several numbers."""
    return int(np.random.SeedSequence(values).generate_state(1)[0] >> 1)
