"""Shared fixtures: a small model with fixed weights, images that it classifies, two CPU devices."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro import kernels
from alp_repro.errors import InputError
from tests.small_model import small_images, small_labels, small_model

# Ray's processes run as tests do, not with less priority: a busy machine would starve them.
os.environ.setdefault("RAY_worker_niceness", "0")

# Two devices for `tf.distribute`; this must come before TensorFlow first uses a device.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

# They take minutes each: begun last, one would hold up the end of the suite by itself.
LONG = ("test_table.py", "test_readme.py", "test_cluster_faults.py", "test_installed.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; --no-loadscope-reorder has them begun in this order."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Skips what meets bfloat16 where a setting of oneDNN's takes it from this processor."""
    if kernels.lack_bfloat16() and "bfloat16" in pyfuncitem.name:
        pytest.skip("ONEDNN_MAX_CPU_ISA leaves no bfloat16")
    try:
        return (yield)
    except InputError as error:
        if kernels.lack_bfloat16() and "ONEDNN_MAX_CPU_ISA" in str(error):
            pytest.skip("ONEDNN_MAX_CPU_ISA leaves no bfloat16")
        raise


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """One for the whole process: the collective operations of two mistake each other's."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def model() -> keras.Model:
    return small_model()


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return small_images(40)


@pytest.fixture(scope="session")
def labels(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return small_labels(model, images)


@pytest.fixture(scope="session")
def mnist_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets: who first reads MNIST makes it there, for all."""
    return tmp_path_factory.mktemp("tfds")
