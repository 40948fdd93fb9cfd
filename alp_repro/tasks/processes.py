"""Runs tasks on this machine: one after the other in this process, or several in others."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess

from alp_repro.system import interrupts
from alp_repro.system.orphans import STOP_SECONDS, end_after
from alp_repro.tasks.task import Ended, Lines, Status, Task, run_task


def run_here(
    tasks: Sequence[Task], *, report_status: Callable[[Task, Status], None]
) -> Iterator[Ended]:
    """Run the tasks one after the other in this process; a failure does not stop the others."""
    for task in tasks:
        started = time.monotonic()
        error = run_task(task, functools.partial(report_status, task))
        yield Ended(task, time.monotonic() - started, error)


def run_in_processes(
    tasks: Sequence[Task],
    *,
    jobs: int,
    report_status: Callable[[Task, Status], None],
    report_line: Callable[[Task, str], None],
    preload: Sequence[str] | None,
) -> Iterator[Ended]:
    """Run up to `jobs` tasks at a time, each in its own process, and yield them as they end.

    When the iterator is closed, for example by Ctrl-C, running tasks are stopped by SIGTERM and
    waited for. They are also stopped when this process is killed.

    Args:
      tasks: the tasks in the order to start them; they are pickled.
      jobs: the number of tasks to run at a time.
      report_status: called with a task and its status.
      report_line: called with a task and each line that it prints.
      preload: modules to import once, in a server that the processes are forked from; None: each
        process starts from scratch, as GPU libraries require.
    """
    context = _context(preload)
    waiting = list(tasks)
    running: dict[Connection, _Child] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                child = _Child.start(context, waiting.pop(0))
                running[child.pipe] = child
            for pipe in wait(list(running)):
                assert isinstance(pipe, Connection)
                child = running[pipe]
                ended = child.hear(report_status, report_line)
                if ended is not None:
                    del running[pipe]
                    yield ended
    finally:
        _stop(list(running.values()))


@dataclasses.dataclass
class _Child:
    """A process that runs a task."""

    task: Task
    process: SpawnProcess | ForkServerProcess
    pipe: Connection
    started: float

    @classmethod
    def start(cls, context: SpawnContext | ForkServerContext, task: Task) -> _Child:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(task, theirs), name=task.name)
        process.start()
        theirs.close()  # so that the pipe ends with the child
        return cls(task, process, ours, time.monotonic())

    def hear(
        self,
        report_status: Callable[[Task, Status], None],
        report_line: Callable[[Task, str], None],
    ) -> Ended | None:
        """Pass on one message; return the task's end if that is the message."""
        try:
            kind, content = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            kind, content = "end", f"the process ended with {_cause(self.process.exitcode)}"
        if kind == "end":
            self.process.join()
            self.pipe.close()
            return Ended(self.task, time.monotonic() - self.started, content)
        (report_status if kind == "report_status" else report_line)(self.task, content)
        return None


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"{name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
    return f"exit code {code}"


def _stop(children: list[_Child]) -> None:
    """Ask children to save and end; kill those that do not in time."""
    for child in children:
        child.process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for child in children:
        with contextlib.suppress(EOFError, OSError):
            while time.monotonic() < deadline:  # a full pipe would block the child
                if child.pipe.poll(0.1):
                    child.pipe.recv()
        child.process.join(max(0.0, deadline - time.monotonic()))
        if child.process.is_alive():
            child.process.kill()
            child.process.join()


def _context(preload: Sequence[str] | None) -> SpawnContext | ForkServerContext:
    if preload is None:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


def _work(task: Task, pipe: Connection) -> None:
    """Run a task in a child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches children too: the parent decides
    signal.signal(signal.SIGTERM, interrupts.raise_interrupt)
    parent = multiprocessing.parent_process()
    assert parent is not None
    end_after(lambda: wait([parent.sentinel]))

    def send(kind: str, content: Status | str | None) -> None:
        with contextlib.suppress(BrokenPipeError):
            pipe.send((kind, content))

    try:
        with contextlib.redirect_stdout(Lines(lambda line: send("report_line", line))):
            error = run_task(task, lambda status: send("report_status", status))
    except KeyboardInterrupt:
        sys.exit(130)
    send("end", error)
    pipe.close()
