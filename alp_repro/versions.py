"""The version of this package, and those of the packages that results depend on."""

from __future__ import annotations

import importlib.metadata
import sys

# pyproject.toml reads it here, and a test compares it with CITATION.cff.
VERSION = "0.2.0"

_PACKAGES = ("tensorflow", "keras", "cleverhans", "numpy")


def package_versions() -> dict[str, str]:
    """Return each package's version, also if its distribution has another name (tensorflow-cpu)."""
    return {name: _version(name) for name in _PACKAGES}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
    version = getattr(sys.modules.get(name), "__version__", None)
    if version is not None:
        return str(version)
    others = importlib.metadata.packages_distributions().get(name)
    return importlib.metadata.version(others[0]) if others else "not installed"
