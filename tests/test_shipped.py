from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from alp_repro import shipped
from alp_repro.data.sources import mnist

ROOT = Path(__file__).resolve().parents[1]


def test_a_checkout_has_them_at_its_root():
    assert shipped.checkout() == ROOT
    assert shipped.folder("flags") == ROOT / "flags"
    assert shipped.folder("mnist") == ROOT / "data" / "mnist"
    assert mnist.files_present(shipped.folder("mnist"))


def test_an_installed_package_has_them_inside(tmp_path: Path):
    package = tmp_path / "site-packages" / "alp_repro"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(ROOT / "alp_repro" / "shipped.py", package)
    for name in ("mnist", "flags"):
        (package / "packaged" / name).mkdir(parents=True)
    program = (
        "from alp_repro import shipped; "
        "print(shipped.checkout(), shipped.folder('mnist'), shipped.folder('flags'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=package.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    packaged = package / "packaged"
    assert done.stdout.split() == ["None", str(packaged / "mnist"), str(packaged / "flags")]
