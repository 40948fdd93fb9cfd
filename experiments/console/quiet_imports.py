"""How TensorFlow is imported, wherever it is first needed.

Its libraries write to stderr before any log level takes effect, and would bury our one-line
messages. And native modules turn an interrupt during their import into an error of their own.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from . import error_exit


class _Loader(importlib.abc.Loader):
    """Loads TensorFlow by its own loader, without output on stderr."""

    def __init__(self, own: importlib.abc.Loader) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with error_exit.interrupts_end_at_once(), _native_notes_hidden():
            self._own.exec_module(module)
            module.config.list_physical_devices()  # loads the GPU libraries, which write too


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow, once."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def watch() -> None:
    """Silence what TensorFlow's libraries print when they are imported."""
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


@contextlib.contextmanager
def _native_notes_hidden() -> Iterator[None]:
    """Discard what native code writes to stderr, unless the block raises an error."""
    with tempfile.TemporaryFile() as notes:
        stderr = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except Exception:
            notes.seek(0)
            os.write(stderr, notes.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
