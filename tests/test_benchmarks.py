"""What the benchmarks are made of: models told to PyTorch, models of known robustness."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

from alp_repro.errors import InputError
from benchmarks import other_libraries, truth_models

TRUTH = Path(__file__).resolve().parents[2] / "shared" / "truth"


def chain(*layers: keras.layers.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


def test_a_chain_of_layers_is_told_with_its_arrays() -> None:
    model = chain(
        keras.layers.Normalization(mean=[0.2], variance=[0.25]),
        keras.layers.Conv2D(3, 3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(2),
        keras.layers.Flatten(),
        keras.layers.Dense(4),
    )
    layers, arrays = other_libraries.layers_of(model)
    kinds = [kind for kind, _, _ in layers]
    assert kinds == ["shift", "pad", "convolve", "relu", "max_pool", "flatten", "dense"]
    told = dict(zip(kinds, layers, strict=True))
    assert told["pad"][2] == [1, 1, 1, 1] and told["max_pool"][2] == [2]
    np.testing.assert_array_equal(arrays[told["dense"][1][0]], model.layers[-1].kernel)
    np.testing.assert_allclose(arrays[told["shift"][1][1]].reshape(-1), 0.5)


@pytest.mark.parametrize(
    ("kernel", "stride", "expected"), [(4, 2, [1, 1, 1, 1]), (3, 2, [0, 1, 0, 1]), (1, 2, [0] * 4)]
)
def test_padding_same_is_told_in_pixels(kernel: int, stride: int, expected: list[int]) -> None:
    """As TensorFlow pads: of an odd number the larger half is below and to the right."""
    model = chain(keras.layers.Conv2D(3, kernel, strides=stride, padding="same"))
    layers, _ = other_libraries.layers_of(model)
    assert layers[0] == ("pad", [], expected)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Conv2D(3, 3, dilation_rate=2),
        keras.layers.Conv2D(3, 3, strides=(1, 2)),
        keras.layers.Dense(3, activation="tanh"),
        keras.layers.BatchNormalization(),
    ],
    ids=["dilated", "two strides", "tanh", "batch norm"],
)
def test_what_has_no_form_in_pytorch_is_refused(layer: keras.layers.Layer) -> None:
    with pytest.raises(InputError, match="no PyTorch form"):
        other_libraries.layers_of(chain(layer))


@dataclasses.dataclass
class MnistSized:
    """As many images as MNIST's."""

    unit_scale: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros((10_000, 2, 2, 1), np.float32)
    )
    labels: np.ndarray = dataclasses.field(default_factory=lambda: np.arange(10_000) % 10)


@pytest.fixture
def mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth_models.data, "load_split", lambda *_, **__: MnistSized())


def test_cases_are_those_whose_files_are_there(mnist: None, tmp_path: Path) -> None:
    (tmp_path / "mnist_200_indices.txt").write_text("3\n8\n11\n", encoding="utf-8")
    (tmp_path / "mnist_cnn_a_adv.keras").touch()
    (tmp_path / "hard_mnist_cnn_a_adv.txt").write_text("9\n5\n", encoding="utf-8")
    bracket, hard = truth_models.cases(tmp_path)
    np.testing.assert_array_equal(bracket.labels, [3, 8, 1])
    assert (bracket.truth, bracket.eps) == ("76 to 76.5", 0.3)
    np.testing.assert_array_equal(hard.labels, [9, 5])
    assert hard.truth == "0"


@pytest.mark.skipif(not TRUTH.exists(), reason="the folder of such models is not here")
def test_the_folder_of_known_models_is_read_whole(mnist: None) -> None:
    found = truth_models.cases(TRUTH, trades_images=50)
    assert [len(case.labels) for case in found] == [200, 200, 20, 20, 50]
    assert [case.truth for case in found] == ["76 to 76.5", "48.5 to 50", "0", "0", "≤ 92.71"]
