"""TF 1.x checkpoints that are written here under the published names, and read into our models.

The reference is a TF 1.x graph of raw operations: it owns the variables that are saved, and its
logits are what the imported Keras model must give.
"""

from __future__ import annotations

import contextlib
import dataclasses
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from alp_repro import files, runs
from alp_repro.checkpoints import FORMATS, Import, import_run, load_tf1_weights, variable_names
from alp_repro.errors import InputError
from alp_repro.models import build_model
from alp_repro.runs import RunDir
from tests import command_runner
from tests.marks import slow_unless

v1 = tf.compat.v1


def variable(name: str, *shape: int) -> tf.Tensor:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("/weights"):
        value = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
    elif name.endswith(("/gamma", "/moving_variance")):
        value = rng.uniform(0.5, 1.5, shape)
    else:
        value = rng.normal(0, 0.2, shape)
    trainable = not name.endswith(("/moving_mean", "/moving_variance"))
    return v1.get_variable(name, initializer=value.astype(np.float32), trainable=trainable)


def conv(x: tf.Tensor, scope: str, filters: int, kernel: int, stride: int = 1) -> tf.Tensor:
    weights = variable(f"{scope}/weights", kernel, kernel, int(x.shape[-1]), filters)
    return tf.nn.conv2d(x, weights, strides=stride, padding="SAME")


def bias(x: tf.Tensor, scope: str) -> tf.Tensor:
    return x + variable(f"{scope}/biases", int(x.shape[-1]))


def dense(x: tf.Tensor, scope: str, units: int) -> tf.Tensor:
    return bias(tf.matmul(x, variable(f"{scope}/weights", int(x.shape[-1]), units)), scope)


def norm_relu(x: tf.Tensor, scope: str, epsilon: float) -> tf.Tensor:
    """Batch norm in inference mode as written in the paper, then ReLU."""
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    gamma, beta, mean, variance = (variable(f"{scope}/{n}", int(x.shape[-1])) for n in names)
    return tf.nn.relu(gamma * (x - mean) / tf.sqrt(variance + epsilon) + beta)


def tf1_lenet(x: tf.Tensor, width: int, classes: int) -> tf.Tensor:
    for k, filters in ((1, width), (2, 2 * width)):
        x = tf.nn.relu(bias(conv(x, f"conv{k}_vars", filters, 3), f"conv{k}_vars"))
        x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    x = tf.reshape(x, [-1, int(np.prod(x.shape[1:]))])
    x = tf.nn.relu(dense(x, "fc1_vars", 32 * width))
    return dense(x, "fc2_vars", classes)


def tf1_resnet20(x: tf.Tensor, width: int, classes: int) -> tf.Tensor:
    x = conv(x, "conv1_vars", width, 3)
    for k in range(2, 20, 2):
        stage = (k - 2) // 6
        filters, first = width * 2**stage, (k - 2) % 6 == 0
        stride = 2 if first and stage > 0 else 1
        y = norm_relu(x, f"batch-norm-conv{k}", 1e-3)
        y = conv(y, f"conv{k}_vars", filters, 3, stride)
        y = norm_relu(y, f"batch-norm-conv{k + 1}", 1e-3)
        y = conv(y, f"conv{k + 1}_vars", filters, 3)
        x = y + (conv(x, f"scip{stage + 1}_vars", filters, 1, stride) if first else x)
    return dense(tf.reduce_mean(tf.nn.relu(x), [1, 2]), "fc1_vars", classes)


def tf1_resnet50(x: tf.Tensor, width: int, classes: int) -> tf.Tensor:
    """A strided `conv2d_same` is written as the dense convolution, subsampled."""
    root = "resnet_v2_50"
    x = bias(conv(x, f"{root}/conv1", width, 7), f"{root}/conv1")[:, ::2, ::2]
    x = tf.nn.max_pool2d(x, 3, 2, "SAME")
    for block, (units, last_stride) in enumerate(((3, 2), (4, 2), (6, 2), (3, 1)), start=1):
        depth = width * 2 ** (block - 1)
        for unit in range(1, units + 1):
            scope = f"{root}/block{block}/unit_{unit}/bottleneck_v2"
            stride = last_stride if unit == units else 1
            preact = norm_relu(x, f"{scope}/preact", 1e-5)
            if unit == 1:
                shortcut = conv(preact, f"{scope}/shortcut", 4 * depth, 1)
                shortcut = bias(shortcut, f"{scope}/shortcut")
            else:
                shortcut = x
            y = conv(preact, f"{scope}/conv1", depth, 1)
            y = norm_relu(y, f"{scope}/conv1/BatchNorm", 1e-5)
            y = conv(y, f"{scope}/conv2", depth, 3)[:, ::stride, ::stride]
            y = norm_relu(y, f"{scope}/conv2/BatchNorm", 1e-5)
            y = bias(conv(y, f"{scope}/conv3", 4 * depth, 1), f"{scope}/conv3")
            x = shortcut[:, ::stride, ::stride] + y
    x = norm_relu(x, f"{root}/postnorm", 1e-5)
    x = tf.reduce_mean(x, [1, 2], keepdims=True)
    return tf.squeeze(bias(conv(x, f"{root}/logits", classes, 1), f"{root}/logits"), [1, 2])


@dataclasses.dataclass(frozen=True)
class Case:
    """One architecture: the reference graph and a small instance of it."""

    graph: Callable[[tf.Tensor, int, int], tf.Tensor]
    checkpoint_format: str
    shape: tuple[int, int, int]
    classes: int
    width: int = 4

    def images(self, count: int = 3) -> np.ndarray:
        return np.random.default_rng(1).random((count, *self.shape), dtype=np.float32)


CASES = {
    "lenet": Case(tf1_lenet, "authors", (28, 28, 1), 10),
    "resnet20_v2": Case(tf1_resnet20, "authors", (32, 32, 3), 10),
    "resnet50_v2": Case(tf1_resnet50, "slim", (64, 64, 3), 20),
}


def model_of(name: str, **options: object) -> keras.Model:
    case = CASES[name]
    defaults = {"image_shape": case.shape, "num_classes": case.classes, "width": case.width}
    return build_model(name, weight_seed=5, **(defaults | options))


def write(name: str, prefix: Path, *, case: Case | None = None) -> np.ndarray:
    """Save the reference graph's variables at `prefix`; return its logits on `images()`."""
    case = case or CASES[name]
    with tf.Graph().as_default(), v1.Session() as session:
        logits = case.graph(tf.constant(case.images()), case.width, case.classes)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(prefix))
        return session.run(logits)


def write_variables(prefix: Path, values: dict[str, np.ndarray]) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        variables = {
            name: v1.Variable(value, name=f"v{i}") for i, (name, value) in enumerate(values.items())
        }
        session.run(v1.global_variables_initializer())
        v1.train.Saver(variables).save(session, str(prefix))


def read_variables(prefix: Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def load(model: keras.Model, prefix: Path, **options: object) -> tuple[str, ...]:
    checkpoint_format = CASES[model.name].checkpoint_format
    return load_tf1_weights(model, prefix, checkpoint_format=checkpoint_format, **options)


def assert_same_logits(found: tf.Tensor, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", slow_unless(["lenet", "resnet20_v2"], CASES))
def test_logits_equal_the_tf1_graphs(name: str, tmp_path: Path) -> None:
    expected = write(name, tmp_path / "model.ckpt")
    model = model_of(name)
    assert load(model, tmp_path / "model.ckpt") == ()
    assert_same_logits(model(CASES[name].images(), training=False), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [("resnet20_v2", (30, 27, 3)), ("resnet50_v2", (45, 38, 1))],
)
def test_logits_equal_the_tf1_graphs_on_odd_sizes(
    name: str, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    case = dataclasses.replace(CASES[name], shape=shape)
    expected = write(name, tmp_path / "model.ckpt", case=case)
    model = model_of(name, image_shape=shape)
    load(model, tmp_path / "model.ckpt")
    assert_same_logits(model(case.images(), training=False), expected)


@pytest.mark.slow
def test_pixels_from_minus_one_to_one_are_made_inside_the_model(tmp_path: Path) -> None:
    expected = write("resnet50_v2", tmp_path / "model.ckpt")
    model = model_of("resnet50_v2", pixel_range=(-1.0, 1.0))
    load(model, tmp_path / "model.ckpt")
    # The graph saw CASES' images as they are, so [0, 1] images of the same pixels are (x + 1)/2.
    assert_same_logits(model((CASES["resnet50_v2"].images() + 1) / 2, training=False), expected)


@dataclasses.dataclass(frozen=True)
class Trained:
    prefix: Path
    plain: np.ndarray
    averaged: np.ndarray


def write_training(
    name: str, prefix: Path, *, average_statistics: bool, scope: Any = contextlib.nullcontext
) -> Trained:
    """Save what a training keeps: plain values, the optimizer's, and averages of other values."""
    case = CASES[name]
    with tf.Graph().as_default(), v1.Session() as session:
        logits = case.graph(tf.constant(case.images()), case.width, case.classes)
        variables = v1.global_variables()
        averaged = variables if average_statistics else v1.trainable_variables()
        step = v1.train.get_or_create_global_step()
        gradients = [(tf.zeros_like(v), v) for v in v1.trainable_variables()]
        with scope("Optimizer"):
            v1.train.AdamOptimizer().apply_gradients(gradients, global_step=step)
        averages = tf.train.ExponentialMovingAverage(0.9999)
        averages.apply(averaged)
        session.run(v1.global_variables_initializer())
        moved = [
            average.assign(average * (1 + 0.1 * np.sin(k)))
            for k, average in enumerate(averages.average(v) for v in averaged)
        ]
        session.run(moved)
        v1.train.Saver().save(session, str(prefix))
        plain = session.run(logits)
        restored = {v.op.name: v for v in variables}
        restored |= {averages.average_name(v): restored.pop(v.op.name) for v in averaged}
        v1.train.Saver(restored).restore(session, str(prefix))
        return Trained(prefix, plain, session.run(logits))


@pytest.mark.parametrize(
    ("name", "average_statistics"),
    [
        ("lenet", False),
        pytest.param("resnet20_v2", False, marks=pytest.mark.slow),
        pytest.param("resnet20_v2", True, marks=pytest.mark.slow),
    ],
)
def test_moving_averages_or_plain_weights_of_a_training_checkpoint(
    name: str, average_statistics: bool, tmp_path: Path
) -> None:
    trained = write_training(name, tmp_path / "c-3", average_statistics=average_statistics)
    assert not np.allclose(trained.plain, trained.averaged, rtol=1e-3)
    images = CASES[name].images()

    model = model_of(name)
    ignored = load(model, trained.prefix)
    assert_same_logits(model(images, training=False), trained.plain)
    assert {"global_step", "beta1_power", "conv1_vars/weights/Adam_1"} <= set(ignored)
    assert "conv1_vars/weights/ExponentialMovingAverage" in ignored

    model = model_of(name)
    ignored = load(model, trained.prefix, moving_averages=True)
    assert_same_logits(model(images, training=False), trained.averaged)
    assert "conv1_vars/weights" in ignored
    assert "conv1_vars/weights/ExponentialMovingAverage" not in ignored


@pytest.mark.parametrize(
    ("scope", "slot"),
    [
        (tf.name_scope, "conv1_vars/weights/Adam_1"),
        (v1.variable_scope, "Optimizer/conv1_vars/weights/Adam_1"),
    ],
)
@pytest.mark.parametrize("name", slow_unless(["lenet"], ["lenet", "resnet20_v2"]))
def test_what_the_authors_optimizer_keeps_in_its_scope_is_ignored(
    name: str, scope: Any, slot: str, tmp_path: Path
) -> None:
    trained = write_training(name, tmp_path / "c", average_statistics=False, scope=scope)
    model = model_of(name)
    ignored = load(model, trained.prefix)
    assert_same_logits(model(CASES[name].images(), training=False), trained.plain)
    assert {"Optimizer/beta1_power", "Optimizer/beta2_power", slot} <= set(ignored)


def test_weights_of_a_second_model_in_a_scope_are_surplus(tmp_path: Path) -> None:
    write("lenet", tmp_path / "c")
    values = read_variables(tmp_path / "c")
    write_variables(tmp_path / "two", {**values, "other/conv1_vars/weights": np.zeros(3)})
    with pytest.raises(InputError, match="1 unexpected: other/conv1_vars/weights"):
        load(model_of("lenet"), tmp_path / "two")


def test_names_are_the_published_ones() -> None:
    names = {
        name: set(variable_names(model_of(name), checkpoint_format=case.checkpoint_format))
        for name, case in CASES.items()
    }
    layers = ("conv1_vars", "conv2_vars", "fc1_vars", "fc2_vars")
    assert names["lenet"] == {f"{s}/{v}" for s in layers for v in ("weights", "biases")}
    statistics = ("beta", "gamma", "moving_mean", "moving_variance")
    assert names["resnet20_v2"] == {
        *(f"conv{k}_vars/weights" for k in range(1, 20)),
        *(f"scip{k}_vars/weights" for k in (1, 2, 3)),
        *(f"batch-norm-conv{k}/{v}" for k in range(2, 20) for v in statistics),
        *("fc1_vars/weights", "fc1_vars/biases"),
    }
    # 16 units of 3 kernels, 1 bias and 3 batch norms, 4 shortcuts with bias, both ends, postnorm.
    assert len(names["resnet50_v2"]) == 16 * (3 + 1 + 3 * 4) + 4 * 2 + 2 + 2 + 4
    assert {
        "resnet_v2_50/conv1/biases",
        "resnet_v2_50/block1/unit_1/bottleneck_v2/shortcut/weights",
        "resnet_v2_50/block3/unit_6/bottleneck_v2/preact/gamma",
        "resnet_v2_50/block4/unit_3/bottleneck_v2/conv2/BatchNorm/moving_variance",
        "resnet_v2_50/block4/unit_3/bottleneck_v2/conv3/biases",
        "resnet_v2_50/postnorm/beta",
        "resnet_v2_50/logits/biases",
    } <= names["resnet50_v2"]


@pytest.mark.parametrize("given", ["c.index", "c.meta", "c.data-00000-of-00001", "."])
def test_a_checkpoint_is_found_by_any_of_its_files_or_its_folder(
    given: str, tmp_path: Path
) -> None:
    expected = write("lenet", tmp_path / "c")
    model = model_of("lenet")
    load(model, tmp_path / given)
    assert_same_logits(model(CASES["lenet"].images(), training=False), expected)


def test_all_that_does_not_fit_is_listed_at_once_and_nothing_is_loaded(tmp_path: Path) -> None:
    write("lenet", tmp_path / "c")
    values = read_variables(tmp_path / "c")
    del values["fc2_vars/biases"], values["conv1_vars/weights"]
    values["fc3_vars/weights"] = np.zeros((3, 4), np.float32)
    values["unrelated/Adam"] = np.zeros(3, np.float32)
    values["fc1_vars/weights"] = values["fc1_vars/weights"].T.copy()
    values["conv2_vars/biases"] = values["conv2_vars/biases"].astype(np.int32)
    write_variables(tmp_path / "d", values)
    model = model_of("lenet")
    before = model.get_weights()
    with pytest.raises(InputError) as caught:
        load(model, tmp_path / "d")
    message = str(caught.value)
    assert "2 missing: conv1_vars/weights, fc2_vars/biases" in message
    assert "2 unexpected: fc3_vars/weights, unrelated/Adam" in message
    assert "fc1_vars/weights is (128, 392), not (392, 128)" in message
    assert "conv2_vars/biases is int32, not float32" in message
    assert "\n" not in message
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    write("lenet", tmp_path / "lenet")
    with pytest.raises(
        InputError, match=r"of this resnet20_v2 .*92 missing: .*unexpected: conv1_vars"
    ):
        load(model_of("resnet20_v2"), tmp_path / "lenet")
    with pytest.raises(InputError, match=r"fc2_vars/weights is \(128, 10\), not \(128, 11\)"):
        load(model_of("lenet", num_classes=11), tmp_path / "lenet")
    with pytest.raises(InputError, match=r"conv1_vars/weights is \(3, 3, 1, 4\), not"):
        load(model_of("lenet", width=8), tmp_path / "lenet")


def test_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    write("lenet", tmp_path / "c")
    values = read_variables(tmp_path / "c")
    values["fc1_vars/biases"][3] = np.nan
    write_variables(tmp_path / "d", values)
    with pytest.raises(InputError, match="not finite: fc1_vars/biases"):
        load(model_of("lenet"), tmp_path / "d")


def test_missing_averages_are_told(tmp_path: Path) -> None:
    write("lenet", tmp_path / "c")
    with pytest.raises(InputError, match="no moving averages"):
        load(model_of("lenet"), tmp_path / "c", moving_averages=True)
    values = read_variables(tmp_path / "c")
    averages = {f"{name}/ExponentialMovingAverage": value for name, value in values.items()}
    del averages["fc1_vars/biases/ExponentialMovingAverage"]
    write_variables(tmp_path / "d", values | averages)
    with pytest.raises(InputError, match=r"1 missing: fc1_vars/biases/ExponentialMovingAverage$"):
        load(model_of("lenet"), tmp_path / "d", moving_averages=True)


def cut_to_half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def emptied(content: bytes) -> bytes:
    return b""


def with_a_bit_flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [cut_to_half, emptied, with_a_bit_flipped])
@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_damaged_checkpoint_is_one_clear_line(
    suffix: str, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    write("lenet", tmp_path / "c")
    file = tmp_path / f"c{suffix}"
    file.write_bytes(damage(file.read_bytes()))
    model = model_of("lenet")
    before = model.get_weights()
    with pytest.raises(InputError, match=r"could not be read as a TF 1\.x checkpoint") as caught:
        load(model, tmp_path / "c")
    assert str(tmp_path / "c") in str(caught.value)
    assert "\n" not in str(caught.value)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    model = model_of("lenet")
    with pytest.raises(InputError, match=r"there is no checkpoint at .*model\.ckpt"):
        load(model, tmp_path / "model.ckpt")
    with pytest.raises(InputError, match=r"no TF 1\.x checkpoint"):
        load(model, tmp_path)
    (tmp_path / "model.ckpt").write_text("not a checkpoint")
    with pytest.raises(InputError, match=r"could not be read as a TF 1\.x checkpoint"):
        load(model, tmp_path / "model.ckpt")
    write("lenet", tmp_path / "c")
    (tmp_path / "c.data-00000-of-00001").unlink()
    with pytest.raises(InputError, match=r"could not be read as a TF 1\.x checkpoint"):
        load(model, tmp_path / "c")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"model_checkpoint_path: 3", None])
def test_an_unreadable_file_that_names_the_newest_is_one_line(
    content: bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / "checkpoint"
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint") as caught:
        load(model_of("lenet"), tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_formats_and_models_that_do_not_go_together(tmp_path: Path) -> None:
    for checkpoint_format, published in FORMATS.items():
        for name in set(CASES) - set(published.models):
            with pytest.raises(InputError, match=f"no checkpoints of {name}"):
                load_tf1_weights(
                    model_of(name), tmp_path / "c", checkpoint_format=checkpoint_format
                )
    with pytest.raises(InputError, match=r"unknown checkpoint format 'torch'.*authors, slim"):
        load_tf1_weights(model_of("lenet"), tmp_path / "c", checkpoint_format="torch")


def import_of(name: str, checkpoint: Path, **options: object) -> Import:
    case = CASES[name]
    dataset = {"lenet": "mnist", "resnet20_v2": "cifar10", "resnet50_v2": "tiny_imagenet"}[name]
    return Import(
        checkpoint=checkpoint,
        checkpoint_format=case.checkpoint_format,
        model=name,
        dataset=dataset,
        **({"width": case.width} | options),
    )


def test_an_imported_run_is_a_run(tmp_path: Path) -> None:
    expected = write("lenet", tmp_path / "c")
    run = RunDir(tmp_path / "runs" / "mnist" / "clp")
    assert import_run(import_of("lenet", tmp_path / "c"), run) == ()
    assert run.finished
    model = runs.load_model(run.model)
    assert_same_logits(model(CASES["lenet"].images(), training=False), expected)
    recipe = files.read_json(run.recipe)
    assert recipe["recipe"] == {"dataset": "mnist", "model": "lenet", "model_width": 4}
    assert recipe["weights"] == runs.weights_hash(model)
    assert recipe["imported"]["checkpoint"] == str(tmp_path / "c")
    assert "date" in recipe


def test_importing_again_changes_nothing_and_another_model_is_refused(tmp_path: Path) -> None:
    write("lenet", tmp_path / "c")
    run = RunDir(tmp_path / "run")
    import_run(import_of("lenet", tmp_path / "c"), run)
    before = {file: file.stat().st_mtime_ns for file in (run.model, run.recipe)}
    import_run(import_of("lenet", tmp_path / "c"), run)
    assert before == {file: file.stat().st_mtime_ns for file in (run.model, run.recipe)}

    values = read_variables(tmp_path / "c")
    write_variables(tmp_path / "d", values | {"fc2_vars/biases": values["fc2_vars/biases"] + 1})
    with pytest.raises(InputError, match="already has another model"):
        import_run(import_of("lenet", tmp_path / "d"), run)
    assert before == {file: file.stat().st_mtime_ns for file in (run.model, run.recipe)}


def test_a_folder_that_is_being_filled_or_holds_a_training_is_refused(tmp_path: Path) -> None:
    write("lenet", tmp_path / "c")
    source, run = import_of("lenet", tmp_path / "c"), RunDir(tmp_path / "run")
    with run.exclusive(), pytest.raises(InputError, match="another process is working on"):
        import_run(source, run)
    for left in (run.recipe, run.backup / "latest.npz"):  # its settings and model are lost
        left.parent.mkdir(exist_ok=True)
        left.write_text("{}")
        with pytest.raises(InputError, match="already has another model"):
            import_run(source, run)
        left.unlink()
        if left.parent == run.backup:
            run.backup.rmdir()
    assert import_run(source, run) == ()


def test_an_interrupted_import_is_finished_by_the_next(tmp_path: Path) -> None:
    write("lenet", tmp_path / "c")
    run = RunDir(tmp_path / "run")
    import_run(import_of("lenet", tmp_path / "c"), run)
    run.recipe.unlink()
    assert not run.finished
    import_run(import_of("lenet", tmp_path / "c"), run)
    assert run.finished


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 8}, "does not contain the variables of this lenet"),
        ({"dataset": "imagenet"}, "unknown dataset 'imagenet'"),
        ({"dataset": "cifar10"}, r"conv1_vars/weights is \(3, 3, 1, 4\), not \(3, 3, 3, 4\)"),
        ({"num_classes": 9}, "9 classes cannot be evaluated on mnist, which has 10"),
        ({"model": "vgg"}, "unknown model 'vgg'"),
    ],
)
def test_a_failed_import_leaves_no_folder(options: dict, words: str, tmp_path: Path) -> None:
    write("lenet", tmp_path / "c")
    source = dataclasses.replace(import_of("lenet", tmp_path / "c"), **options)
    with pytest.raises(InputError, match=words):
        import_run(source, RunDir(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def import_checkpoint(*flags: str) -> tuple[int, str]:
    words = ["it", "experiments.import_checkpoint", *flags]
    return command_runner.run_all([words], cwd=Path(__file__).parents[1])["it"]


def test_the_binary_makes_a_run(tmp_path: Path) -> None:
    expected = write("lenet", tmp_path / "c")
    flags = ("--format=authors", "--model=lenet", "--model_width=4", f"--checkpoint={tmp_path}/c")
    code, output = import_checkpoint(*flags, f"--run_dir={tmp_path}/run", "--pixel_range=-1..1")
    assert code == 0, output
    model = runs.load_model(RunDir(tmp_path / "run").model)
    images = (CASES["lenet"].images() + 1) / 2
    assert_same_logits(model(images, training=False), expected)


def test_the_binary_tells_bad_input_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("not a checkpoint")
    flags = ("--format=authors", "--model=lenet", f"--checkpoint={tmp_path}/c")
    code, output = import_checkpoint(*flags, f"--run_dir={tmp_path}/run")
    assert code == 2
    assert output.splitlines()[-1].startswith(f"error: {tmp_path}/c could not be read as")
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()
