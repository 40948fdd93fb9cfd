"""Tasks: small descriptions of work whose result is a file or a record, and what carries them out.

`here` and `in_processes` do tasks on this machine, `tasks.workers` and `tasks.training` on those of
a Ray cluster.
"""

from alp_repro.tasks.processes import Ended, Task, here, in_processes

__all__ = ["Ended", "Task", "here", "in_processes"]
