"""--device, --strategy and --threads: chooses what the work runs on, and prints it."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from absl import flags

from alp_repro.errors import InputError
from alp_repro.system import kernels, machine
from alp_repro.training import is_chief

if TYPE_CHECKING:
    import tensorflow as tf

# Flags that are defined here count as the binary's own, so that --help lists them.
flags.disclaim_key_flags()


_MOST_THREADS = 4096  # more than any machine has cores; TensorFlow would start them all
_RESOLVE_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Devices:
    """The chosen devices; XLA is used on GPUs, where it helps, but not on CPUs."""

    description: str
    gpu: bool
    strategy: tf.distribute.Strategy | None

    @property
    def writes(self) -> bool:
        """Return whether this process writes the files, of all processes that train together."""
        return self.strategy is None or is_chief(self.strategy)

    @property
    def jit_compile(self) -> bool:
        """Return whether to compile with XLA."""
        return self.gpu


def define_flags(values: flags.FlagValues = flags.FLAGS, *, several_machines: bool = False) -> None:
    """Define --device, --strategy and --threads; only a training can use several machines."""
    flags.DEFINE_enum(
        "device",
        "auto",
        ["auto", "cpu", "gpu"],
        "Device to use; auto: GPUs if there are any.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "strategy",
        "none",
        ["none", "mirrored", *(["multi_worker"] if several_machines else [])],
        "Distribution strategy; mirrored: all GPUs of this machine"
        + ("; multi_worker: the machines of TF_CONFIG." if several_machines else "."),
        flag_values=values,
    )
    flags.DEFINE_integer(
        "threads",
        None,
        "CPU cores per computation (default: all, or each row's share of them). Another number "
        "changes how sums in float32 are rounded.",
        lower_bound=1,
        upper_bound=_MOST_THREADS,
        flag_values=values,
    )


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def uses_gpu(values: flags.FlagValues) -> bool:
    """Return whether these flags select a GPU."""
    import tensorflow as tf

    return values.device != "cpu" and bool(tf.config.list_physical_devices("GPU"))


def choose(
    values: flags.FlagValues = flags.FLAGS, *, threads: int | None = None, verbose: bool = True
) -> Devices:
    """Select the devices of the flags and, unless `verbose` is False, print them.

    Args:
      values: the flags.
      threads: the default of --threads; None: all cores.
      verbose: print the devices.

    Raises:
      InputError: a GPU is requested and there is none, or TF_CONFIG is not valid.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if values.device == "gpu" and not gpus:
        raise InputError(
            "--device=gpu: TensorFlow finds no GPU; use --device=cpu, or install the GPU libraries "
            "(pip install '.[gpu]')"
        )
    if values.device == "cpu":
        tf.config.set_visible_devices([], "GPU")
        gpus = []
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    threads = values.threads or threads
    if threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        if values.strategy == "none":  # replicas wait for each other, each on a thread
            tf.config.threading.set_inter_op_parallelism_threads(threads)
    strategy = _strategy(values.strategy)
    on_cpu = f"CPU, {threads or cores()} cores, {kernels.describe()}"
    description = f"{len(gpus)} GPU" if gpus else on_cpu
    if strategy:
        description += f", {strategy.num_replicas_in_sync} replicas"
    if verbose:
        print(f"device: {description}", flush=True)
    return Devices(description, bool(gpus), strategy)


def _strategy(name: str) -> tf.distribute.Strategy | None:
    import tensorflow as tf

    if name == "none":
        return None
    if name == "mirrored":
        # TensorFlow would look for other machines there, but this strategy uses a single one.
        if os.environ.pop("TF_CONFIG", None) is not None:
            print("--strategy=mirrored: TF_CONFIG is ignored", file=sys.stderr)
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        return tf.distribute.MirroredStrategy(
            [device.name for device in tf.config.list_logical_devices(kind)]
        )
    text = os.environ.get("TF_CONFIG", "")
    try:
        _check_cluster(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"TF_CONFIG={text[:200]!r} ({error}): --strategy=multi_worker expects JSON as in "
            '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    return tf.distribute.MultiWorkerMirroredStrategy()


def _check_cluster(config: dict[str, Any]) -> None:
    """Check TF_CONFIG, since TensorFlow waits for ever, or aborts, when it is wrong."""
    task = config["task"]
    if task["type"] not in ("chief", "worker"):
        raise ValueError(f"task type {task['type']!r}: expected chief or worker")
    count = len(config["cluster"][task["type"]])
    if not 0 <= int(task["index"]) < count:
        raise ValueError(f"task index {task['index']}: expected a number from 0 to {count - 1}")
    addresses = [address for kind in config["cluster"].values() for address in kind]
    for address in addresses:
        host, _, port = str(address).rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"address {address!r}: expected host:port")
    if len(set(addresses)) < len(addresses):
        raise ValueError("an address is given twice")
    for address in addresses:
        host = str(address).rpartition(":")[0]
        machine.resolve(host.strip("[]"), seconds=_RESOLVE_SECONDS)
