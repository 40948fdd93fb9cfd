"""TensorFlow, imported when something of it is first used.

For modules that define what an attack is beside how it is computed: flags, tables and records ask
for the former alone, and answer in a second.
"""

from __future__ import annotations

from typing import Any


class _TensorFlow:
    def __getattr__(self, name: str) -> Any:
        import tensorflow

        return getattr(tensorflow, name)


tf = _TensorFlow()
