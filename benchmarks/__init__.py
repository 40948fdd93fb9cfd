"""What was measured (docs/performance.md), each a module to run: python -m benchmarks.NAME."""

import alp_repro as alp_repro  # TensorFlow's kernels are chosen before a benchmark imports it
