"""A SavedModel that reaches files is refused before it is loaded; real exports are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from alp_repro.classifiers import as_classifier
from alp_repro.classifiers.saved_model import check_operations
from alp_repro.errors import InputError

SHAPE = (8, 8, 1)
layers = keras.layers


class Linear(tf.Module):
    """A classifier that does something else besides, when it is called or when it is loaded."""

    def __init__(self, aside: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.weights = tf.Variable(np.ones((64, 3), np.float32))
        self.aside = aside

    @tf.function(input_signature=[tf.TensorSpec([None, *SHAPE], tf.float32)])
    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        self.aside()
        return {"logits": tf.reshape(images, [-1, 64]) @ self.weights}


def initialized(aside: Callable[[], object]) -> Linear:
    """A classifier with a table whose initializer, which loading runs, does something besides."""
    from tensorflow.python.trackable.resource import TrackableResource

    class Resource(TrackableResource):
        def _create_resource(self) -> tf.Tensor:
            return tf.raw_ops.HashTableV2(key_dtype=tf.int64, value_dtype=tf.int64)

        def _initialize(self) -> None:
            aside()

    model = Linear()
    model.resource = Resource()
    return model


def nested(aside: Callable[[], object]) -> Linear:
    """It does so in a branch of a function that its function calls."""

    @tf.function
    def inner() -> tf.Tensor:
        def branch() -> tf.Tensor:
            aside()
            return tf.constant(1)

        return tf.cond(tf.random.uniform([]) < 0.5, branch, lambda: tf.constant(0))

    return Linear(inner)


def asides(file: Path) -> dict[str, Callable[[], object]]:
    """Operations that reach outside a model; the first ones write `file`."""
    name = str(file)
    return {
        "WriteFile": lambda: tf.io.write_file(name, "written"),
        "PrintV2": lambda: tf.print("written", output_stream=f"file://{name}"),
        "SaveV2": lambda: tf.raw_ops.SaveV2(
            prefix=name, tensor_names=["a"], shape_and_slices=[""], tensors=[tf.zeros(3)]
        ),
        "MergeV2Checkpoints": lambda: tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=[name], destination_prefix=name
        ),
        "ReadFile": lambda: tf.io.read_file("/etc/passwd"),
        "RestoreV2": lambda: tf.raw_ops.RestoreV2(
            prefix=name, tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
        ),
        "MatchingFiles": lambda: tf.io.matching_files("/etc/*"),
        "EagerPyFunc": lambda: tf.py_function(lambda: 1.0, [], tf.float32),
        "ImmutableConst": lambda: tf.raw_ops.ImmutableConst(
            dtype=tf.uint8, shape=[4], memory_region_name="/etc/passwd"
        ),
    }


@pytest.mark.parametrize("operation", asides(Path("/x")))
@pytest.mark.parametrize("make", [Linear, initialized, nested])
def test_what_reaches_outside_is_refused_before_it_is_loaded(
    make: Callable[..., Linear], operation: str, tmp_path: Path
) -> None:
    path, written = tmp_path / "model", tmp_path / "written"
    tf.saved_model.save(make(asides(written)[operation]), str(path))
    for left in tmp_path.glob("written*"):  # by saving, which runs no initializer but traces
        left.unlink()
    with pytest.raises(InputError, match=rf"{operation} \(node .* of function .*trust_code"):
        as_classifier(path, image_shape=SHAPE)
    assert not list(tmp_path.glob("written*"))


def test_a_trusted_model_is_loaded(tmp_path: Path) -> None:
    path, written = tmp_path / "model", tmp_path / "written"
    tf.saved_model.save(initialized(asides(written)["WriteFile"]), str(path))
    assert as_classifier(path, image_shape=SHAPE, trust_code=True).classes == 3
    assert written.exists()


def test_a_call_of_the_saver_is_refused(tmp_path: Path) -> None:
    """Its functions may save, but not when they are called by a signature's."""
    tf.saved_model.save(Linear(), str(tmp_path))
    check_operations(tmp_path)
    model = read(tmp_path)
    graph = model.meta_graphs[0]
    functions = {f.signature.name: f for f in graph.graph_def.library.function}
    saver = next(name for name in functions if "traced_save" in name)
    caller = next(f for name, f in functions.items() if "signature_wrapper" in name)
    call = caller.node_def.add(name="hidden", op="PartitionedCall")
    call.attr["f"].func.name = saver
    write(tmp_path, model)
    with pytest.raises(InputError, match="SaveV2"):
        as_classifier(tmp_path, image_shape=SHAPE)


def test_what_the_restoring_of_tensorflow_1_saves_is_refused(tmp_path: Path) -> None:
    tf.saved_model.save(Linear(), str(tmp_path))
    model = read(tmp_path)
    graph = model.meta_graphs[0]
    nodes = {node.name: node for node in graph.graph_def.node}
    save = graph.saver_def.save_tensor_name.partition(":")[0]
    nodes[graph.saver_def.restore_op_name].input.append(f"^{save}")
    write(tmp_path, model)
    with pytest.raises(InputError, match="SaveV2"):
        check_operations(tmp_path)


def read(folder: Path) -> SavedModel:
    model = SavedModel()
    model.ParseFromString((folder / "saved_model.pb").read_bytes())
    return model


def write(folder: Path, model: SavedModel) -> None:
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())


REAL = {
    "LeNet": [
        layers.Conv2D(4, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(8, activation="gelu"),
        layers.Dropout(0.5),
    ],
    "preprocessing": [
        layers.Rescaling(2.0, offset=-1.0),
        layers.Resizing(12, 12, interpolation="bicubic"),
        layers.CenterCrop(10, 10),
        layers.Normalization(mean=0.5, variance=2.0),
        layers.ZeroPadding2D(1),
    ],
    "batch norm": [
        layers.SeparableConv2D(4, 3),
        layers.BatchNormalization(),
        layers.DepthwiseConv2D(3),
        layers.LayerNormalization(),
        layers.GroupNormalization(2),
        layers.UpSampling2D(interpolation="bilinear"),
        layers.GlobalAveragePooling2D(),
    ],
    "recurrent, attention": [layers.Reshape((8, 8)), layers.LSTM(5, return_sequences=True)],
}


@pytest.mark.parametrize("form", ["export", "save"])
@pytest.mark.parametrize("kind", REAL)
def test_real_exports_give_their_logits(kind: str, form: str, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input(SHAPE), *REAL[kind], layers.Flatten(), layers.Dense(10)])
    if form == "export":
        model.export(tmp_path, verbose=False)
    else:
        tf.saved_model.save(model, str(tmp_path))
    images = np.random.default_rng(0).uniform(0, 1, (3, *SHAPE)).astype(np.float32)
    found = as_classifier(tmp_path, image_shape=SHAPE).model
    np.testing.assert_allclose(found(images), model(images), atol=1e-5)


def test_layers_that_draw_random_numbers_are_read(tmp_path: Path) -> None:
    drawing = [layers.RandomFlip(), layers.RandomRotation(0.2), layers.GaussianNoise(0.1)]
    model = keras.Sequential([keras.Input(SHAPE), *drawing, layers.Flatten(), layers.Dense(10)])
    model.export(tmp_path, verbose=False)
    assert as_classifier(tmp_path, image_shape=SHAPE).classes == 10


def test_a_model_of_tensorflow_1_is_read(tmp_path: Path) -> None:
    v1 = tf.compat.v1
    path = tmp_path / "model"
    with v1.Session(graph=tf.Graph()) as session:
        images = v1.placeholder(tf.float32, [None, *SHAPE])
        weights = v1.get_variable("w", [64, 3], use_resource=False)
        logits = tf.reshape(images, [-1, 64]) @ weights
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(path), {"x": images}, {"y": logits})
        wanted = session.run(logits, {images: np.ones((2, *SHAPE))})
    found = as_classifier(path, image_shape=SHAPE).model
    np.testing.assert_allclose(found(np.ones((2, *SHAPE), np.float32)), wanted, atol=1e-5)


def test_a_damaged_one_is_one_line(tmp_path: Path) -> None:
    tf.saved_model.save(Linear(), str(tmp_path))
    file = tmp_path / "saved_model.pb"
    content = file.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"\xff" * 100):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"could not be loaded|no signature"):
            as_classifier(tmp_path, image_shape=SHAPE)
