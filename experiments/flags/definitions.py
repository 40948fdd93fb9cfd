"""The flags that several binaries share. Each binary defines the groups that it needs.

The choices come from the library: its losses, targets, dtypes, models and penalties.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from absl import flags

from alp_repro import shipped
from alp_repro.attacks.losses import Loss
from alp_repro.attacks.pgd import Engine, StepSchedule, Success
from alp_repro.attacks.presets import PRESETS
from alp_repro.attacks.registry import ATTACKS, attack_class, size_settings
from alp_repro.data import DATASETS
from alp_repro.errors import InputError
from alp_repro.reporting.table_names import OURS, TableName, table_stem
from alp_repro.validation.plain_numbers import LARGEST_SEED

from . import flagfiles
from .recipe_flags import DTYPES, define_recipe_flags

if TYPE_CHECKING:
    from alp_repro.data.load import ImageCount

# Flags that are defined here count as the binary's own, so that --help lists them.
flags.disclaim_key_flags()

SCALES = ("smoke", "quick", "seeds", "followups", "published", "paper")
# Settings of an attack that flags have on the 0-255 scale.
SIZES = size_settings()
_LARGEST_BATCH = 1_000_000


class _TableParser(flags.ArgumentParser):
    """The number of a table of the paper's, or the name of one of ours."""

    syntactic_help = f"a number, {' or '.join(OURS)}"

    def parse(self, argument: str | int) -> TableName:
        """Return a number or a name; one that no table has is refused where it is looked up."""
        if argument in OURS:
            return argument
        try:
            return int(argument)
        except ValueError:
            raise ValueError(f"{argument!r}: expected {self.syntactic_help}") from None

    def flag_type(self) -> str:
        """Return the type as --help shows it."""
        return f"integer, {' or '.join(OURS)}"


class _ImageCountParser(flags.ArgumentParser):
    """A whole number, or the word all."""

    syntactic_help = "a whole number or all"

    def parse(self, argument: str | int) -> ImageCount:
        """Parse a count; the library, which knows the data set, checks its range."""
        if argument == "all":
            return "all"
        try:
            return int(argument)
        except ValueError:
            raise ValueError(f"expected a whole number or all, got {argument!r}") from None

    def flag_type(self) -> str:
        """Return the type that --help shows."""
        return "integer or all"


def define_num_images(
    values: flags.FlagValues,
    default: int | None,
    help_text: str = (
        "Number of evaluation images, from the first of the paper's 1000; all: the test split."
    ),
) -> None:
    """Define --num_images, the number of images to attack."""
    flags.DEFINE(
        _ImageCountParser(),
        "num_images",
        default,
        help_text,
        flag_values=values,
        serializer=flags.ArgumentSerializer(),
    )


def attack_keys(method: str) -> list[str]:
    """Return the settings that --attack may set for a method: the fields of its attack."""
    return [field.name for field in dataclasses.fields(attack_class(method))]


def define_run_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Define the flags for the locations of data and results, and for the row."""
    define = functools.partial(flags.DEFINE_string, flag_values=values)
    flags.DEFINE_enum("dataset", "mnist", list(DATASETS), "Data set.", flag_values=values)
    define("data_dir", None, "TFDS folder (default: $ALP_REPRO_DATA_DIR or .tfds).")
    define("runs_dir", "runs", "Folder of all runs; a row's run is <runs_dir>/<dataset>/<row>.")
    define("row", None, "Name of the run: a row of a table, or any name for your own settings.")
    define("flags_dir", str(default_flags_dir()), "Folder of the flagfiles.")
    flags.DEFINE_integer(
        "seed",
        0,
        "Seed of initial weights, image order, noise, and the attacks' starts and targets.",
        lower_bound=0,
        upper_bound=LARGEST_SEED,
        flag_values=values,
    )


def define_attack_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Define the flags for attacks; perturbation sizes are on the 0-255 scale."""
    count = functools.partial(flags.DEFINE_integer, flag_values=values)
    switch = functools.partial(flags.DEFINE_boolean, flag_values=values)
    choice = functools.partial(flags.DEFINE_enum, flag_values=values)
    flags.DEFINE_multi_string(
        "attack",
        [],
        "An attack, METHOD[,KEY=VALUE...], as in pgd,eps=76.5,eps_iter=50,nb_iter=200,restarts=10. "
        "Methods and their keys are "
        f"{'; '.join(f'{name}: ' + ', '.join(attack_keys(name)) for name in ATTACKS)}; and "
        f"{', '.join(PRESETS)}, with eps, restarts and dtype. {', '.join(sorted(SIZES))} are on "
        "the 0-255 scale",
        flag_values=values,
    )
    flags.DEFINE_string(
        "grid",
        None,
        "Name of an attack grid, flags/attacks/<grid>.cfg, whose attacks come before any --attack.",
        flag_values=values,
    )
    choice("loss", "cross_entropy", get_args(Loss), "Loss that attacks maximise.")
    choice("step_schedule", "constant", get_args(StepSchedule), "Step sizes of PGD.")
    choice("success", "last", get_args(Success), "Iterates that can break an image.")
    choice(
        "attack_dtype",
        "float32",
        DTYPES,
        "Dtype in which attacks are crafted; images are always judged in float32.",
    )
    choice("attack_engine", "loop", get_args(Engine), "Our PGD loop, or that of Cleverhans.")
    define_num_images(values, 1000)
    count(
        "max_restarts",
        None,
        "Upper bound on the restarts of every attack (a scale sets it).",
        lower_bound=1,
    )
    count(
        "eval_batch_size",
        None,
        "Images per batch, each at one restart (default: depends on the data set).",
        lower_bound=1,
        upper_bound=_LARGEST_BATCH,
    )
    switch("record_losses", False, "Record the loss after every restart of every image.")
    switch("save_adversarial", False, "Save the adversarial images.")


def define_scale_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Define the flags that only a scale's flagfile sets."""
    flags.DEFINE_boolean(
        "estimate",
        True,
        "First time a few steps and print an estimate of the total time.",
        flag_values=values,
    )


def define_table(values: flags.FlagValues = flags.FLAGS) -> None:
    """Define the flag that names a table."""
    flags.DEFINE(
        _TableParser(),
        "table",
        1,
        f"Number of the table in the paper, or {' or '.join(OURS)}: our tables of later methods.",
        flag_values=values,
        serializer=flags.ArgumentSerializer(),
    )


def define_table_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Define the flags for a table, its rows, its columns, and the scale."""
    flags.DEFINE_enum("dataset", "mnist", list(DATASETS), "Data set.", flag_values=values)
    define = functools.partial(flags.DEFINE_string, flag_values=values)
    define("data_dir", None, "TFDS folder (default: $ALP_REPRO_DATA_DIR or .tfds).")
    define("runs_dir", "runs", "Folder of all runs: <runs_dir>/<scale>/<dataset>/<row>.")
    define("flags_dir", str(default_flags_dir()), "Folder of the flagfiles.")
    define_table(values)
    rows = functools.partial(flags.DEFINE_list, flag_values=values)
    rows("rows", [], "Rows of the table.")
    rows("only", [], "Rows to compute; the others are shown as they are. Default: all.")
    flags.DEFINE_enum(
        "scale",
        "quick",
        SCALES,
        "smoke: a quick test, whose numbers are meaningless; quick: for two CPU cores; seeds: for "
        "several values of --training_seed; followups: the same time for each row; published: the "
        "shipped models; paper: the full protocol.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "training_seed",
        None,
        "Seed of a separate training and its attacks, in <runs_dir>/<scale>/seed<n>; see "
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
        "An additional column: METHOD[,KEY=VALUE...] as in experiments.evaluate",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "strong", False, "Add a last column with our attack `strong`.", flag_values=values
    )
    flags.DEFINE_boolean(
        "show", False, "Only print the results on disk; write nothing.", flag_values=values
    )


def fill_in_table(values: flags.FlagValues = flags.FLAGS) -> None:
    """Fill in --dataset, --rows and --grid, where not given, from the flagfile of --table.

    Raises:
      InputError: there is no such table.
    """
    folder = Path(values.flags_dir) / "tables"
    file = folder / f"{table_stem(values.table)}.cfg"
    if not file.is_file():
        known = sorted(path.stem.removeprefix("table") for path in folder.glob("*.cfg"))
        raise InputError(f"unknown --table={values.table}: {flagfiles.one_of(known, folder)}")
    fill_in(values, file, define_table_flags, ("dataset", "rows", "grid"))


def fill_in(
    values: flags.FlagValues,
    file: Path,
    define: Callable[[flags.FlagValues], None],
    names: Sequence[str] = (),
) -> None:
    """Fill in flags that are not given from a flagfile.

    Args:
      values: the flags.
      file: the flagfile.
      define: defines the flags that it may set.
      names: of the flags to fill in; default: all that `define` defines.

    Raises:
      InputError: the file sets something else.
    """
    found = flags.FlagValues()
    define(found)
    try:
        found([file.stem, *flagfiles.expand([f"--flagfile={file}"])])
    except flags.Error as error:
        raise InputError(f"{file}: {error}") from error
    for name in names or found:
        if not values[name].present:
            values[name].value = found[name].value


def default_flags_dir() -> Path:
    """Return the folder of the flagfiles that come with the program."""
    return shipped.folder("flags")


def check_finite(values: flags.FlagValues) -> None:
    """Refuse flags that are NaN or infinite, which range checks would let pass.

    Raises:
      InputError: a flag is NaN or infinite, which makes sense for none of ours.
    """
    for name in values:
        value = values[name].value
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f"--{name}={number:g}: expected a finite number")


def parse(arguments: list[str]) -> flags.FlagValues:
    """Parse arguments such as `--flagfile=…` into new flag values.

    Raises:
      InputError: an unknown flag, or a value that is not valid.
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
