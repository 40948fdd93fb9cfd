"""The binaries: the only place that reads flags, which it turns into the library's dataclasses.

In a checkout this package is `experiments`, in a wheel `alp_repro_cli`: an installed package must
not take a name as common as the first. So its modules import each other relatively.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator

from . import door

# An explicit setting wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@contextlib.contextmanager
def _native_notes_hidden() -> Iterator[None]:
    """Keeps what native code writes to stderr to itself, unless an error ends the block.

    TensorFlow's libraries greet before any log level counts: they would bury our one-line messages.
    """
    with tempfile.TemporaryFile() as notes:
        stderr = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except Exception:
            notes.seek(0)
            os.write(stderr, notes.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


if door.starting():
    door.guard_imports()

with _native_notes_hidden():
    from alp_repro import kernels

    kernels.choose()  # before TensorFlow is imported

    import tensorflow as tf

    tf.config.list_physical_devices()  # loads the GPU libraries, which greet too
