"""The binaries: the only place that reads flags, which it turns into the library's dataclasses."""

import os

# TensorFlow's start-up notes would bury our one-line messages; an explicit setting wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
