"""The location of the files that come with the project: MNIST, flagfiles, published results.

A checkout has them at its root (`data/mnist`, `flags`), an installed package in a folder of its
own (`alp_repro/packaged/mnist`, `alp_repro/packaged/flags`), where setup.py puts them.
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path

_IN_CHECKOUT = {"mnist": "data/mnist", "flags": "flags", "results": "results"}


def checkout() -> Path | None:
    """Return the root of the checkout that contains this module; None if it is installed."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "setup.py").is_file() or (root / ".git").exists() else None


def folder(name: str) -> Path:
    """Return the folder "mnist", "flags" or "results", which an installed package may lack."""
    root = checkout()
    if root is not None and (root / _IN_CHECKOUT[name]).is_dir():
        return root / _IN_CHECKOUT[name]
    return Path(str(importlib.resources.files("alp_repro"))) / "packaged" / name
