"""TensorFlow is imported when it is first needed, wherever that is: here, how.

Its libraries greet on stderr before any log level counts, and would bury our one-line messages. And
an interrupt that native modules meet while they are imported would end as an error of theirs.
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

from . import door


class _Loader(importlib.abc.Loader):
    """Loads TensorFlow as its own loader does."""

    def __init__(self, own: importlib.abc.Loader) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with door.interrupts_end_at_once(), _native_notes_hidden():
            self._own.exec_module(module)
            module.config.list_physical_devices()  # loads the GPU libraries, which greet too


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
    """Let TensorFlow, when it comes to be imported, keep its greetings to itself."""
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


@contextlib.contextmanager
def _native_notes_hidden() -> Iterator[None]:
    """Keeps what native code writes to stderr to itself, unless an error ends the block."""
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
