"""The tests: they mirror alp_repro/ and experiments/."""

import alp_repro as alp_repro  # TensorFlow's kernels are chosen before a test imports it
