"""The project as pip installs it, away from the checkout; built once for all tests that want it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_IN_THE_WHEEL = ("alp_repro", "experiments", "flags", "data", "setup.py", "pyproject.toml")
_READ_BY_IT = ("README.md", "LICENSE")


@dataclasses.dataclass(frozen=True)
class Installed:
    """An installation: its site-packages, an empty working folder, and a folder for data sets."""

    site: Path
    work: Path
    data_dir: Path

    def run(self, script: str, *flags: str) -> subprocess.CompletedProcess[str]:
        """Calls a console script in the working folder, where there is no checkout."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.site),
            "ALP_REPRO_DATA_DIR": str(self.data_dir),
            "CUDA_VISIBLE_DEVICES": "",
        }
        return subprocess.run(
            [str(self.site / "bin" / script), *flags],
            cwd=self.work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Built from a copy, since a build writes beside the sources; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("installed")
    tree, site, work = folder / "tree", folder / "site", folder / "work"
    tree.mkdir()
    work.mkdir()
    for name in _IN_THE_WHEEL:
        if (ROOT / name).is_dir():
            leave = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tree / name, ignore=leave)
        else:
            shutil.copy(ROOT / name, tree)
    for name in _READ_BY_IT:
        shutil.copy(ROOT / name, tree)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, *alone, f"--target={site}", str(tree)], check=True)
    return Installed(site, work, folder / "tfds")
