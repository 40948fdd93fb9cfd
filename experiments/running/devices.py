"""--device and --strategy: what the work runs on, said aloud."""

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

# What is defined here counts as the binary's own, so that --help lists it.
flags.disclaim_key_flags()


_MOST_THREADS = 4096  # more than any machine has cores; TensorFlow would begin them all
_RESOLVE_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Devices:
    """What was chosen: XLA is on for GPUs, where it helps, and off for CPUs, where it does not."""

    description: str
    gpu: bool
    strategy: tf.distribute.Strategy | None

    @property
    def writes(self) -> bool:
        """Whether this process, of those that train together, is the one that writes."""
        return self.strategy is None or is_chief(self.strategy)

    @property
    def jit_compile(self) -> bool:
        """Whether to compile with XLA."""
        return self.gpu


def define_flags(values: flags.FlagValues = flags.FLAGS, *, several_machines: bool = False) -> None:
    """Defines --device and --strategy; only a training can use several machines."""
    flags.DEFINE_enum(
        "device",
        "auto",
        ["auto", "cpu", "gpu"],
        "Device; auto: the GPUs if there are any.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "strategy",
        "none",
        ["none", "mirrored", *(["multi_worker"] if several_machines else [])],
        "Several devices: all GPUs of this machine"
        + (", or the machines of TF_CONFIG." if several_machines else "."),
        flag_values=values,
    )
    flags.DEFINE_integer(
        "threads",
        None,
        "CPU cores that one computation uses; default: all there are, or each row's share. Float32 "
        "sums round otherwise with another number.",
        lower_bound=1,
        upper_bound=_MOST_THREADS,
        flag_values=values,
    )


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def uses_gpu(values: flags.FlagValues) -> bool:
    """Whether the work that these flags describe goes to a GPU."""
    import tensorflow as tf

    return values.device != "cpu" and bool(tf.config.list_physical_devices("GPU"))


def choose(
    values: flags.FlagValues = flags.FLAGS, *, threads: int | None = None, aloud: bool = True
) -> Devices:
    """Takes the devices that the flags ask for and, aloud, prints them.

    `threads` is what is meant where --threads is not given; None: all cores.

    Raises:
      InputError: a GPU is asked for and there is none, or TF_CONFIG does not parse.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if values.device == "gpu" and not gpus:
        raise InputError(
            "--device=gpu: TensorFlow sees no GPU here; --device=cpu works, or install the GPU "
            "libraries (pip install '.[gpu]')"
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
    if aloud:
        print(f"device: {description}", flush=True)
    return Devices(description, bool(gpus), strategy)


def _strategy(name: str) -> tf.distribute.Strategy | None:
    import tensorflow as tf

    if name == "none":
        return None
    if name == "mirrored":
        # TensorFlow would look for other machines there, and this is one machine alone.
        if os.environ.pop("TF_CONFIG", None) is not None:
            print("--strategy=mirrored: TF_CONFIG is not read", file=sys.stderr)
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        return tf.distribute.MirroredStrategy(
            [device.name for device in tf.config.list_logical_devices(kind)]
        )
    text = os.environ.get("TF_CONFIG", "")
    try:
        _check_cluster(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"TF_CONFIG={text[:200]!r} ({error}): --strategy=multi_worker needs JSON as in "
            '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    return tf.distribute.MultiWorkerMirroredStrategy()


def _check_cluster(config: dict[str, Any]) -> None:
    """Checks what TF_CONFIG says, since TensorFlow waits for ever, or aborts, where it is wrong."""
    task = config["task"]
    if task["type"] not in ("chief", "worker"):
        raise ValueError(f"task type {task['type']!r}: chief or worker")
    if not 0 <= int(task["index"]) < len(config["cluster"][task["type"]]):
        raise ValueError(f"task index {task['index']}: there are fewer tasks")
    addresses = [address for kind in config["cluster"].values() for address in kind]
    for address in addresses:
        host, _, port = str(address).rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"address {address!r}: it is no host:port")
    if len(set(addresses)) < len(addresses):
        raise ValueError("an address is there twice")
    for address in addresses:
        host = str(address).rpartition(":")[0]
        machine.resolve(host.strip("[]"), seconds=_RESOLVE_SECONDS)
