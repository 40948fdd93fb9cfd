"""The process and its machine: kernels, dtypes, TensorFlow's set-up, signals, child processes."""
