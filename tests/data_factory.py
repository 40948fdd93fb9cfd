"""Small generated data sets in the layouts of the official ones, for tests and smoke runs.

    python -m tests.data_factory --dataset=cifar10 --out=build/fake

writes a source that `experiments.prepare_data` reads. The images are learnable: each class has a
colour pattern of its own under noise.
"""

from __future__ import annotations

import argparse
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def class_images(
    num_classes: int, per_class: int, *, size: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, size, size, 3] and labels [n], the classes in turn."""
    patterns = np.random.default_rng(0).uniform(40, 215, (num_classes, 4, 4, 3))
    patterns = patterns.repeat(size // 4, axis=1).repeat(size // 4, axis=2)
    labels = np.tile(np.arange(num_classes), per_class)
    noise = np.random.default_rng(seed).normal(0, 15, (len(labels), size, size, 3))
    return np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8), labels


def make_cifar10(
    out: Path, *, train_per_class: int = 40, test_per_class: int = 20, python: bool = False
) -> Path:
    """Write `cifar-10-batches-bin` (or `-py`) below `out` and return its path."""
    folder = out / f"cifar-10-batches-{'py' if python else 'bin'}"
    folder.mkdir(parents=True)
    images, labels = class_images(10, train_per_class, size=32, seed=1)
    numbers = np.array_split(np.arange(len(labels)), 5)
    batches = {f"data_batch_{i}": (images[n], labels[n]) for i, n in enumerate(numbers, start=1)}
    batches["test_batch"] = class_images(10, test_per_class, size=32, seed=2)
    for name, (batch_images, batch_labels) in batches.items():
        planes = batch_images.transpose(0, 3, 1, 2).reshape(len(batch_labels), -1)
        if python:
            batch = {b"data": planes, b"labels": batch_labels.tolist(), b"batch_label": b"fake"}
            (folder / name).write_bytes(_python2_pickle(batch))
        else:
            records = np.concatenate([batch_labels[:, None].astype(np.uint8), planes], axis=1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
    if not python:
        (folder / "batches.meta.txt").write_text("\n".join(CIFAR10_CLASSES) + "\n")
    return folder


def make_cifar10_images(
    out: Path, *, per_class: int = 3, suffix: str = ".png", classes: tuple[str, ...] | None = None
) -> Path:
    """Write images at train/CLASS/NNNN and test/CLASS/NNNN below `out` and return `out`."""
    encode = tf.io.encode_png if suffix == ".png" else tf.io.encode_jpeg
    for seed, split in enumerate(("train", "test"), start=1):
        images, labels = class_images(10, per_class, size=32, seed=seed)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = out / split / (classes or CIFAR10_CLASSES)[label] / f"{number // 10:04d}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(image).numpy())
    return out


def tiny_imagenet_wnids() -> list[str]:
    """200 made-up WordNet ids, not in sorted order, as in the official wnids.txt."""
    return [f"n{10_000_000 + 7919 * (number * 77 % 200):08d}" for number in range(200)]


def make_tiny_imagenet(out: Path, *, train_per_class: int = 3, val_per_class: int = 2) -> Path:
    """Write `tiny-imagenet-200` in the official layout below `out` and return its path."""
    root = out / "tiny-imagenet-200"
    wnids = tiny_imagenet_wnids()
    (root / "val" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(wnids) + "\n")
    # The official words.txt names many more ids than the 200.
    words = ["n00000001\tsomething else", *(f"{w}\tthing {i}, it" for i, w in enumerate(wnids))]
    (root / "words.txt").write_text("\n".join(words) + "\n")
    images, labels = class_images(200, train_per_class, size=64, seed=1)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / "train" / wnids[label] / "images"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{wnids[label]}_{number // 200}.JPEG").write_bytes(_jpeg(image, number))
    images, labels = class_images(200, val_per_class, size=64, seed=2)
    order = np.random.default_rng(3).permutation(len(labels))
    annotations = []
    for number, (image, label) in enumerate(zip(images[order], labels[order], strict=True)):
        (root / "val" / "images" / f"val_{number}.JPEG").write_bytes(_jpeg(image, number))
        annotations.append(f"val_{number}.JPEG\t{wnids[label]}\t0\t0\t63\t63\n")
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    return root


def _jpeg(image: np.ndarray, number: int) -> bytes:
    # Some of the official images are grey, with one channel in the file.
    if number % 50 == 49:
        image = image.mean(axis=-1, keepdims=True).astype(np.uint8)
    return tf.io.encode_jpeg(image, quality=95).numpy()


def _python2_pickle(batch: dict[bytes, object]) -> bytes:
    """Protocol 2, as the official archive has it."""
    stream = io.BytesIO()
    pickle.Pickler(stream, protocol=2).dump(batch)
    return stream.getvalue()


MAKERS: dict[str, Callable[[Path], Path]] = {
    "cifar10": make_cifar10,
    "tiny_imagenet": make_tiny_imagenet,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, choices=sorted(MAKERS))
    parser.add_argument("--out", required=True, type=Path, help="folder to write into")
    arguments = parser.parse_args()
    print(MAKERS[arguments.dataset](arguments.out))


if __name__ == "__main__":
    main()
