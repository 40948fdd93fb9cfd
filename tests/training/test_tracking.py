"""What other tools see of a training, as docs/track_a_training.md describes it."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alp_repro
from alp_repro.data import Images
from alp_repro.errors import InputError
from alp_repro.runs import RunDir
from tests.small_model import small_images, small_labels, small_model

PAGE = Path(__file__).resolve().parents[2] / "docs" / "track_a_training.md"
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RECIPE = alp_repro.Recipe(dataset="mnist", model="lenet", model_width=2, epochs=1, batch_size=2)


def some_images() -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), dtype=np.uint8)
    return Images(pixels, np.arange(4, dtype=np.int32), np.arange(4), "test")


def tags(folder: Path) -> set[str]:
    """Return the names of the values in the event files of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {*events.Tags()["scalars"], *events.Tags()["tensors"]}


@pytest.fixture
def page_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page's indented examples have defined when they have run in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    model, images = small_model(), small_images(40)
    labels = small_labels(model, images)
    names = {"model": model, "x_train": images, "y_train": labels, "x_val": images[:6]}
    names["y_val"] = labels[:6]
    outside_fences = FENCED.sub("", PAGE.read_text(encoding="utf-8"))
    exec("\n".join(re.findall(r"^ {4}(.*)", outside_fences, re.MULTILINE)), names)
    return names


# The model is so rugged that the training attack is fooled, which is not what is tested here.
@pytest.mark.filterwarnings("ignore:epoch .* withstand")
def test_a_csv_file_has_what_is_logged(page_names: dict[str, Any], tmp_path: Path) -> None:
    with (tmp_path / "training.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2
    assert {"alp", "adversarial_ce", "accuracy", "robust_accuracy"} <= set(lines[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:epoch .* withstand")
def test_tensorboard_has_what_is_logged(page_names: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    blocks = [code for _, code in FENCED.findall(PAGE.read_text(encoding="utf-8"))]
    (code,) = (code for code in blocks if "keras.callbacks.TensorBoard" in code)
    exec(code, page_names)
    assert {"epoch_robust_accuracy", "epoch_alp"} <= tags(tmp_path / "logs" / "alp" / "train")


def test_a_row_writes_event_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    alp_repro.train(RECIPE, RunDir(tmp_path), some_images(), tensorboard=True, verbose=0)
    assert "epoch_loss" in tags(tmp_path / "tensorboard" / "train")


def test_without_tensorboard_it_is_one_line_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # importing it fails
    with pytest.raises(InputError, match="TensorBoard is missing: pip install"):
        alp_repro.train(RECIPE, RunDir(tmp_path / "run"), some_images(), tensorboard=True)
    assert not (tmp_path / "run").exists()
