"""How TensorFlow and Keras must be set up before they are imported; done as `alp_repro` is.

Keras reads its settings once, when it is itself imported, and with another backend, number type or
order of axes what goes wrong would show late and elsewhere.
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
      InputError: one of them is another than everything here needs.
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
                f"{where[name]} sets Keras' {name} to {found[name]!r}: {needed} is needed; set "
                "it so, or leave it out"
            )


def _settings_file() -> Path:
    """Where Keras looks, which takes /tmp for a home that cannot be written to."""
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
        raise InputError(f"{file} holds a {type(found).__name__}, no settings of Keras: remove it")
    return found


check_keras()
kernels.choose()  # before TensorFlow is imported
