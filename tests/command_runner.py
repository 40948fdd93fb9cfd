"""Runs commands of ours one after the other, each in a fork of a process that has the libraries.

    python -m tests.command_runner

TensorFlow is imported once for all tests of a process instead of once a command; the forks begin
before it touches a device. Reads a line of JSON a command and writes its exit code and output.
"""

from __future__ import annotations

import atexit
import functools
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
    """Run commands one after the other.

    Args:
      commands: [name, what, argument, …] each, where `what` is a module or a file of Python code.
      cwd: the folder in which they run.
      environment: variables besides those of this process. What libraries read when they are
        imported is as it was for the first command.
    """
    found = {}
    for name, what, *arguments in commands:
        server = _server()
        assert server.stdin is not None and server.stdout is not None
        asked = [what, arguments, str(cwd), {**os.environ, **environment, **_ALWAYS}]
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        code, output = json.loads(server.stdout.readline())
        found[name] = (code, output)
    return found


_ALWAYS = {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


@functools.cache
def _server() -> subprocess.Popen[str]:
    """This file as a process, which ends with this one."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.command_runner"],
        cwd=ROOT,
        env={**os.environ, **_ALWAYS},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    atexit.register(server.wait)
    atexit.register(server.stdin.close)
    return server


def run(what: str, arguments: list[str], cwd: str, environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and output of one program."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the next commands are the server's
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(environment)
            become(what, arguments)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        return code, output.read().decode("utf-8", "replace")


def become(what: str, arguments: list[str]) -> NoReturn:
    """Does in this process what `python` with these arguments would do."""
    code: object = 1
    try:
        encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding=encoding, errors=stream.errors)  # type: ignore[union-attr]
        sys.path[0] = os.getcwd()
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

    for line in sys.stdin:
        print(json.dumps(run(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
