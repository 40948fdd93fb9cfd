"""The layers of the architectures (`models`): an input tensor in, logits out."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

# Batch norm as in the protocol: the authors' ResNet20-v2, and TF-slim's resnet_arg_scope.
RESNET20_BATCH_NORM = {"momentum": 0.999, "epsilon": 1e-3}
RESNET50_BATCH_NORM = {"momentum": 0.997, "epsilon": 1e-5}
RESNET20_STAGES = 3
RESNET20_BLOCKS_A_STAGE = 3
# Units and stride of each bottleneck stage; the stride sits in the stage's last unit.
RESNET50_STAGES = ((3, 2), (4, 2), (6, 2), (3, 1))
RESNET50_EXPANSION = 4


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes convolutions and dense layers, with the paper's initialisation unless told otherwise.

    Kernels are truncated normal with variance 2/fan-in *after* the truncation, biases 0. That is
    what TF 1.x drew: TF-slim's default `tf.contrib.layers.variance_scaling_initializer` (factor 2,
    FAN_IN) cuts at two deviations, which leaves 0.774 of the variance, and makes up for it by a
    deviation √1.3 times larger; `tf.variance_scaling_initializer(scale=2)`, the "He" of the
    protocol, came to divide by 0.8796, which is the same to 0.3%, and Keras' HeNormal still does.
    (The bare `tf.truncated_normal(stddev=√(2/n))` of its first versions starts 12% smaller.)
    """

    weight_seed: int
    scheme: Callable[..., keras.Initializer] = keras.initializers.HeNormal

    def initializer(self, layer_name: str) -> keras.Initializer:
        """Return the scheme's initializer, seeded by (weight_seed, layer_name) alone."""
        entropy = [self.weight_seed, zlib.crc32(layer_name.encode())]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
        return self.scheme(seed=seed)

    def conv(self, filters: int, kernel: int, name: str, **options: Any) -> keras.layers.Layer:
        """Return a convolution, padded SAME by default."""
        options.setdefault("padding", "same")
        return keras.layers.Conv2D(
            filters, kernel, kernel_initializer=self.initializer(name), name=name, **options
        )

    def dense(self, units: int, name: str, **options: Any) -> keras.layers.Layer:
        """Return a dense layer with bias."""
        return keras.layers.Dense(
            units, kernel_initializer=self.initializer(name), name=name, **options
        )


def _lenet(x: Any, layers: Layers, width: int, num_classes: int) -> Any:
    """Two 3×3 convolutions with ReLU and a 2×2 max-pool, and two dense layers."""
    # ReLU and max-pool commute, values and gradients alike: the pool first leaves ReLU and its
    # gradient a quarter of the elements.
    for number, filters in ((1, width), (2, 2 * width)):
        x = layers.conv(filters, 3, f"conv{number}")(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool{number}")(x)
        x = keras.layers.ReLU(name=f"relu{number}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = layers.dense(32 * width, "fc1", activation="relu")(x)
    return layers.dense(num_classes, "fc2")(x)


def _pytorch_default(*, seed: int) -> keras.Initializer:
    """Return an initializer of kernels as PyTorch has it: uniform in ±1/√fan-in."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=seed)


def _pytorch_bias(layers: Layers, name: str, *, fan_in: int) -> keras.Initializer:
    """Return an initializer of biases as PyTorch has it: uniform in ±1/√fan-in of the kernel."""
    bound = fan_in**-0.5
    seed = layers.initializer(f"{name}_bias").seed
    return keras.initializers.RandomUniform(-bound, bound, seed=seed)


def _wong(x: Any, layers: Layers, width: int, num_classes: int) -> Any:
    """Build the small MNIST network of Wong et al. 2020 (locuslab/fast_adversarial, `mnist_net`).

    Two 4×4 convolutions of stride 2 with ReLU, and two dense layers, initialised as by PyTorch.
    """
    layers = dataclasses.replace(layers, scheme=_pytorch_default)

    def bias(name: str, fan_in: int) -> dict[str, keras.Initializer]:
        return {"bias_initializer": _pytorch_bias(layers, name, fan_in=fan_in)}

    for name, filters in (("conv1", width), ("conv2", 2 * width)):
        options = bias(name, 4 * 4 * x.shape[-1])
        x = layers.conv(filters, 4, name, strides=2, activation="relu", **options)(x)
    x = keras.layers.Flatten(name="flatten")(x)
    units = max(1, 25 * width // 4)
    x = layers.dense(units, "fc1", activation="relu", **bias("fc1", x.shape[-1]))(x)
    return layers.dense(num_classes, "fc2", **bias("fc2", units))(x)


def _batch_norm_relu(x: Any, name: str, settings: dict[str, float]) -> Any:
    x = keras.layers.BatchNormalization(name=name, **settings)(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _resnet20_v2(x: Any, layers: Layers, width: int, num_classes: int) -> Any:
    """Pre-activation ResNet of nine two-convolution blocks, numbered as the authors did.

    `batch_norm_convK` comes before `convK`; there is none before conv1 and none after conv19.
    """
    x = layers.conv(width, 3, "conv1", use_bias=False)(x)
    number = 2
    for stage in range(RESNET20_STAGES):
        filters = width * 2**stage
        for block in range(RESNET20_BLOCKS_A_STAGE):
            stride = 2 if stage > 0 and block == 0 else 1
            shortcut = x
            if block == 0:
                # From the raw input, in stage 1 too, where the width does not change.
                shortcut = layers.conv(
                    filters, 1, f"scip{stage + 1}", strides=stride, use_bias=False
                )(x)
            for conv_stride in (stride, 1):
                x = _batch_norm_relu(x, f"batch_norm_conv{number}", RESNET20_BATCH_NORM)
                x = layers.conv(filters, 3, f"conv{number}", strides=conv_stride, use_bias=False)(x)
                number += 1
            x = keras.layers.Add(name=f"stage{stage + 1}_block{block + 1}")([shortcut, x])
    x = keras.layers.ReLU(name="final_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="global_pool")(x)
    return layers.dense(num_classes, "fc1")(x)


def _conv_same(
    x: Any, layers: Layers, filters: int, kernel: int, stride: int, name: str, *, use_bias: bool
) -> Any:
    """Convolution padded alike on both sides, whatever the stride (TF-slim's `conv2d_same`).

    TensorFlow's own SAME pads an even-sized image of stride 2 more at the bottom right, so that
    a strided model would see another grid than a subsampled dense one.
    """
    if stride == 1:
        return layers.conv(filters, kernel, name, use_bias=use_bias)(x)
    before = (kernel - 1) // 2
    after = kernel - 1 - before
    x = keras.layers.ZeroPadding2D(((before, after), (before, after)), name=f"{name}_pad")(x)
    return layers.conv(filters, kernel, name, strides=stride, padding="valid", use_bias=use_bias)(x)


def _bottleneck(x: Any, layers: Layers, depth: int, stride: int, name: str) -> Any:
    """One full pre-activation unit: 1×1 to `depth`, 3×3 with the stride, 1×1 to 4·`depth`."""
    filters = RESNET50_EXPANSION * depth
    preact = _batch_norm_relu(x, f"{name}_preact", RESNET50_BATCH_NORM)
    if x.shape[-1] == filters:
        shortcut = x
        if stride > 1:
            shortcut = keras.layers.MaxPooling2D(1, strides=stride, name=f"{name}_shortcut")(x)
    else:
        shortcut = layers.conv(filters, 1, f"{name}_shortcut", strides=stride)(preact)
    residual = layers.conv(depth, 1, f"{name}_conv1", use_bias=False)(preact)
    residual = _batch_norm_relu(residual, f"{name}_conv1_norm", RESNET50_BATCH_NORM)
    residual = _conv_same(residual, layers, depth, 3, stride, f"{name}_conv2", use_bias=False)
    residual = _batch_norm_relu(residual, f"{name}_conv2_norm", RESNET50_BATCH_NORM)
    residual = layers.conv(filters, 1, f"{name}_conv3")(residual)
    return keras.layers.Add(name=name)([shortcut, residual])


def _resnet50_v2(x: Any, layers: Layers, width: int, num_classes: int) -> Any:
    """TF-slim's `resnet_v2_50`; `blockB_unitU_*` is its `blockB/unit_U/bottleneck_v2/*`."""
    x = _conv_same(x, layers, width, 7, 2, "conv1", use_bias=True)
    x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="pool1")(x)
    for block, (units, block_stride) in enumerate(RESNET50_STAGES, start=1):
        depth = width * 2 ** (block - 1)
        for unit in range(1, units + 1):
            stride = block_stride if unit == units else 1
            x = _bottleneck(x, layers, depth, stride, f"block{block}_unit{unit}")
    x = _batch_norm_relu(x, "postnorm", RESNET50_BATCH_NORM)
    x = keras.layers.GlobalAveragePooling2D(keepdims=True, name="global_pool")(x)
    x = layers.conv(num_classes, 1, "logits")(x)
    return keras.layers.Flatten(name="spatial_squeeze")(x)


# `network(x, layers, width, num_classes)` maps the input tensor to the logits.
NETWORKS: dict[str, Callable[[Any, Layers, int, int], Any]] = {
    "lenet": _lenet,
    "resnet20_v2": _resnet20_v2,
    "resnet50_v2": _resnet50_v2,
    "wong": _wong,
}
