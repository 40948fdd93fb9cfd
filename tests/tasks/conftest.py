"""Ray's processes run as tests do, not with less priority: a busy machine would starve them."""

import os

os.environ.setdefault("RAY_worker_niceness", "0")
