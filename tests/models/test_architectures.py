"""Architectures, initialisation and handling of the models.

That the logits equal those of a TF 1.x graph of the same weights is in test_checkpoints.py, which
has such graphs to write checkpoints from.
"""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro.errors import InputError
from alp_repro.models import MODELS, build_model

SHAPES = {
    "lenet": (28, 28, 1),
    "resnet20_v2": (32, 32, 3),
    "resnet50_v2": (64, 64, 3),
    "wong": (28, 28, 1),
}
CLASSES = {"lenet": 10, "resnet20_v2": 10, "resnet50_v2": 200, "wong": 10}
NARROW = {"lenet": 4, "resnet20_v2": 4, "resnet50_v2": 4, "wong": 4}


def paper_model(name: str) -> keras.Model:
    return build_model(name, image_shape=SHAPES[name], num_classes=CLASSES[name])


def narrow_model(name: str, **options: object) -> keras.Model:
    options = {"width": NARROW[name], **options}
    return build_model(name, image_shape=SHAPES[name], num_classes=CLASSES[name], **options)


def images_for(name: str, count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).random((count, *SHAPES[name]), dtype=np.float32)


def trainable_parameters(model: keras.Model) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def lenet_parameters(width: int, classes: int) -> int:
    conv = 3 * 3 * 1 * width + width + 3 * 3 * width * 2 * width + 2 * width
    hidden = 32 * width
    return conv + 7 * 7 * 2 * width * hidden + hidden + hidden * classes + classes


def resnet20_parameters(width: int, classes: int) -> int:
    count = 3 * 3 * 3 * width
    channels = width
    for filters in (width, 2 * width, 4 * width):
        count += channels * filters  # the 1×1 shortcut, no bias
        for _ in range(6):
            count += 2 * channels + 3 * 3 * channels * filters  # batch norm, then convolution
            channels = filters
    return count + channels * classes + classes


def resnet50_parameters(width: int, classes: int) -> int:
    count = 7 * 7 * 3 * width + width
    channels = width
    for units, depth in zip((3, 4, 6, 3), (width, 2 * width, 4 * width, 8 * width), strict=True):
        count += channels * 4 * depth + 4 * depth  # the first unit's shortcut, with bias
        for _ in range(units):
            count += 2 * channels + channels * depth  # preact, conv1
            count += 2 * depth + 3 * 3 * depth * depth  # batch norm, conv2
            count += 2 * depth + depth * 4 * depth + 4 * depth  # batch norm, conv3 with bias
            channels = 4 * depth
    return count + 2 * channels + channels * classes + classes


def wong_parameters(width: int, classes: int) -> int:
    """locuslab/fast_adversarial, `mnist_net`: Conv(1, 16), Conv(16, 32), Linear(1568, 100)."""
    conv = 4 * 4 * width + width + 4 * 4 * width * 2 * width + 2 * width
    hidden = 25 * width // 4
    return conv + 7 * 7 * 2 * width * hidden + hidden + hidden * classes + classes


COUNTS = {
    "lenet": (lenet_parameters, 32, 3_241_354),
    "resnet20_v2": (resnet20_parameters, 64, 4_330_570),
    "resnet50_v2": (resnet50_parameters, 64, 23_929_160),
    "wong": (wong_parameters, 16, 166_406),
}


@pytest.mark.parametrize("name", MODELS)
def test_parameter_count_is_the_protocols(name: str) -> None:
    formula, width, count = COUNTS[name]
    assert formula(width, CLASSES[name]) == count
    assert trainable_parameters(paper_model(name)) == count
    assert trainable_parameters(narrow_model(name)) == formula(NARROW[name], CLASSES[name])


STAGES = {
    "wong": {
        "conv1": (14, 14, 16),
        "conv2": (7, 7, 32),
        "flatten": (1568,),
        "fc1": (100,),
        "fc2": (10,),
    },
    "lenet": {
        "conv1": (28, 28, 32),
        "pool1": (14, 14, 32),
        "conv2": (14, 14, 64),
        "pool2": (7, 7, 64),
        "flatten": (3136,),
        "fc1": (1024,),
        "fc2": (10,),
    },
    "resnet20_v2": {
        "conv1": (32, 32, 64),
        **{f"conv{k}": (32, 32, 64) for k in range(2, 8)},
        **{f"conv{k}": (16, 16, 128) for k in range(8, 14)},
        **{f"conv{k}": (8, 8, 256) for k in range(14, 20)},
        "scip1": (32, 32, 64),
        "scip2": (16, 16, 128),
        "scip3": (8, 8, 256),
        "batch_norm_conv8": (32, 32, 64),
        "batch_norm_conv14": (16, 16, 128),
        "global_pool": (256,),
        "fc1": (10,),
    },
    "resnet50_v2": {
        "conv1": (32, 32, 64),
        "pool1": (16, 16, 64),
        "block1_unit1": (16, 16, 256),
        "block1_unit2": (16, 16, 256),
        "block1_unit3": (8, 8, 256),
        "block2_unit1": (8, 8, 512),
        "block2_unit3": (8, 8, 512),
        "block2_unit4": (4, 4, 512),
        "block3_unit1": (4, 4, 1024),
        "block3_unit5": (4, 4, 1024),
        "block3_unit6": (2, 2, 1024),
        "block4_unit1": (2, 2, 2048),
        "block4_unit3": (2, 2, 2048),
        "postnorm": (2, 2, 2048),
        "global_pool": (1, 1, 2048),
        "spatial_squeeze": (200,),
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_output_shape_of_every_stage(name: str) -> None:
    model = paper_model(name)
    found = {layer: tuple(model.get_layer(layer).output.shape[1:]) for layer in STAGES[name]}
    assert found == STAGES[name]


@pytest.mark.parametrize(
    ("name", "count", "momentum", "epsilon"),
    [("lenet", 0, 0, 0), ("resnet20_v2", 18, 0.999, 1e-3), ("resnet50_v2", 49, 0.997, 1e-5)],
)
def test_batch_norm_settings(name: str, count: int, momentum: float, epsilon: float) -> None:
    layers = [
        layer
        for layer in narrow_model(name).layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(layers) == count
    for layer in layers:
        assert (layer.momentum, layer.epsilon) == (momentum, epsilon)
        assert layer.center
        assert layer.scale


def test_convolutions_without_bias() -> None:
    for layer in narrow_model("resnet20_v2").layers:
        if isinstance(layer, keras.layers.Conv2D):
            assert not layer.use_bias
    with_bias = {
        layer.name
        for layer in narrow_model("resnet50_v2").layers
        if isinstance(layer, keras.layers.Conv2D) and layer.use_bias
    }
    units = [f"block{b}_unit{u}" for b, n in enumerate((3, 4, 6, 3), 1) for u in range(1, n + 1)]
    assert with_bias == {
        *("conv1", "logits"),
        *(f"{unit}_conv3" for unit in units),
        *(f"block{b}_unit1_shortcut" for b in (1, 2, 3, 4)),
    }


@pytest.mark.parametrize(("layer", "fan_in"), [("conv2", 9 * 32), ("fc1", 3136), ("fc2", 1024)])
def test_kernels_are_truncated_normal_of_variance_two_over_fan_in(layer: str, fan_in: int) -> None:
    kernel, bias = (np.asarray(w) for w in paper_model("lenet").get_layer(layer).get_weights())
    deviation = math.sqrt(2 / fan_in)
    # The relative error of a deviation estimated from n values is about 1/√(2n).
    assert kernel.std() == pytest.approx(deviation, rel=4 / math.sqrt(2 * kernel.size))
    assert abs(kernel.mean()) < 4 * deviation / math.sqrt(kernel.size)
    assert 1.9 * deviation / 0.8796 < np.abs(kernel).max() <= 2 * deviation / 0.8796 * 1.0001
    assert not bias.any()


@pytest.mark.parametrize(("name", "fan_in"), [("conv1", 16), ("conv2", 256), ("fc1", 1568)])
def test_wongs_weights_are_drawn_as_pytorchs(name: str, fan_in: int) -> None:
    """Kernels and biases uniform in ±1/√fan-in of the kernel."""
    layer = paper_model("wong").get_layer(name)
    for values in (np.asarray(weights) for weights in layer.get_weights()):
        bound = 1 / math.sqrt(fan_in)
        # The largest of n uniform values is below its bound by 1/(n + 1) of it on average.
        assert (1 - 8 / values.size) * bound < np.abs(values).max() <= 1.00001 * bound
        spread = 4 * math.sqrt(0.2 / values.size)  # four deviations of an estimated deviation
        assert values.std() == pytest.approx(bound / math.sqrt(3), rel=spread)
        assert abs(values.mean()) < 4 * bound / math.sqrt(3 * values.size)


def test_weights_depend_on_the_weight_seed_alone() -> None:
    keras.utils.set_random_seed(1)
    first = narrow_model("resnet20_v2", weight_seed=3)
    keras.utils.set_random_seed(2)
    again = narrow_model("resnet20_v2", weight_seed=3)
    other = narrow_model("resnet20_v2", weight_seed=4)
    kernels = [
        [w.numpy() for w in model.trainable_weights if w.name == "kernel"]
        for model in (first, again, other)
    ]
    for a, b, c in zip(*kernels, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    # Two layers of the same shape do not share their draws.
    a, b = (first.get_layer(layer).kernel.numpy() for layer in ("conv2", "conv3"))
    assert not np.array_equal(a, b)


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_float32_unbounded_and_per_image(name: str) -> None:
    model = narrow_model(name)
    images = images_for(name)
    logits = model(images, training=False)
    assert logits.dtype == tf.float32
    assert logits.shape == (4, CLASSES[name])
    assert not np.allclose(tf.reduce_sum(logits, axis=1), 1)
    np.testing.assert_allclose(
        model(images[1:2], training=False)[0], logits[1], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_clone_computes_in_bfloat16_on_float32_weights(name: str) -> None:
    model = narrow_model(name)

    def recast(layer: keras.layers.Layer) -> keras.layers.Layer:
        return layer.__class__.from_config({**layer.get_config(), "dtype": "mixed_bfloat16"})

    clone = keras.models.clone_model(model, clone_function=recast)
    clone.set_weights(model.get_weights())
    images = images_for(name)
    logits, coarse = model(images, training=False), clone(images, training=False)
    assert coarse.dtype == tf.bfloat16
    assert {weight.dtype for weight in clone.weights} == {"float32"}
    scale = float(tf.reduce_max(tf.abs(logits)))
    np.testing.assert_allclose(tf.cast(coarse, tf.float32), logits, atol=0.05 * scale)


@pytest.mark.parametrize("name", MODELS)
def test_saved_and_loaded_without_custom_objects(name: str, tmp_path) -> None:
    model = narrow_model(name, pixel_range=(-1.0, 1.0))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    images = images_for(name)
    np.testing.assert_array_equal(loaded(images, training=False), model(images, training=False))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "50" in name else ()) for name in MODELS]
)
def test_xla_compiles_every_model_with_a_gradient(name: str) -> None:
    model = narrow_model(name, width=2)
    images = tf.constant(images_for(name, count=2))

    def input_gradient(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(model(x, training=False)[:, 0])
        return tape.gradient(loss, x)

    compiled = tf.function(input_gradient, jit_compile=True)
    expected = input_gradient(images)
    assert float(tf.reduce_max(tf.abs(expected))) > 0
    np.testing.assert_allclose(
        compiled(images), expected, atol=1e-4 * float(tf.reduce_max(tf.abs(expected)))
    )


def test_pixel_range_rescales_inside_the_model() -> None:
    plain = narrow_model("lenet")
    rescaled = narrow_model("lenet", pixel_range=(-1.0, 1.0))
    images = images_for("lenet")
    np.testing.assert_allclose(
        rescaled(images, training=False),
        plain(images * 2 - 1, training=False),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet18", {}, "unknown model 'resnet18'.*lenet, resnet20_v2, resnet50_v2, wong"),
        ("lenet", {"width": 0}, "width of lenet is 0"),
        ("lenet", {"width": -32}, "width of lenet is -32"),
        ("lenet", {"num_classes": 1}, "num_classes of lenet is 1"),
        ("lenet", {"weight_seed": -1}, "weight_seed of lenet is -1"),
        ("lenet", {"image_shape": (3, 28, 1)}, "3×28 pixels are too small for lenet.*4×4"),
        ("resnet20_v2", {"image_shape": (32, 3, 3)}, "too small for resnet20_v2.*4×4"),
        ("resnet50_v2", {"image_shape": (28, 28, 1)}, "too small for resnet50_v2.*32×32"),
        ("lenet", {"image_shape": (28, 28)}, "height, width, channels"),
        ("lenet", {"pixel_range": (1.0, -1.0)}, "pixel_range of lenet"),
    ],
)
def test_bad_input_is_named(name: str, options: dict, words: str) -> None:
    options = {"image_shape": (28, 28, 1), "num_classes": 10, **options}
    with pytest.raises(InputError, match=words):
        build_model(name, **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_pool_before_the_activation_changes_no_value_and_no_gradient(dtype: str) -> None:
    """Ties included: the largest of four equal or of four negative values are common here."""
    generator = np.random.default_rng(2)
    values = generator.integers(-2, 3, (50, 8, 8, 4)).astype(np.float32)
    found = []
    for layers in ((tf.nn.relu, pool), (pool, tf.nn.relu)):
        x = tf.constant(values, dtype)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layers[1](layers[0](x))
            weights = fixed_weights(y.shape)
            total = tf.reduce_sum(y * tf.cast(weights, dtype))
        found.append((y, tape.gradient(total, x)))
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(np.asarray(first), np.asarray(second))
    assert np.asarray(found[0][1]).any()


def fixed_weights(shape: tf.TensorShape) -> np.ndarray:
    """The same different numbers at every call, exact in bfloat16."""
    return np.random.default_rng(4).integers(1, 100, shape).astype(np.float32)


def pool(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.max_pool2d(x, 2, 2, "VALID")
