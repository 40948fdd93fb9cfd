"""Tasks: small descriptions of work whose result is files, and ways to run them.

`run_here` and `run_in_processes` run them on this machine, `tasks.on_cluster` on a Ray cluster,
where `tasks.workers` also share the blocks of a single attack.
"""

from alp_repro.tasks.processes import run_here, run_in_processes
from alp_repro.tasks.task import Ended, Status, Task, run_task

__all__ = ["Ended", "Status", "Task", "run_here", "run_in_processes", "run_task"]
