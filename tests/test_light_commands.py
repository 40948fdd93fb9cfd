"""What needs no TensorFlow does without: it answers at once, in little memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECORD = sorted((ROOT / "results" / "published" / "mnist").glob("*/attacks/*.npz"))[0]

# What takes seconds, or hundreds of megabytes, to import.
BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tensorflow", "keras", "tensorflow_datasets", "ray"}:
            raise RuntimeError(f"{name} is imported")

sys.meta_path.insert(0, Blocker())
"""


def without_tensorflow(code: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a process where TensorFlow cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKER + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_is_heavy_is_blocked() -> None:
    found = without_tensorflow("import tensorflow")
    assert found.returncode and "tensorflow is imported" in found.stderr


def test_a_record_is_read_and_plotted() -> None:
    found = without_tensorflow(
        "import alp_repro, matplotlib\n"
        "matplotlib.use('agg')\n"
        f"record = alp_repro.load_record({str(RECORD)!r})\n"
        "record.plot()\n"
        "print(record)\n"
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("<AttackRecord pgd")


@pytest.mark.parametrize("name", ["evaluate", "audit", "train"])
def test_an_export_is_the_function_whatever_was_imported_before(name: str) -> None:
    """Where a module has the name of the function that it defines."""
    package = {"evaluate": "evaluation", "audit": "auditing", "train": "training"}[name]
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import alp_repro.{package}.{name}\n"
            f"from alp_repro.{package} import {name}\n"
            f"import alp_repro\n"
            f"assert callable({name}) and alp_repro.{name} is {name}\n",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stderr


BINARIES = sorted(
    file.stem
    for file in (ROOT / "experiments").glob("*.py")
    if "app.run(main)" in file.read_text(encoding="utf-8")
)


def command(binary: str, *arguments: str) -> str:
    """Code that runs a binary as its user does."""
    argv = [f"experiments.{binary}", *arguments]
    return (
        f"import runpy, sys\nsys.argv = {argv!r}\n"
        f"runpy.run_module('experiments.{binary}', run_name='__main__', alter_sys=True)\n"
    )


@pytest.mark.parametrize("binary", BINARIES)
def test_help(binary: str) -> None:
    found = without_tensorflow(command(binary, "--help"))
    assert "--helpfull" in found.stdout and not found.stderr, found.stderr


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A copy of the stored results, for commands that write beside them."""
    return Path(shutil.copytree(ROOT / "results", tmp_path / "results"))


LIGHT = {
    "show": ["table", "--flagfile=flags/tables/table1.cfg", "--scale=published", "--show"],
    "claims": ["claims", "--scale=published"],
    "seeds": ["seeds"],
    "report": ["report", "--scale=published"],
}


@pytest.mark.parametrize("name", LIGHT)
def test_stored_results_are_told(name: str, results: Path) -> None:
    binary, *arguments = LIGHT[name]
    if name == "report":
        arguments = [*arguments, f"--out={results}/page.html"]
    elif name == "show":
        # Of a prepared data set the images are compared with the results', which TFDS reads.
        arguments = [*arguments, f"--data_dir={results / 'nothing'}"]
    found = without_tensorflow(command(binary, *arguments, f"--runs_dir={results}"))
    assert found.returncode == 0, found.stderr
    told = "Table 1, mnist" if name == "show" else f"{results}"  # showing writes nothing
    assert told in found.stdout


def test_verify_refuses_at_once(results: Path) -> None:
    unknown = without_tensorflow(command("verify", "--rows=nosuch", f"--results_dir={results}"))
    assert unknown.returncode == 2 and "no numbers of nosuch" in unknown.stderr
    lost = next((results / "published/mnist/clp/attacks").glob("*.npz"))
    lost.unlink()
    lacking = without_tensorflow(command("verify", f"--results_dir={results}"))
    assert lacking.returncode == 2 and "git checkout" in lacking.stderr
