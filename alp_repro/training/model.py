"""The model of a recipe: its architecture, its objective, its optimizer."""

from __future__ import annotations

import keras

from alp_repro.data.specs import dataset_spec
from alp_repro.errors import InputError
from alp_repro.models import build_model
from alp_repro.models.copies import copy_in_dtype, float32_copy
from alp_repro.training.adam import FusedAdam
from alp_repro.training.logit_pairing import LogitPairing
from alp_repro.training.rates import TriangularRate
from alp_repro.training.recipe import Recipe


def compiled_model(
    recipe: Recipe,
    *,
    jit_compile: bool = False,
    init_from: keras.Model | None = None,
    steps: int | None = None,
) -> LogitPairing:
    """Return the compiled model of a recipe.

    Args:
      recipe: of the training.
      jit_compile: compile with XLA: faster on a GPU, three times slower for convolutions on a CPU.
      init_from: a model to continue from, which is copied; None: new weights.
      steps: of the whole training, over which a cyclic learning rate rises and falls; None: the
        recipe's rate, for single steps.

    Raises:
      InputError: `init_from` does not have the recipe's architecture, or a decay is given for the
        averages of a model without batch norm.
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
    if recipe.batch_norm_decay is not None:
        _set_decay(classifier, recipe.batch_norm_decay)
    if recipe.dtype == "bfloat16":
        classifier = copy_in_dtype(classifier, "mixed_bfloat16")
    # The data were checked when they were read, and Tiny ImageNet's crops leave [0, 1] at edges.
    model = LogitPairing(
        classifier, objective=recipe.objective, seed=recipe.seed, check_inputs=False
    )
    rate: float | TriangularRate = recipe.learning_rate
    if recipe.cyclic_peak is not None and steps is not None:
        rate = TriangularRate(rate, steps=steps, peak=recipe.cyclic_peak)
    optimizer = FusedAdam(
        rate,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=recipe.adam_epsilon,
        use_ema=bool(recipe.average_decay),
        ema_momentum=recipe.average_decay or None,
    )
    optimizer.build(classifier.trainable_variables)
    model.compile(optimizer=optimizer, jit_compile=jit_compile)
    return model


def _set_decay(classifier: keras.Model, decay: float) -> None:
    """Set the decay of batch norm's moving averages, in all layers."""
    norms = [x for x in classifier.layers if isinstance(x, keras.layers.BatchNormalization)]
    if not norms:
        raise InputError(
            f"batch_norm_decay: expected a model with batch norm, {classifier.name} has none"
        )
    for layer in norms:
        layer.momentum = decay


def _copy_to_start_from(source: keras.Model, fresh: keras.Model) -> keras.Model:
    """Return a copy of `source`, which may differ from `fresh` only in layers without weights.

    An imported model may rescale its pixels, for example.
    """
    if source.output_shape[1:] != fresh.output_shape[1:]:
        raise InputError(
            f"the model to start from: expected {fresh.output_shape[1:]} logits, got "
            f"{source.output_shape[1:]}; use one that was trained on the same classes"
        )
    shapes = [tuple(w.shape) for w in fresh.weights]
    if shapes != [tuple(w.shape) for w in source.weights]:
        raise InputError(
            f"the model to start from: expected a {fresh.name} of {fresh.count_params():,} "
            f"parameters, got {source.count_params():,} parameters or other shapes"
        )
    return float32_copy(source)
