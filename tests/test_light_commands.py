"""What needs no TensorFlow does without: it answers at once, in little memory."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from alp_repro.data import load

ROOT = Path(__file__).resolve().parents[1]
RECORD = sorted((ROOT / "results" / "published" / "mnist").glob("*/attacks/*.npz"))[0]

# What is promised, on a processor of today that has nothing else to do. A busy one takes up to
# three times the processor time for the same, since its programs share caches and cores.
SECONDS = 1.5
BUSY = 3
MEGABYTES = 250

# What takes seconds, or hundreds of megabytes, to import; and at the end the most memory that was
# taken: what the system says of a child has its parent's in it.
BLOCKER = """
import atexit, pathlib, re, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tensorflow", "keras", "tensorflow_datasets", "ray"}:
            raise RuntimeError(f"{name} is imported")

sys.meta_path.insert(0, Blocker())

@atexit.register
def note_memory():
    status = pathlib.Path("/proc/self/status").read_text()
    pathlib.Path(MEMORY_FILE).write_text(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1])
"""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended, with its processor time (user and system) and its memory."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float
    megabytes: float


@pytest.fixture
def without_tensorflow(tmp_path: Path) -> Callable[[str], Ended]:
    """Runs Python code in a process where TensorFlow cannot be imported."""

    def run(code: str) -> Ended:
        out, error, memory = (tmp_path / name for name in ("stdout", "stderr", "memory"))
        code = f"MEMORY_FILE = {str(memory)!r}\n{BLOCKER}\n{code}"
        with out.open("w") as stdout, error.open("w") as stderr:
            child = subprocess.Popen(
                [sys.executable, "-c", code], cwd=ROOT, stdout=stdout, stderr=stderr
            )
            timer = threading.Timer(120, child.kill)
            timer.start()
            _, status, usage = os.wait4(child.pid, 0)
            timer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        return Ended(
            child.returncode,
            out.read_text(encoding="utf-8"),
            error.read_text(encoding="utf-8"),
            usage.ru_utime + usage.ru_stime,
            int(memory.read_text()) / 1024,
        )

    return run


@pytest.fixture
def light(without_tensorflow: Callable[[str], Ended]) -> Callable[[str], Ended]:
    """The same, which must be quick and small."""

    def run(code: str) -> Ended:
        ended = without_tensorflow(code)
        assert ended.seconds < BUSY * SECONDS, f"{ended.seconds:.2f} s of processor time"
        assert ended.megabytes < MEGABYTES, f"{ended.megabytes:.0f} MB"
        return ended

    return run


def test_what_is_heavy_is_blocked(without_tensorflow: Callable[[str], Ended]) -> None:
    found = without_tensorflow("import tensorflow")
    assert found.returncode and "tensorflow is imported" in found.stderr


def test_a_record_is_read_and_plotted(light: Callable[[str], Ended]) -> None:
    found = light(
        "import alp_repro, matplotlib\n"
        "matplotlib.use('agg')\n"
        f"record = alp_repro.load_record({str(RECORD)!r})\n"
        "record.plot()\n"
        "print(record)\n"
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("<AttackRecord pgd")


@pytest.mark.slow
def test_an_export_is_the_function_whatever_was_imported_before() -> None:
    """Where a module has the name of the function that it defines."""
    code = "import alp_repro\n"
    for package, name in (("evaluation", "evaluate"), ("auditing", "audit"), ("training", "train")):
        code += (
            f"import alp_repro.{package}.{name}\n"
            f"from alp_repro.{package} import {name}\n"
            f"assert callable({name}) and alp_repro.{name} is {name}\n"
        )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
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
def test_help(binary: str, light: Callable[[str], Ended]) -> None:
    found = light(command(binary, "--help"))
    assert "--helpfull" in found.stdout and not found.stderr, found.stderr


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A copy of the stored results, for commands that write beside them."""
    return Path(shutil.copytree(ROOT / "results", tmp_path / "results"))


LIGHT = {
    "show": ["table", "--flagfile=flags/tables/table1.cfg", "--scale=published", "--show"],
    "show without data": [
        "table",
        "--flagfile=flags/tables/table1.cfg",
        "--scale=published",
        "--show",
    ],
    "claims": ["claims", "--scale=published"],
    "seeds": ["seeds"],
    "report": ["report", "--scale=published"],
    "followups": ["followups"],
}


@pytest.mark.parametrize("name", LIGHT)
def test_stored_results_are_told(
    name: str, results: Path, mnist_data_dir: Path, light: Callable[[str], Ended]
) -> None:
    binary, *arguments = LIGHT[name]
    if name == "report":
        arguments = [*arguments, f"--out={results}/page.html"]
    elif name == "show":
        # The images are compared with the results' by what is kept of them when they are read.
        load.load_split("mnist", "test", data_dir=mnist_data_dir)
        arguments = [*arguments, f"--data_dir={mnist_data_dir}"]
    elif name == "show without data":
        arguments = [*arguments, f"--data_dir={results / 'nothing'}"]
    found = light(command(binary, *arguments, f"--runs_dir={results}"))
    assert found.returncode == 0, found.stderr
    # Showing writes nothing.
    told = "Table 1, mnist" if name.startswith("show") else f"{results}"
    assert told in found.stdout


def test_verify_refuses_at_once(results: Path, light: Callable[[str], Ended]) -> None:
    unknown = light(command("verify", "--rows=nosuch", f"--results_dir={results}"))
    assert unknown.returncode == 2 and "no numbers of nosuch" in unknown.stderr
    lost = next((results / "published/mnist/clp/attacks").glob("*.npz"))
    lost.unlink()
    lacking = light(command("verify", f"--results_dir={results}"))
    assert lacking.returncode == 2 and "git checkout" in lacking.stderr
