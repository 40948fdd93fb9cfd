"""Runs commands of ours one after the other, each in a fork of a process that has the libraries.

    python -m tests.command_runner < commands.json

TensorFlow is imported once instead of once a command; the forks begin before it touches a device.
Reads a JSON list of [name, what, argument, …], where `what` is a module or a file of Python code,
and writes {name: [exit code, output]}.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NoReturn

Ends = dict[str, tuple[int, str]]
ROOT = Path(__file__).resolve().parents[1]


def run_all(commands: list[list[str]], *, cwd: Path, **environment: str) -> Ends:
    """Run this file as a process.

    Args:
      commands: [name, what, argument, …] each.
      cwd: the folder in which they run.
      environment: variables besides those of this process.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.command_runner"],
        input=json.dumps(commands),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: Ends = {name: (code, output) for name, (code, output) in json.loads(done.stdout).items()}
    return found


def run(what: str, arguments: list[str]) -> tuple[int, str]:
    """Exit code and output of one program."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if not child:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            become(what, arguments)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        return code, output.read().decode("utf-8", "replace")


def become(what: str, arguments: list[str]) -> NoReturn:
    """Does in this process what `python` with these arguments would do."""
    code: object = 1
    try:
        sys.argv = [what, *arguments]
        if what.endswith(".py"):
            runpy.run_path(what, run_name="__main__")
        else:
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def main() -> None:
    # What the forks shall have. Not at the top: a test takes `run_all` from here.
    import keras  # noqa: F401

    import alp_repro.attacks.programs
    import alp_repro.auditing.audit
    import alp_repro.evaluation.evaluate
    import alp_repro.reporting.report
    import alp_repro.training.train  # noqa: F401

    commands = json.load(sys.stdin)
    ended = {name: run(what, arguments) for name, what, *arguments in commands}
    json.dump(ended, sys.stdout)


if __name__ == "__main__":
    main()
