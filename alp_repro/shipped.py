"""Where the files lie that come with the project: MNIST and the experiments' flagfiles.

A checkout has them at its root (`data/mnist`, `flags`), an installed package in a folder of its
own (`alp_repro/packaged/mnist`, `alp_repro/packaged/flags`), where setup.py puts them.
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path

_IN_CHECKOUT = {"mnist": "data/mnist", "flags": "flags", "results": "results"}


def checkout() -> Path | None:
    """The root of the checkout that this module lies in; None when the package is installed."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "setup.py").is_file() or (root / ".git").exists() else None


def folder(name: str) -> Path:
    """The folder "mnist", "flags" or "results"; it need not exist (a package has no results)."""
    root = checkout()
    if root is not None and (root / _IN_CHECKOUT[name]).is_dir():
        return root / _IN_CHECKOUT[name]
    return Path(str(importlib.resources.files("alp_repro"))) / "packaged" / name
