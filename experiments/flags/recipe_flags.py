"""The flags that describe how a model is trained."""

from __future__ import annotations

import functools
from typing import get_args

from absl import flags

from alp_repro.attacks.draws import Target
from alp_repro.losses import PENALTIES
from alp_repro.models import MODELS
from alp_repro.system.dtypes import Dtype
from alp_repro.training.objective import Crafting

# Flags that are defined here count as the binary's own, so that --help lists them.
flags.disclaim_key_flags()

DTYPES = ("auto", *get_args(Dtype))
# A target that changes with the restart does not suit a training attack, which has one restart.
_TARGETS = [name for name in get_args(Target) if name != "each"]


def define_recipe_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Define the flags for a training; perturbation sizes are on the 0-255 scale."""
    number = functools.partial(flags.DEFINE_float, flag_values=values)
    count = functools.partial(flags.DEFINE_integer, flag_values=values)
    switch = functools.partial(flags.DEFINE_boolean, flag_values=values)
    choice = functools.partial(flags.DEFINE_enum, flag_values=values)
    choice("model", None, list(MODELS), "Architecture (default: the paper's for the data set).")
    count("model_width", None, "Width of the model (default: the paper's).")
    number("batch_norm_decay", None, "Decay of batch norm's averages (default: the model's own).")
    flags.DEFINE_string(
        "regularizer",
        "none",
        f"Penalty: none, {', '.join(PENALTIES)}; or several with their weights λ, as in "
        "alp:0.5,lsq:0.1.",
        flag_values=values,
    )
    number("regularizer_weight", 0.0, "Weight λ of a penalty that is given without one.")
    number(
        "adversarial_fraction",
        0.0,
        "Share f of adversarial training: the loss is (1 - f) CE(clean) + f CE(adversarial).",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    number(
        "noise_stddev",
        0.0,
        "Standard deviation σ of the Gaussian noise on clean images, on the [0, 1] scale.",
    )
    switch("clip_noise", True, "Clip noisy images to [0, 1].")
    number("train_eps", None, "Training attack: ε on the 0-255 scale.")
    number("train_eps_iter", None, "Training attack: step size on the 0-255 scale.")
    count("train_nb_iter", None, "Training attack: number of steps.")
    choice("train_target", "none", _TARGETS, "Training attack: target class.")
    choice(
        "train_dtype",
        "float32",
        DTYPES,
        "Dtype of forward and backward passes; weights, losses and optimizer are always float32.",
    )
    switch("round_weights", False, "Round the finished model's weights to bfloat16.")
    choice("train_attack_dtype", "float32", DTYPES, "Dtype of the training attack's passes.")
    choice(
        "crafting",
        "attack",
        get_args(Crafting),
        "How the training's adversarial images are made; fast and n_fgsm take a single step, "
        "trades goes with --regularizer=trades.",
    )
    count(
        "attack_warmup_steps",
        0,
        "Training attack: number of training steps over which ε and step size grow linearly.",
    )
    count(
        "attack_warmup_nb_iter",
        None,
        "Training attack: steps during --attack_warmup_steps (default: --train_nb_iter).",
        lower_bound=1,
    )
    switch("attack_batch_statistics", True, "Use batch statistics in batch norm while crafting.")
    switch("joint_batch", False, "Pass clean and adversarial images through the model together.")
    switch(
        "separate_passes",
        False,
        "Use a separate forward pass for each penalty on clean images, and always one for the "
        "clean batch.",
    )
    switch(
        "statistics_passes",
        False,
        "Update batch norm's moving averages as the authors' graph does.",
    )
    count(
        "virtual_replicas",
        1,
        "Number of parts of a batch that batch norm and logit pairs see separately, as on that "
        "many replicas.",
    )
    switch("augment", False, "Augment images by random crops, flips and saturation.")
    number("label_smoothing", 0.0, "Label smoothing.")
    number("weight_decay", 0.0, "Weight of Σ ½‖w‖² in the loss.")
    number("learning_rate", 0.001, "Learning rate of Adam.")
    number("adam_epsilon", 1e-6, "Adam's ε.")
    flags.DEFINE_list(
        "learning_rate_drops",
        [],
        "Epochs at which the learning rate is divided by 10.",
        flag_values=values,
    )
    number(
        "cyclic_peak",
        None,
        "Cyclic learning rate: up from 0 to --learning_rate at this share of the steps, then back.",
    )
    number("average_decay", 0.0, "Decay of a moving average of the weights; 0: no average.")
    count("epochs", 1, "Passes over the training set.")
    count("max_steps", None, "Maximum number of training steps (default: all of --epochs).")
    count("batch_size", 200, "Global batch size.")
    count("train_images", None, "Number of training images, from the first (default: all).")
    flags.DEFINE_string(
        "init_from",
        None,
        "Start from the model of this run folder or .keras file.",
        flag_values=values,
    )
    count(
        "watch_every",
        None,
        "Number of epochs between measurements of the clean and the adversarial accuracy on 200 "
        "test images (default: none).",
    )
    flags.DEFINE_string(
        "watch_attack",
        None,
        "The attack of --watch_every, written as an --attack.",
        flag_values=values,
    )
    switch("fine_tuned", False, "Require --init_from, rather than start from initial weights.")
