"""Exports of a package that are imported when they are first used (PEP 562).

So reading a result does not import TensorFlow, and printing a table does not import matplotlib.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    """A package whose exports may have the name of the module that defines them.

    Importing the module `evaluation.evaluate` would otherwise replace the function of that name in
    the package.
    """

    _exports: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        where = self._exports.get(name)
        if where is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(where), name)
        self.__dict__[name] = found
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in self._exports and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._exports})


def export(package: str, modules: Mapping[str, tuple[str, ...]]) -> None:
    """Make names available from a package, each imported from its module at its first use.

    Args:
      package: its `__name__`.
      modules: the names that each module defines, by the module's dotted name.
    """
    module = sys.modules[package]
    module.__dict__["_exports"] = {
        name: where for where, names in modules.items() for name in names
    }
    module.__class__ = _Package
