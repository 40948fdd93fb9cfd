"""Reading a classifier: `.keras`, legacy `.h5`, a SavedModel folder, or Python's `module:function`.

Nothing is unpickled. Python code in a file (of a Lambda layer) and operations of a SavedModel that
can reach outside the model run only with `trust_code`. `module:function` names the user's own code,
which is run.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import h5py

from alp_repro.errors import InputError, one_line, sys_exit_refused
from alp_repro.files import expanded

if TYPE_CHECKING:
    import keras

_HDF5 = b"\x89HDF\r\n\x1a\n"
_EXPECTED = (
    "a .keras or .h5 file, a SavedModel folder, or module:function for Python code of your own"
)


def load_function_or_model(
    source: str | Path, *, trust_code: bool = False
) -> keras.Model | Callable[..., Any]:
    """Load a Keras model, or a function of images, from a file, a folder or `module:function`.

    Args:
      source: a `.keras` or legacy `.h5` file, a SavedModel folder, `package.module:name` or
        `file.py:name`, where the name is a model, a function of images, or a function without
        arguments that returns one of these.
      trust_code: also run the Python code of Lambda layers, and any operation of a SavedModel.

    Raises:
      InputError: not found, damaged, of another kind, with code that is not trusted, or its code
        calls sys.exit.
    """
    path = expanded(source)
    with sys_exit_refused(f"model {source}: its code"):
        if path.is_dir():
            return _saved_model(path, trust_code=trust_code)
        if path.is_file():
            return _keras_file(path, trust_code=trust_code)
        if ":" in str(source):
            return _python(str(source))
    raise InputError(f"model {source} does not exist: expected {_EXPECTED}")


def _keras_file(path: Path, *, trust_code: bool) -> keras.Model:
    try:
        with path.open("rb") as file:
            head = file.read(len(_HDF5))
    except OSError as error:
        raise InputError(f"model {path} cannot be read ({error.strerror})") from error
    if head == _HDF5:
        return _legacy_h5(path, trust_code=trust_code)
    if not zipfile.is_zipfile(path):
        raise InputError(f"model {path} is truncated or not a Keras file: expected {_EXPECTED}")
    return _read(path, path, trust_code=trust_code)


def _read(file: Path, path: Path, *, trust_code: bool) -> keras.Model:
    """Read `file`, which the user knows as `path`."""
    import keras

    try:
        model = keras.models.load_model(file, compile=False, safe_mode=not trust_code)
    except Exception as error:  # Keras raises errors of many kinds for a damaged or foreign file
        raise InputError(_reason(path, str(error))) from error
    if not isinstance(model, keras.Model):
        raise InputError(f"model {path}: expected a Keras model, got a {type(model).__name__}")
    return model


def _reason(path: Path, message: str) -> str:
    if "safe_mode" in message or "unsafe" in message.lower():
        return (
            f"model {path} contains Python code (a Lambda layer), which was not run: rebuild it as "
            "module:function, or trust its code (trust_code)"
        )
    short = " ".join(message.split())[:200]
    if "Could not locate" in message or "Unknown layer" in message:
        return (
            f"model {path} has a class that Keras does not know ({short}): use a function that "
            "builds the model, as module:function"
        )
    return f"model {path} cannot be read ({short})"


def _legacy_h5(path: Path, *, trust_code: bool) -> keras.Model:
    """Read a whole-model HDF5 file of Keras 2, with fixes for what Keras 3 rejects."""
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
    except Exception as error:  # h5py raises errors of many kinds for a damaged file
        raise InputError(f"model {path} is truncated or damaged ({one_line(error)})") from error
    if text is None:
        raise InputError(
            f"model {path} has weights only: save the whole model (model.save), or use a function "
            "that builds it, as module:function"
        )
    try:
        config = json.loads(text)
        classes, modernized = _classes(config), _modernize(config)
    except (ValueError, TypeError, RecursionError) as error:  # TypeError: an array, not text
        raise InputError(
            f"model {path} has a configuration that is not valid JSON ({one_line(error)})"
        ) from error
    if "Lambda" in classes and not trust_code:
        raise InputError(_reason(path, "safe_mode"))
    if not modernized:
        return _read(path, path, trust_code=trust_code)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.h5"
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = json.dumps(config)
        return _read(copy, path, trust_code=trust_code)


def _classes(config: Any) -> set[str]:
    """Return every class name in a configuration."""
    if isinstance(config, list):
        return {name for value in config for name in _classes(value)}
    if not isinstance(config, dict):
        return set()
    inner = {name for value in config.values() for name in _classes(value)}
    return inner | {str(config.get("class_name", ""))}


def _modernize(config: Any) -> bool:
    """Fix, in place, what Keras 2 wrote and Keras 3 rejects; return whether anything changed."""
    if isinstance(config, list):
        return sum(map(_modernize, config)) > 0  # not any(): all of them
    if not isinstance(config, dict):
        return False
    changed = sum(map(_modernize, config.values())) > 0
    name, settings = config.get("class_name"), config.get("config")
    if not isinstance(settings, dict):
        return changed
    if name in ("DepthwiseConv2D", "Conv2DTranspose") and settings.pop("groups", None) is not None:
        changed = True
    activation = settings.get("activation")
    if isinstance(activation, str) and activation.endswith("_v2"):  # TensorFlow 2.2's softmax_v2
        settings["activation"] = activation.removesuffix("_v2")
        changed = True
    return changed


def _saved_model(path: Path, *, trust_code: bool) -> Callable[..., Any]:
    """Return the inference function of a SavedModel."""
    if not (path / "saved_model.pb").is_file():
        raise InputError(f"model {path} is a folder without saved_model.pb: expected {_EXPECTED}")
    from alp_repro.classifiers.saved_model import load_saved_model

    return load_saved_model(path, trust_code=trust_code)


def _python(source: str) -> keras.Model | Callable[..., Any]:
    import keras

    place, _, name = source.rpartition(":")
    found: Any = _module(place)
    for part in name.split("."):
        if not hasattr(found, part):
            raise InputError(f"model {source}: {place} has no {part!r}")
        found = getattr(found, part)
    if callable(found) and not isinstance(found, keras.Model) and _needs_nothing(found):
        found = found()
    if not callable(found):
        raise InputError(
            f"model {source} is a {type(found).__name__}: expected a model, a function of images, "
            "or a function without arguments that returns one of these"
        )
    return found


def _module(place: str) -> ModuleType:
    try:
        if place.endswith(".py"):
            file = expanded(place)
            if not file.is_file():
                raise InputError(f"model: {file} does not exist")
            spec = importlib.util.spec_from_file_location(file.stem, file)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
        if "" not in sys.path:
            sys.path.insert(0, "")  # a console script's path lacks the current folder
        return importlib.import_module(place)
    except InputError:
        raise
    except Exception as error:  # whatever the user's module raises
        raise InputError(
            f"model: {place} cannot be imported ({type(error).__name__}: {error}); expected "
            f"{_EXPECTED}"
        ) from error


def _needs_nothing(function: Callable[..., Any]) -> bool:
    """Return whether it can be called without arguments: then it makes a model, else it is one."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in optional for p in parameters)
