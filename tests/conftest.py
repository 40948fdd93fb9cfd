"""Shared fixtures: a small model with fixed weights, images that it classifies, two CPU devices."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from alp_repro.data import dataset_spec, load, prepare, store
from alp_repro.errors import InputError
from alp_repro.system import kernels

# TensorFlow is imported where tests run: pytest-xdist's first process has none of them.
if TYPE_CHECKING:
    import keras
    import tensorflow as tf

# Ray's processes run as tests do, not with less priority: a busy machine would starve them.
os.environ.setdefault("RAY_worker_niceness", "0")


def pytest_configure(config: pytest.Config) -> None:
    """Makes two devices for `tf.distribute`, before TensorFlow first uses a device."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


# The longest first: begun last, one would hold up the end of the suite by itself.
LONG = (
    *("test_table.py", "test_readme.py", "test_cluster_faults.py", "test_cluster.py"),
    *("test_installed.py", "test_notebooks.py", "test_indicators.py", "test_logit_pairing.py"),
    *("test_contract.py", "test_gates.py", "test_zoo.py", "test_audit.py", "test_programs.py"),
    *("test_phases.py", "test_checkpoints.py", "test_surrogate.py", "test_docstrings.py"),
    *("test_restarts.py", "test_strategies.py", "test_verify.py", "test_train.py"),
    *("test_attacks.py", "test_model_check.py", "test_stored.py", "test_light_commands.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; --no-loadscope-reorder has them begun in this order."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONG)))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Skips what meets bfloat16 where a setting of oneDNN's takes it from this processor."""
    if kernels.lack_bfloat16() and "bfloat16" in pyfuncitem.name:
        pytest.skip("ONEDNN_MAX_CPU_ISA leaves no bfloat16")
    try:
        return (yield)
    except (InputError, AssertionError) as error:  # the latter where a test expects another error
        if kernels.lack_bfloat16() and "ONEDNN_MAX_CPU_ISA" in str(error):
            pytest.skip("ONEDNN_MAX_CPU_ISA leaves no bfloat16")
        raise


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """One for the whole process: the collective operations of two mistake each other's."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def model() -> keras.Model:
    from tests.small_model import small_model

    return small_model()


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    from tests.small_model import small_images

    return small_images(40)


@pytest.fixture(scope="session")
def labels(model: keras.Model, images: np.ndarray) -> np.ndarray:
    from tests.small_model import small_labels

    return small_labels(model, images)


@pytest.fixture(scope="session")
def mnist_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets that has MNIST, which is made once: that of the checkout itself."""
    load.load_split("mnist", "test")
    made = prepare.prepared_folder(dataset_spec("mnist"), store.default_data_dir())
    folder = tmp_path_factory.mktemp("tfds")
    (folder / "mnist").symlink_to(made.parent, target_is_directory=True)
    return folder
