"""Sets TensorFlow and Keras up before they are imported; importing `alp_repro` does this.

Keras reads its settings once, when it is imported. With another backend, number type or order of
axes, errors would appear late and elsewhere.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from alp_repro.errors import InputError
from alp_repro.system import kernels

NEEDED = {"backend": "tensorflow", "floatx": "float32", "image_data_format": "channels_last"}


def check_keras() -> None:
    """Check Keras' backend, number type and order of axes, without importing Keras.

    Raises:
      InputError: one of them is not what this package requires.
    """
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(
        keras, "config"
    ):  # whatever the file says now: it was read then
        found = {name: getattr(keras.config, name)() for name in NEEDED}
        where = dict.fromkeys(NEEDED, "Keras, already imported,")
    else:
        file = _settings_file()
        found, where = _settings(file), dict.fromkeys(NEEDED, str(file))
        if "KERAS_BACKEND" in os.environ:
            found["backend"] = os.environ["KERAS_BACKEND"]
            where["backend"] = "the environment variable KERAS_BACKEND"
    for name, needed in NEEDED.items():
        if found.get(name, needed) != needed:
            raise InputError(
                f"{where[name]} sets Keras' {name} to {found[name]!r}: expected {needed}; change "
                "or remove this setting"
            )


def _settings_file() -> Path:
    """Return the file that Keras reads; it uses /tmp if the home folder is not writable."""
    if "KERAS_HOME" in os.environ:
        return Path(os.environ["KERAS_HOME"]) / "keras.json"
    home = os.path.expanduser("~")
    return Path(home if os.access(home, os.W_OK) else "/tmp", ".keras", "keras.json")


def _settings(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # Keras takes its defaults then
        return {}
    if not isinstance(found, dict):
        raise InputError(
            f"{file} contains a {type(found).__name__}: expected Keras' settings; remove it"
        )
    return found


check_keras()
kernels.choose()  # before TensorFlow is imported
