"""TensorFlow, imported when it is first used.

For modules that define an attack's settings and its computation: flags, tables and records need
only the former, and load in a second.
"""

from __future__ import annotations

from typing import Any


class _TensorFlow:
    def __getattr__(self, name: str) -> Any:
        import tensorflow

        return getattr(tensorflow, name)


tf = _TensorFlow()
