"""Imports published TF 1.x checkpoints as models and runs, by their variables' names."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro import files, runs
from alp_repro.data.specs import dataset_spec
from alp_repro.errors import InputError
from alp_repro.models import build_model

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

MOVING_AVERAGE_SUFFIX = "/ExponentialMovingAverage"
# Variables of TF 1.x optimizers and savers, which no model needs.
OPTIMIZER_SLOTS = (
    *("/Adadelta", "/Adadelta_1", "/Adagrad", "/Adam", "/Adam_1", "/Ftrl", "/Ftrl_1"),
    *("/Momentum", "/RMSProp", "/RMSProp_1", "/RMSProp_2"),
)
# The same, by the last part of the name: the authors' are in a scope, `Optimizer/beta1_power`.
BOOKKEEPING = ("global_step", "beta1_power", "beta2_power")

_BATCH_NORM_STATISTICS = ("moving_mean", "moving_variance")
_TF1_WEIGHT_NAMES = {"kernel": "weights", "bias": "biases"}
_SLIM_UNIT = re.compile(r"(block\d)_unit(\d)_(.+)")


@dataclasses.dataclass(frozen=True)
class CheckpointFormat:
    """One publisher's variable names: scope(layer name), and the models there are files of."""

    models: tuple[str, ...]
    scope: Callable[[str], str]


def _authors_scope(layer_name: str) -> str:
    """`conv1` → `conv1_vars`, `batch_norm_conv2` → `batch-norm-conv2`."""
    if layer_name.startswith("batch_norm_"):
        return layer_name.replace("_", "-")
    return f"{layer_name}_vars"


def _slim_scope(layer_name: str) -> str:
    """`block1_unit2_conv1_norm` → `resnet_v2_50/block1/unit_2/bottleneck_v2/conv1/BatchNorm`."""
    unit = _SLIM_UNIT.fullmatch(layer_name)
    if unit is not None:
        block, number, part = unit.groups()
        part = re.sub("_norm$", "/BatchNorm", part)
        layer_name = f"{block}/unit_{number}/bottleneck_v2/{part}"
    return f"resnet_v2_50/{layer_name}"


FORMATS: dict[str, CheckpointFormat] = {
    "authors": CheckpointFormat(models=("lenet", "resnet20_v2"), scope=_authors_scope),
    "slim": CheckpointFormat(models=("resnet50_v2",), scope=_slim_scope),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Import:
    """A checkpoint to import, and the run to make from it.

    Attributes:
      checkpoint: as in `load_tf1_weights`.
      checkpoint_format: a name in `FORMATS`.
      model: a name in `models.MODELS`.
      dataset: the data set that the run is evaluated on; it gives the images' shape.
      num_classes: None for the data set's.
      width: of the model; None for the paper's.
      pixel_range: what the checkpoint was trained on; the model made from it takes [0, 1].
      moving_averages: take the averages of the weights in place of the weights.
    """

    checkpoint: Path
    checkpoint_format: str
    model: str
    dataset: str
    num_classes: int | None = None
    width: int | None = None
    pixel_range: tuple[float, float] = (0.0, 1.0)
    moving_averages: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain data, as for `json`."""
        return {**dataclasses.asdict(self), "checkpoint": str(self.checkpoint)}


def import_run(source: Import, run: runs.RunDir) -> tuple[str, ...]:
    """Import a TF 1.x checkpoint as a finished run; return the names of ignored variables.

    A run that was made from the same checkpoint is left unchanged.

    Raises InputError as `load_tf1_weights` and `build_model` do, before anything is written, and
    for a run folder that contains another model, is in use by another process, or cannot be
    written to.
    """
    spec = dataset_spec(source.dataset)
    num_classes = spec.num_classes if source.num_classes is None else source.num_classes
    if num_classes < spec.num_classes:
        raise InputError(
            f"a model of {num_classes} classes cannot be evaluated on {spec.name}, "
            f"which has {spec.num_classes}"
        )
    model = build_model(
        source.model,
        image_shape=spec.image_shape,
        num_classes=num_classes,
        width=source.width,
        pixel_range=source.pixel_range,
    )
    ignored = load_tf1_weights(
        model,
        source.checkpoint,
        checkpoint_format=source.checkpoint_format,
        moving_averages=source.moving_averages,
    )
    settings = {"imported": source.to_json(), "weights": runs.weights_hash(model)}
    with run.exclusive():
        _claim(run, settings)
        if not run.finished:
            runs.save_model(run.model, model)
            recipe = {"dataset": spec.name, "model": source.model, "model_width": source.width}
            files.write_json(run.recipe, {"recipe": recipe, **settings, **runs.provenance()})
    return ignored


def _claim(run: runs.RunDir, settings: dict[str, Any]) -> None:
    """Claim the folder for this import, as a training does for itself."""
    mark = run.settings
    if mark.exists() or run.model.exists() or run.recipe.exists() or run.backup.exists():
        found = files.read_json(mark) if mark.exists() else None
        if found != files.as_json_data(settings):
            raise InputError(
                f"{run.path} already has another model: choose another run folder, or remove it"
            )
    files.write_json(mark, settings)


def variable_names(model: keras.Model, *, checkpoint_format: str) -> dict[str, keras.Variable]:
    """Name every weight of a model from `build_model` as the publisher's checkpoint does.

    Kernels need no transposition: TF 1.x and Keras both keep convolutions as (height, width, in,
    out) and dense layers as (in, out), and both flatten images row by row, channels last.

    Raises InputError for an unknown format and for a model that was never published in it.

    Source: protocol, "The released models"; TF-slim's `resnet_v2_50`.
    """
    published = FORMATS.get(checkpoint_format)
    if published is None:
        raise InputError(
            f"unknown checkpoint format {checkpoint_format!r}: expected one of {', '.join(FORMATS)}"
        )
    if model.name not in published.models:
        raise InputError(
            f"the format {checkpoint_format!r} has no checkpoints of {model.name}: expected one of "
            f"{', '.join(published.models)}"
        )
    return {
        f"{published.scope(layer.name)}/{_TF1_WEIGHT_NAMES.get(weight.name, weight.name)}": weight
        for layer in model.layers
        for weight in layer.weights
    }


def load_tf1_weights(
    model: keras.Model,
    checkpoint: Path | str,
    *,
    checkpoint_format: str,
    moving_averages: bool = False,
) -> tuple[str, ...]:
    """Set all weights of `model` from a TF 1.x checkpoint; return the names that were ignored.

    `checkpoint` is the path that TF 1.x would restore (`…/model.ckpt`), one of the files that
    make it up, or a folder, of which the newest checkpoint is taken. With `moving_averages`,
    weights come from `NAME/ExponentialMovingAverage`; batch-norm statistics do where the
    checkpoint averages them, and are the plain ones where it does not.

    Ignored are the step counter, the optimizers' variables (`BOOKKEEPING`, and `OPTIMIZER_SLOTS`
    of the model's own variables, both in any scope) and whichever of plain values and moving
    averages is not asked for. Anything else in the file means that it holds another model.

    Raises InputError if the files cannot be read or are damaged, if a value is not finite, and,
    naming them all at once, if variables are missing, surplus, or of another shape or type. The
    model is unchanged then.
    """
    import tensorflow as tf

    weights = variable_names(model, checkpoint_format=checkpoint_format)
    path = _checkpoint_prefix(checkpoint)
    with _reading(path):
        reader = tf.train.load_checkpoint(path)
    shapes = reader.get_variable_to_shape_map()
    dtypes = reader.get_variable_to_dtype_map()

    if moving_averages and not any(name.endswith(MOVING_AVERAGE_SUFFIX) for name in shapes):
        raise InputError(f"{path} contains no moving averages: import its plain weights")
    sources = _sources(weights, shapes, moving_averages=moving_averages)
    ignored = {name for name in shapes if _is_ignored(name, weights)} - set(sources.values())
    problems = [
        *_listed("missing", set(sources.values()) - set(shapes)),
        *_listed("unexpected", set(shapes) - set(sources.values()) - ignored),
        *_listed("of another shape or type", _misfits(weights, sources, shapes, dtypes)),
    ]
    if problems:
        raise InputError(
            f"{path} does not contain the variables of this {model.name} "
            f"(format {checkpoint_format!r}): {'; '.join(problems)}"
        )

    with _reading(path):
        values = {name: reader.get_tensor(source) for name, source in sources.items()}
    broken = [sources[name] for name, value in values.items() if not np.isfinite(value).all()]
    if broken:
        raise InputError(f"{path} contains values that are not finite: {', '.join(sorted(broken))}")
    for name, value in values.items():
        weights[name].assign(value)
    return tuple(sorted(ignored))


def _checkpoint_prefix(checkpoint: Path | str) -> str:
    import tensorflow as tf

    path = Path(checkpoint)
    if path.is_dir():
        with _reading(f"{path / 'checkpoint'}"):
            newest = tf.train.latest_checkpoint(str(path))
        if newest is None:
            raise InputError(
                f"the folder {path} has no TF 1.x checkpoint listed in a file 'checkpoint': "
                "expected the path of one, such as …/model.ckpt"
            )
        return newest
    prefix = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", str(path))
    if not (Path(f"{prefix}.index").is_file() or Path(prefix).is_file()):
        raise InputError(
            f"there is no checkpoint at {prefix}: neither {prefix} nor {prefix}.index exists"
        )
    return prefix


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Report a damaged file in one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of many kinds, for a damaged file
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} could not be read as a TF 1.x checkpoint, it is damaged, incomplete or "
            f"something else: {reason}"
        ) from error


def _sources(
    weights: Iterable[str], available: Iterable[str], *, moving_averages: bool
) -> dict[str, str]:
    """Return, for each variable of the model, the variable of the checkpoint to load."""
    if not moving_averages:
        return {name: name for name in weights}
    available = set(available)
    sources = {}
    for name in weights:
        average = name + MOVING_AVERAGE_SUFFIX
        # TF 1.x averages batch-norm statistics only when told to; they are averages by themselves.
        plain = name.endswith(_BATCH_NORM_STATISTICS) and average not in available
        sources[name] = name if plain else average
    return sources


def _is_ignored(name: str, weights: Iterable[str]) -> bool:
    if name.rpartition("/")[2] in BOOKKEEPING:
        return True
    for suffix in ("", MOVING_AVERAGE_SUFFIX):
        if name.endswith(suffix) and name.removesuffix(suffix) in weights:
            return True
    slots_of = {name.removesuffix(slot) for slot in OPTIMIZER_SLOTS if name.endswith(slot)}
    # A variable scope around the optimizer is in the slots' names: `Optimizer/…/weights/Adam`.
    return any(owner in weights or owner.partition("/")[2] in weights for owner in slots_of)


def _misfits(
    weights: dict[str, keras.Variable],
    sources: dict[str, str],
    shapes: dict[str, list[int]],
    dtypes: dict[str, tf.DType],
) -> list[str]:
    import tensorflow as tf

    misfits = []
    for name, source in sources.items():
        if source not in shapes:
            continue
        found, wanted = tuple(shapes[source]), tuple(weights[name].shape)
        if found != wanted:
            misfits.append(f"{source} is {found}, not {wanted}")
        elif dtypes[source] != tf.float32:
            misfits.append(f"{source} is {dtypes[source].name}, not float32")
    return misfits


def _listed(what: str, names: Iterable[str]) -> list[str]:
    names = sorted(names)
    return [f"{len(names)} {what}: {', '.join(names)}"] if names else []
