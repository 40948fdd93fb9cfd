"""What `import alp_repro` offers in a notebook."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

import alp_repro
from alp_repro import runs


def test_importing_the_library_does_not_import_tfds() -> None:
    asked = "import sys, alp_repro; print('tensorflow_datasets' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "False"


def test_all_that_is_offered_is_there() -> None:
    assert all(callable(getattr(alp_repro, name)) for name in alp_repro.__all__)


def test_a_model_is_loaded_and_evaluated_and_its_record_read(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, tmp_path: Path
) -> None:
    runs.save_model(tmp_path / "model.keras", model)
    loaded = alp_repro.load_model(str(tmp_path / "model.keras"))
    attack = alp_repro.PGD(eps=0.05, eps_iter=0.02, nb_iter=2)
    record = alp_repro.evaluate(loaded, images, labels, attack=attack, folder=str(tmp_path))
    (file,) = tmp_path.glob("*.npz")
    found = alp_repro.load_record(str(file))
    np.testing.assert_array_equal(found.first_break, record.first_break)
