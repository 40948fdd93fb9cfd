"""The flags that several binaries have. Each binary defines the groups that it needs.

What may be chosen comes from the library: its losses, targets, dtypes, models and penalties.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from absl import flags

from alp_repro import shipped
from alp_repro.attacks.settings import (
    Attack,
    Engine,
    Loss,
    Method,
    StepSchedule,
    Success,
    Target,
    size_settings,
)
from alp_repro.data import DATASETS
from alp_repro.dtypes import Dtype
from alp_repro.errors import InputError
from alp_repro.losses import PENALTIES
from alp_repro.models import MODELS

from . import flagfiles

if TYPE_CHECKING:
    from alp_repro.data.load import ImageCount

# What is defined here counts as the binary's own, so that --help lists it.
flags.disclaim_key_flags()

SCALES = ("smoke", "quick", "seeds", "published", "paper")
DTYPES = ("auto", *get_args(Dtype))
# What --attack may name: the library's methods, and its preset.
METHODS = (*get_args(Method), "strong")
# Settings of an attack that flags have on the 0-255 scale.
SIZES = size_settings()
# Targets that turn with the restarts are no targets of a training attack, which has one.
_TARGETS = [name for name in get_args(Target) if name not in ("each", "rotate")]
_LARGEST_BATCH = 1_000_000
LARGEST_SEED = 2**31 - 1


class _ImageCountParser(flags.ArgumentParser):
    """A whole number, or the word all."""

    syntactic_help = "a whole number or all"

    def parse(self, argument: str | int) -> ImageCount:
        """What is out of range is refused by the library, which knows the data set."""
        if argument == "all":
            return "all"
        try:
            return int(argument)
        except ValueError:
            raise ValueError(f"{argument!r} is neither a whole number nor all") from None

    def flag_type(self) -> str:
        """As --help shows it."""
        return "integer or all"


def define_num_images(
    values: flags.FlagValues,
    default: int | None,
    what: str = (
        "Evaluation images: the first so many of the paper's 1000, or all: the whole test split."
    ),
) -> None:
    """How many images are attacked."""
    flags.DEFINE(
        _ImageCountParser(),
        "num_images",
        default,
        what,
        flag_values=values,
        serializer=flags.ArgumentSerializer(),
    )


def attack_keys() -> list[str]:
    """What --attack may set: the fields of `Attack`, but for the method that comes first."""
    return [field.name for field in dataclasses.fields(Attack) if field.name != "method"]


def define_run_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Where data and results lie, and which row is meant."""
    define = functools.partial(flags.DEFINE_string, flag_values=values)
    flags.DEFINE_enum("dataset", "mnist", list(DATASETS), "Data set.", flag_values=values)
    define("data_dir", None, "Folder of the TFDS datasets (default: see README).")
    define("runs_dir", "runs", "Folder of all runs; a row's run is <runs_dir>/<dataset>/<row>.")
    define("row", None, "Name of the run: a table's row, or any other for settings of your own.")
    define(
        "flags_dir", str(default_flags_dir()), "Folder of the rows', grids' and scales' flagfiles."
    )
    flags.DEFINE_integer(
        "seed",
        0,
        "Of weights, order, noise, starts, targets.",
        lower_bound=0,
        upper_bound=LARGEST_SEED,
        flag_values=values,
    )


def define_recipe_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """How a model is trained; perturbation sizes on the 0-255 scale."""
    number = functools.partial(flags.DEFINE_float, flag_values=values)
    count = functools.partial(flags.DEFINE_integer, flag_values=values)
    switch = functools.partial(flags.DEFINE_boolean, flag_values=values)
    choice = functools.partial(flags.DEFINE_enum, flag_values=values)
    choice("model", None, list(MODELS), "Architecture (default: the paper's for the data set).")
    count("model_width", None, "Narrower model; default: the paper's width.")
    choice("regularizer", "none", ["none", *PENALTIES], "Logit-pairing penalty.")
    number("regularizer_weight", 0.0, "Its weight λ.")
    number(
        "adversarial_fraction",
        0.0,
        "Share f of adversarial training: the loss is (1 - f) CE(clean) + f CE(adversarial).",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    number("noise_stddev", 0.0, "σ of the Gaussian noise on clean images, on the [0, 1] scale.")
    switch("clip_noise", True, "Clip noisy images to [0, 1].")
    number("train_eps", None, "Training attack: ε, 0-255 scale.")
    number("train_eps_iter", None, "Training attack: step, 0-255 scale.")
    count("train_nb_iter", None, "Training attack: steps.")
    choice("train_target", "none", _TARGETS, "Training attack: target.")
    choice(
        "train_dtype",
        "float32",
        DTYPES,
        "Dtype of the training's passes; weights, losses and optimizer are always float32.",
    )
    switch("round_weights", False, "Round the finished model's weights to bfloat16.")
    choice("train_attack_dtype", "float32", DTYPES, "Dtype of the training attack's passes.")
    count("attack_warmup_steps", 0, "Training attack: ε and step grow linearly over these steps.")
    switch("attack_batch_statistics", True, "Batch norm uses batch statistics while crafting.")
    switch("joint_batch", False, "Clean and adversarial images pass the model as one batch.")
    switch(
        "separate_passes",
        False,
        "A pass of its own for each penalty on clean images, and for the clean batch in any case.",
    )
    switch("statistics_passes", False, "Move batch norm's averages as the authors' graph does.")
    count("virtual_replicas", 1, "Batch norm and pairs see the shares of so many replicas.")
    switch("augment", False, "Random crop, flip and saturation.")
    number("label_smoothing", 0.0, "Label smoothing.")
    number("weight_decay", 0.0, "Weight of Σ ½‖w‖².")
    number("learning_rate", 0.001, "Of Adam.")
    number("adam_epsilon", 1e-6, "Adam's ε.")
    flags.DEFINE_list(
        "learning_rate_drops",
        [],
        "Epochs at which the learning rate is divided by 10.",
        flag_values=values,
    )
    number("average_decay", 0.0, "Decay of a moving average of the weights; 0: none is kept.")
    count("epochs", 1, "Passes over the training set.")
    count("max_steps", None, "End after so many steps; default: with the last epoch.")
    count("batch_size", 200, "Global batch size of the training.")
    count("train_images", None, "Train on the first so many images; default: all.")
    flags.DEFINE_string(
        "init_from",
        None,
        "Start from the model of this run folder or .keras file.",
        flag_values=values,
    )
    count(
        "watch_every",
        None,
        "Log the accuracy on 200 test images, clean and attacked, every so many epochs.",
    )
    flags.DEFINE_string(
        "watch_attack",
        None,
        "The attack of --watch_every, written as an --attack.",
        flag_values=values,
    )
    switch("fine_tuned", False, "Never start from fresh weights: --init_from must be given.")


def define_attack_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """What a model is attacked with; perturbation sizes on the 0-255 scale."""
    count = functools.partial(flags.DEFINE_integer, flag_values=values)
    switch = functools.partial(flags.DEFINE_boolean, flag_values=values)
    choice = functools.partial(flags.DEFINE_enum, flag_values=values)
    flags.DEFINE_multi_string(
        "attack",
        [],
        "One column of the attack grid, repeatable: METHOD[,KEY=VALUE...] with METHOD "
        f"{', '.join(METHODS)} and KEY {', '.join(attack_keys())}; "
        f"{', '.join(sorted(SIZES))} on the 0-255 scale (SPSA's eps_iter, the "
        "learning rate, too). Example: pgd,eps=76.5,eps_iter=50,nb_iter=200,restarts=10",
        flag_values=values,
    )
    flags.DEFINE_string(
        "grid",
        None,
        "Name of an attack grid, flags/attacks/<grid>.cfg, before any --attack.",
        flag_values=values,
    )
    choice("loss", "cross_entropy", get_args(Loss), "What attacks maximise.")
    choice("step_schedule", "constant", get_args(StepSchedule), "Step sizes of PGD.")
    choice("success", "last", get_args(Success), "Iterate that is judged.")
    choice("attack_dtype", "float32", DTYPES, "Dtype of crafting; the verdict is always float32.")
    choice("attack_engine", "loop", get_args(Engine), "Our loop, or Cleverhans' own.")
    define_num_images(values, 1000)
    count(
        "max_restarts",
        None,
        "Upper bound on every attack's restarts (a scale sets it).",
        lower_bound=1,
    )
    count(
        "eval_batch_size",
        None,
        "Work items in a batch (default: by data set).",
        lower_bound=1,
        upper_bound=_LARGEST_BATCH,
    )
    switch("record_losses", False, "Note the loss after every restart of every image.")
    switch("save_adversarial", False, "Keep the images that broke.")


def define_scale_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """What only a scale's flagfile sets."""
    flags.DEFINE_boolean(
        "estimate",
        True,
        "Time a few steps and tell how long everything will take, first.",
        flag_values=values,
    )


def define_table_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Which table, rows, columns and scale."""
    flags.DEFINE_enum("dataset", "mnist", list(DATASETS), "Data set.", flag_values=values)
    define = functools.partial(flags.DEFINE_string, flag_values=values)
    define("data_dir", None, "Folder of the TFDS datasets (default: see README).")
    define("runs_dir", "runs", "Folder of all runs: <runs_dir>/<scale>/<dataset>/<row>.")
    define(
        "flags_dir", str(default_flags_dir()), "Folder of the rows', grids' and scales' flagfiles."
    )
    flags.DEFINE_integer("table", 1, "Number of the table in the paper.", flag_values=values)
    rows = functools.partial(flags.DEFINE_list, flag_values=values)
    rows("rows", [], "Rows of the table.")
    rows("only", [], "Rows to work on; the others are shown as they are. Default: all.")
    flags.DEFINE_enum(
        "scale",
        "quick",
        SCALES,
        "smoke: everything runs, numbers mean nothing; quick: two CPU cores; seeds: for several "
        "--training_seed; paper: the full protocol.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "training_seed",
        None,
        "Of a training of its own and its attacks, in <runs_dir>/<scale>/seed<n>; see "
        "experiments.seeds.",
        lower_bound=0,
        upper_bound=LARGEST_SEED,
        flag_values=values,
    )
    define("init_from", None, "Run folder or .keras file that a fine-tuned row starts from.")
    define("grid", None, "Columns: flags/attacks/<grid>.cfg.")
    flags.DEFINE_multi_string(
        "attack",
        [],
        "A further column: METHOD[,KEY=VALUE...] as in experiments.evaluate.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "strong", False, "A last column with our attack `strong`.", flag_values=values
    )
    flags.DEFINE_boolean(
        "show", False, "Only print what is there; write nothing.", flag_values=values
    )


def fill_in_table(values: flags.FlagValues = flags.FLAGS) -> None:
    """Takes what was not given of data set, rows and grid from the flagfile of --table.

    Raises:
      InputError: there is no such table.
    """
    folder = Path(values.flags_dir) / "tables"
    file = folder / f"table{values.table}.cfg"
    if not file.is_file():
        known = sorted(path.stem[len("table") :] for path in folder.glob("table*.cfg"))
        raise InputError(f"unknown --table={values.table}: {flagfiles.one_of(known, folder)}")
    table = flags.FlagValues()
    define_table_flags(table)
    try:
        table(["table", *flagfiles.expand([f"--flagfile={file}"])])
    except flags.Error as error:
        raise InputError(f"{file}: {error}") from error
    for name in ("dataset", "rows", "grid"):
        if not values[name].present:
            values[name].value = table[name].value


def default_flags_dir() -> Path:
    """The flagfiles that come with the program."""
    return shipped.folder("flags")


def check_finite(values: flags.FlagValues) -> None:
    """Refuse flags that are NaN or infinite: a comparison with one passes, or fails, in silence.

    Raises:
      InputError: a flag is; there is none where it would make sense.
    """
    for name in values:
        value = values[name].value
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f"--{name}={number:g}: expected a finite number")


def parse(arguments: list[str]) -> flags.FlagValues:
    """Flag values of their own, from arguments such as `--flagfile=…`.

    Raises:
      InputError: an unknown flag or a value that does not fit.
    """
    values = flags.FlagValues()
    define_run_flags(values)
    define_recipe_flags(values)
    define_attack_flags(values)
    define_scale_flags(values)
    try:
        remaining = values(["row", *flagfiles.expand(arguments)])
    except flags.Error as error:
        raise InputError(f"{' '.join(arguments)}: {error}") from error
    check_finite(values)
    if len(remaining) > 1:
        raise InputError(f"{' '.join(arguments)}: unexpected argument {remaining[1]!r}")
    return values
