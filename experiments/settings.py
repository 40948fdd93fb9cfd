"""The flags that every binary shares, and how they become the library's dataclasses.

A row's flagfile (`flags/<dataset>/<row>.cfg`) holds the paper's full settings; a scale
(`flags/scale/<scale>/<dataset>/`) overrides some of them: `all.cfg` for every row, `<row>.cfg`
for one. `row_flags` reads both into flag values of their own, so one process can do many rows.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from absl import flags

from alp_repro import attacks, shipped
from alp_repro.attacks import Attack
from alp_repro.data import DATASETS, dataset_spec
from alp_repro.errors import InputError
from alp_repro.models import MODELS
from alp_repro.runs import RunDir
from alp_repro.training import Recipe

from . import flagfiles

SCALES = ("smoke", "quick", "published", "paper")
REGULARIZERS = ("none", "clp", "lsq", "alp")
DEFAULT_EPS = {"mnist": 76.5, "cifar10": 16.0, "tiny_imagenet": 16.0}
DTYPES = ("auto", "float32", "bfloat16")
_COUNTS = {"nb_iter", "restarts"}
_SIZES = {"eps", "eps_iter", "gradient_noise"}


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
        "seed", 0, "Of weights, order, noise, starts, targets.", flag_values=values
    )


def define_recipe_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """How a model is trained; perturbation sizes on the 0-255 scale."""
    number = functools.partial(flags.DEFINE_float, flag_values=values)
    count = functools.partial(flags.DEFINE_integer, flag_values=values)
    switch = functools.partial(flags.DEFINE_boolean, flag_values=values)
    choice = functools.partial(flags.DEFINE_enum, flag_values=values)
    choice("model", None, list(MODELS), "Architecture (default: the paper's for the data set).")
    count("model_width", None, "Narrower model; default: the paper's width.")
    choice("regularizer", "none", REGULARIZERS, "Logit-pairing penalty.")
    number("regularizer_weight", 0.0, "Its weight λ.")
    number(
        "adversarial_fraction", 0.0,
        "Share f of adversarial training: the loss is (1 - f) CE(clean) + f CE(adversarial).",
        lower_bound=0.0, upper_bound=1.0,
    )  # fmt: skip
    number("noise_stddev", 0.0, "σ of the Gaussian noise on clean images, on the [0, 1] scale.")
    switch("clip_noise", True, "Clip noisy images to [0, 1].")
    number("train_eps", None, "Training attack: ε, 0-255 scale.")
    number("train_eps_iter", None, "Training attack: step, 0-255 scale.")
    count("train_nb_iter", None, "Training attack: steps.")
    choice("train_target", "none", ["none", "random", "least_likely"], "Training attack: target.")
    choice(
        "train_dtype", "float32", DTYPES,
        "Dtype of the training's passes; weights, losses and optimizer are always float32.",
    )  # fmt: skip
    switch("round_weights", False, "Round the finished model's weights to bfloat16.")
    choice("train_attack_dtype", "float32", DTYPES, "Dtype of the training attack's passes.")
    count("attack_warmup_steps", 0, "Training attack: ε and step grow linearly over these steps.")
    switch("attack_batch_statistics", True, "Batch norm uses batch statistics while crafting.")
    switch("joint_batch", False, "Clean and adversarial images pass the model as one batch.")
    switch("augment", False, "Random crop, flip and saturation.")
    number("label_smoothing", 0.0, "Label smoothing.")
    number("weight_decay", 0.0, "Weight of Σ ½‖w‖².")
    number("learning_rate", 0.001, "Of Adam.")
    flags.DEFINE_list(
        "learning_rate_drops", [], "Epochs at which the learning rate is divided by 10.",
        flag_values=values,
    )  # fmt: skip
    number("average_decay", 0.0, "Decay of a moving average of the weights; 0: none is kept.")
    count("epochs", 1, "Passes over the training set.")
    count("batch_size", 200, "Global batch size of the training.")
    count("train_images", None, "Train on the first so many images; default: all.")
    flags.DEFINE_string(
        "init_from", None, "Start from the model of this run folder or .keras file.",
        flag_values=values,
    )  # fmt: skip
    count(
        "watch_every", None,
        "Log the accuracy on 200 test images, clean and attacked, every so many epochs.",
    )  # fmt: skip
    flags.DEFINE_string(
        "watch_attack", None, "The attack of --watch_every, written as an --attack.",
        flag_values=values,
    )  # fmt: skip
    switch("fine_tuned", False, "Never start from fresh weights: --init_from must be given.")


def define_attack_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """What a model is attacked with; perturbation sizes on the 0-255 scale."""
    count = functools.partial(flags.DEFINE_integer, flag_values=values)
    switch = functools.partial(flags.DEFINE_boolean, flag_values=values)
    choice = functools.partial(flags.DEFINE_enum, flag_values=values)
    flags.DEFINE_multi_string(
        "attack", [],
        "One column of the attack grid, repeatable: METHOD[,KEY=VALUE...] with METHOD pgd, apgd, "
        "spsa or strong and KEY eps, eps_iter (0-255 scale), nb_iter, restarts, loss, "
        "step_schedule, momentum, gradient_noise (0-255 scale), success, target, dtype, engine, "
        "random_start. Example: "
        "pgd,eps=76.5,eps_iter=50,nb_iter=200,restarts=10",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string(
        "grid", None, "Name of an attack grid, flags/attacks/<grid>.cfg, before any --attack.",
        flag_values=values,
    )  # fmt: skip
    choice("loss", "cross_entropy", ["cross_entropy", "margin", "dlr"], "What attacks maximise.")
    choice("step_schedule", "constant", ["constant", "linear"], "Step sizes of PGD.")
    choice("success", "last", ["last", "any"], "Iterate that is judged.")
    choice("attack_dtype", "float32", DTYPES, "Dtype of crafting; the verdict is always float32.")
    choice("attack_engine", "loop", ["loop", "cleverhans"], "Our loop, or Cleverhans' own.")
    count("num_images", 1000, "Evaluation images: the first so many of the paper's 1000.")
    count("max_restarts", None, "Upper bound on every attack's restarts (a scale sets it).")
    count("eval_batch_size", None, "Work items in a batch (default: by data set).")
    switch("record_losses", False, "Note the loss after every restart of every image.")
    switch("save_adversarial", False, "Keep the images that broke.")


def default_flags_dir() -> Path:
    """The flagfiles that come with the program."""
    return shipped.folder("flags")


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
    if len(remaining) > 1:
        raise InputError(f"{' '.join(arguments)}: unexpected argument {remaining[1]!r}")
    return values


def define_scale_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """What only a scale's flagfile sets."""
    flags.DEFINE_boolean(
        "estimate", False, "Time a few steps and tell how long everything will take, first.",
        flag_values=values,
    )  # fmt: skip


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
        "scale", "quick", SCALES,
        "smoke: everything runs, numbers mean nothing; quick: two CPU cores; paper: the full "
        "protocol.",
        flag_values=values,
    )  # fmt: skip
    define("init_from", None, "Run folder or .keras file that a fine-tuned row starts from.")
    define("grid", None, "Columns: flags/attacks/<grid>.cfg.")
    flags.DEFINE_multi_string(
        "attack", [], "A further column: METHOD[,KEY=VALUE...] as in experiments.evaluate.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_boolean(
        "strong", False, "A last column with our attack `strong`.", flag_values=values
    )
    flags.DEFINE_boolean("show", False, "Only print what is there.", flag_values=values)


def row_flags(
    *,
    dataset: str,
    row: str,
    scale: str | None,
    flags_dir: str | Path,
    extra: list[str] | None = None,
) -> flags.FlagValues:
    """Flag values of one row at one scale (None: the paper's settings as the row has them).

    Raises:
      InputError: there is no such row or scale, with those that there are.
    """
    folder = Path(flags_dir)
    row_file = folder / dataset / f"{row}.cfg"
    if not row_file.is_file():
        raise InputError(
            f"unknown row {row!r} of {dataset}: one of {', '.join(rows_of(folder, dataset))}"
        )
    files = [row_file]
    if scale is not None:
        shared = folder / "scale" / scale / dataset / "all.cfg"
        if not shared.is_file():
            known = ", ".join(scales_of(folder, dataset))
            raise InputError(f"unknown scale {scale!r} of {dataset}: one of {known}")
        own = shared.with_name(f"{row}.cfg")
        files += [shared, *([own] if own.is_file() else [])]
    return parse([*(f"--flagfile={file}" for file in files), *(extra or [])])


def scales_of(flags_dir: str | Path, dataset: str) -> list[str]:
    """Names of the scales that a data set has, the smallest first."""
    folder = Path(flags_dir) / "scale"
    return [scale for scale in SCALES if (folder / scale / dataset / "all.cfg").is_file()]


def rows_of(flags_dir: Path, dataset: str) -> list[str]:
    """Names of the rows that have a flagfile."""
    return sorted(file.stem for file in (flags_dir / dataset).glob("*.cfg"))


def run_dir(values: flags.FlagValues) -> RunDir:
    """The run folder that --runs_dir, --dataset and --row name."""
    if not values.row or "/" in values.row or values.row in (".", ".."):
        raise InputError(f"--row={values.row}: the name of the run is needed, as in --row=clp")
    return RunDir(Path(values.runs_dir) / values.dataset / values.row)


def recipe(values: flags.FlagValues) -> Recipe:
    """The recipe that the flags describe.

    Raises:
      InputError: flags that contradict each other.
    """
    penalty, weight = values.regularizer, values.regularizer_weight
    if (penalty == "none") != (weight == 0):
        raise InputError(
            f"--regularizer={penalty} --regularizer_weight={weight}: a penalty and a weight above "
            "0 go together"
        )
    fraction = values.adversarial_fraction
    attack = _training_attack(values) if fraction or penalty == "alp" else None
    default_models = {"mnist": "lenet", "cifar10": "resnet20_v2", "tiny_imagenet": "resnet50_v2"}
    try:
        drops = tuple(int(epoch) for epoch in values.learning_rate_drops)
    except ValueError as error:
        raise InputError(f"--learning_rate_drops: epochs are whole numbers ({error})") from None
    named_alike = {field.name for field in dataclasses.fields(Recipe)} & set(values)
    settings: dict[str, Any] = {name: values[name].value for name in named_alike}
    settings |= {
        "model": values.model or default_models[values.dataset],
        "clean_weight": 1.0 - fraction,
        "adversarial_weight": fraction,
        "attack": attack,
        "learning_rate_drops": drops,
        "dtype": attacks.resolve_dtype(values.train_dtype),
    }
    if penalty != "none":
        settings[penalty] = weight
    if attack is None:
        settings["attack_warmup_steps"] = 0
    return Recipe(**settings)


def _training_attack(values: flags.FlagValues) -> Attack:
    for name in ("train_eps", "train_eps_iter", "train_nb_iter"):
        if values[name].value is None:
            raise InputError(f"--{name} is needed: this recipe trains on adversarial images")
    return Attack(
        eps=values.train_eps / 255,
        eps_iter=values.train_eps_iter / 255,
        nb_iter=values.train_nb_iter,
        target=values.train_target,
        dtype=attacks.resolve_dtype(values.train_attack_dtype),
    )


def attack_grid(values: flags.FlagValues) -> list[Attack]:
    """The attacks of --grid and --attack, in that order.

    Raises:
      InputError: none was named, or one does not parse.
    """
    specs = list(values.attack)
    if values.grid:
        file = Path(values.flags_dir) / "attacks" / f"{values.grid}.cfg"
        if not file.is_file():
            known = ", ".join(sorted(f.stem for f in file.parent.glob("*.cfg")))
            raise InputError(f"unknown --grid={values.grid}: one of {known}")
        specs = [*parse([f"--flagfile={file}"]).attack, *specs]
    if not specs:
        raise InputError(
            "no attack named: give --grid=table1 or --attack=pgd,eps_iter=2.55,nb_iter=40"
        )
    return [parse_attack(spec, values) for spec in specs]


def parse_attack(spec: str, values: flags.FlagValues) -> Attack:
    """One `--attack`: METHOD[,KEY=VALUE...], sizes on the 0-255 scale; see the flag's help.

    What it leaves out comes from --loss, --step_schedule and their like, and ε from the data set.
    """
    method, *pairs = spec.split(",")
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise InputError(f"--attack={spec}: {pair!r} is no KEY=VALUE")
        settings[key] = _parse_value(spec, key, value)
    eps = settings.pop("eps", DEFAULT_EPS[values.dataset] / 255)
    shared = {
        "loss": values.loss,
        "step_schedule": values.step_schedule,
        "success": values.success,
        "engine": values.attack_engine,
        "dtype": attacks.resolve_dtype(values.attack_dtype),
    }
    if method == "strong":
        return dataclasses.replace(attacks.strong_attack(eps, dtype=shared["dtype"]), **settings)
    defaults = {
        "pgd": {"eps_iter": eps / 4, "nb_iter": 40},
        "apgd": {"eps_iter": 2 * eps, "nb_iter": 100},
        # The protocol's SPSA: one iteration, learning rate 0.01.
        "spsa": {"eps_iter": 0.01, "nb_iter": 1, "dtype": "float32", "engine": "loop"},
    }
    if method not in defaults:
        raise InputError(f"--attack={spec}: unknown method {method!r}; pgd, apgd, spsa or strong")
    chosen: dict[str, Any] = {"method": method, "eps": eps, **shared, **defaults[method]}
    return Attack(**{**chosen, **settings})


def watch_attack(values: flags.FlagValues) -> Attack:
    """The attack of --watch_attack.

    Raises:
      InputError: none is given, or --watch_every is no count.
    """
    if values.watch_every < 1 or not values.watch_attack:
        raise InputError(
            f"--watch_every={values.watch_every} --watch_attack={values.watch_attack}: 1 epoch or "
            "more and an attack are needed, as in --watch_attack=pgd,eps_iter=2.55,nb_iter=40"
        )
    return parse_attack(values.watch_attack, parse([f"--dataset={values.dataset}"]))


def _parse_value(spec: str, key: str, value: str) -> Any:
    known = {field.name for field in dataclasses.fields(Attack)} - {"method"}
    if key not in known:
        raise InputError(f"--attack={spec}: unknown {key!r}; one of {', '.join(sorted(known))}")
    try:
        if key in _SIZES:
            return float(value) / 255
        if key in _COUNTS:
            return int(value)
        if key == "momentum":
            return float(value)
        if key == "random_start":
            return {"true": True, "false": False}[value]
    except (ValueError, KeyError):
        raise InputError(f"--attack={spec}: {key}={value!r} is not a fitting value") from None
    return attacks.resolve_dtype(value) if key == "dtype" else value


def capped(attack: Attack, values: flags.FlagValues) -> Attack:
    """The attack with no more restarts than --max_restarts."""
    if values.max_restarts is None:
        return attack
    if values.max_restarts < 1:
        raise InputError(f"--max_restarts={values.max_restarts}: a count of 1 or more is needed")
    return dataclasses.replace(attack, restarts=min(attack.restarts, values.max_restarts))


def eval_batch_size(values: flags.FlagValues, *, gpu: bool) -> int:
    """--eval_batch_size, or what suits the data set and the device."""
    if values.eval_batch_size is not None:
        if values.eval_batch_size < 1:
            raise InputError(f"--eval_batch_size={values.eval_batch_size}: 1 or more is needed")
        return values.eval_batch_size
    side = dataset_spec(values.dataset).image_shape[0]
    small = {28: 200, 32: 50, 64: 25}[side]
    return small * (20 if gpu else 1)


def changes(paper: Recipe, scaled: Recipe) -> dict[str, tuple[Any, Any]]:
    """What a scale changes in a recipe: setting -> (paper's, this scale's); sizes 0-255."""
    return {
        key: (before, after)
        for key, after in _flat(scaled).items()
        if (before := _flat(paper).get(key)) != after
    }


def _flat(settings: Recipe) -> dict[str, Any]:
    found = settings.to_json()
    found["train_dtype"] = found.pop("dtype")
    attack = found.pop("attack") or {}
    for key, value in attack.items():
        name = "train_attack_dtype" if key == "dtype" else f"train_{key}"
        found[name] = round(value * 255, 6) if key in _SIZES else value
    return found
