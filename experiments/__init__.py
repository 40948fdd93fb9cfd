"""The binaries: the only place that reads flags, which it turns into the library's dataclasses.

In a checkout this package is `experiments`, in a wheel `alp_repro_cli`: an installed package must
not take a name as common as the first. So its modules import each other relatively.
"""

import os

from .console import error_exit, quiet_imports

# An explicit setting wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

if error_exit.starting():
    error_exit.guard_imports()

from alp_repro.system import environment as environment  # before TensorFlow is imported

quiet_imports.watch()
