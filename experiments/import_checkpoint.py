r"""Imports a published TF 1.x checkpoint as a run, which `evaluate` and `table` use like any other.

    python -m experiments.import_checkpoint --format=authors --model=lenet \
        --checkpoint=downloads/mnist_clp/model.ckpt --run_dir=runs/published/mnist/clp

The authors published LeNet and ResNet20-v2 (`--format=authors`) and TF-slim's ResNet50-v2
(`--format=slim`; the fine-tuned Plain + ALP LL model was trained on `--pixel_range=-1..1`).
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from alp_repro.checkpoints import FORMATS, Import, import_run
from alp_repro.data.specs import DATASETS
from alp_repro.errors import InputError
from alp_repro.models import MODELS
from alp_repro.runs import RunDir

from .console import app

DATASET_OF_MODEL = {spec.model: spec.name for spec in DATASETS.values()}
PIXEL_RANGES = {"0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0)}

FORMAT = flags.DEFINE_enum(
    "format", None, list(FORMATS), "Format of the checkpoint, that is, its variables' names."
)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "The checkpoint: …/model.ckpt, one of its files, or the folder of a training.",
)
MODEL = flags.DEFINE_enum("model", None, list(MODELS), "Architecture.")
RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the new run.")
MOVING_AVERAGES = flags.DEFINE_bool(
    "moving_averages", False, "Import the moving averages of the weights instead of the weights."
)
PIXEL_RANGE = flags.DEFINE_enum(
    "pixel_range",
    "0..1",
    list(PIXEL_RANGES),
    "Range of the pixels that the model was trained on; attacks use the 0–255 scale in any case.",
)
DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "Data set to evaluate on (default: the one that the model was published for).",
)
NUM_CLASSES = flags.DEFINE_integer(
    "num_classes",
    None,
    "Number of logits (default: the number of the data set's classes).",
    lower_bound=2,
    upper_bound=100_000,
)
MODEL_WIDTH = flags.DEFINE_integer(
    "model_width",
    None,
    "Width of the model (default: the paper's).",
    lower_bound=1,
    upper_bound=4096,
)


def main(_: list[str]) -> None:
    """Import one checkpoint, and print which variables were left out."""
    model = _given(MODEL)
    source = Import(
        checkpoint=Path(_given(CHECKPOINT)),
        checkpoint_format=_given(FORMAT),
        model=model,
        dataset=DATASET.value or DATASET_OF_MODEL[model],
        num_classes=NUM_CLASSES.value,
        width=MODEL_WIDTH.value,
        pixel_range=PIXEL_RANGES[PIXEL_RANGE.value],
        moving_averages=MOVING_AVERAGES.value,
    )
    run_dir = RunDir(Path(_given(RUN_DIR)))
    ignored = import_run(source, run_dir)
    if ignored:
        print(f"ignored {len(ignored)} variables that the model does not use, as {ignored[0]}")
    print(f"imported {source.model} from {source.checkpoint} to {run_dir.path}")


def _given(flag: flags.FlagHolder[str | None]) -> str:
    if flag.value is None:
        raise InputError(f"--{flag.name} is required")
    return flag.value


def cli() -> None:
    """Run the console script."""
    app.run(main)


if __name__ == "__main__":
    cli()
