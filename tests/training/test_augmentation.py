from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from alp_repro.training import augmentation

SEED = tf.constant([3, 14])


def random_images(batch: int) -> tf.Tensor:
    # Smooth enough to look like photographs: upsampled noise.
    coarse = tf.random.stateless_uniform([batch, 16, 16, 3], [1, 2])
    return tf.clip_by_value(tf.image.resize(coarse, (64, 64), method="bicubic"), 0.0, 1.0)


def test_result_is_a_function_of_images_and_seed():
    images = random_images(8)
    first = augmentation.augment_batch(images, seed=SEED)
    again = augmentation.augment_batch(images, seed=SEED)
    other = augmentation.augment_batch(images, seed=tf.constant([3, 15]))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (8, 64, 64, 3)
    assert first.dtype == tf.float32
    assert -0.3 < float(tf.reduce_min(first)) <= float(tf.reduce_max(first)) < 1.3
    differences = tf.reduce_max(tf.abs(first - other), axis=[1, 2, 3])
    assert float(tf.reduce_min(differences)) > 0.01


def test_each_image_has_its_own_draw():
    image = random_images(1)
    augmented = augmentation.augment_batch(tf.repeat(image, 16, axis=0), seed=SEED)
    assert len({one.tobytes() for one in augmented.numpy()}) == 16


@pytest.mark.slow
def test_xla_and_graph_agree_with_eager():
    images = random_images(4)
    eager = augmentation.augment_batch(images, seed=SEED)
    signature = [tf.TensorSpec([4, 64, 64, 3]), tf.TensorSpec([2], tf.int32)]
    for jit in (False, True):
        compiled = tf.function(
            lambda x, s: augmentation.augment_batch(x, seed=s),
            input_signature=signature,
            jit_compile=jit,
        )
        np.testing.assert_allclose(compiled(images, SEED), eager, atol=2e-5)


def test_crops_stay_inside_and_keep_the_protocols_bounds():
    crops = augmentation.random_crops(20_000, 64, seed=SEED)
    top, left, height, width = (value.numpy() for value in crops)
    for value in (top, left, height, width):
        np.testing.assert_array_equal(value, np.round(value))
    assert top.min() == 0
    assert left.min() == 0
    assert (top + height).max() == 64
    assert (left + width).max() == 64
    area = height * width / 64**2
    assert 0.5 <= area.min() < 0.51
    assert area.max() > 0.95
    # Rounding the width to a pixel moves the ratio by at most half a pixel in the height.
    assert (width / height).min() > 0.75 - 0.5 / height.min()
    assert (width / height).max() < 1.33 + 0.5 / height.min()


def test_crop_sizes_are_distributed_as_tensorflows_op_draws_them():
    draws = 4000
    crops = augmentation.random_crops(draws, 64, seed=SEED)

    @tf.function
    def reference(seeds: tf.Tensor) -> tf.Tensor:
        def one(seed: tf.Tensor) -> tf.Tensor:
            _, size, _ = tf.image.stateless_sample_distorted_bounding_box(
                [64, 64, 3],
                tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
                seed,
                min_object_covered=0.5,
                aspect_ratio_range=(0.75, 1.33),
                area_range=(0.5, 1.0),
            )
            return size[:2]

        return tf.map_fn(one, seeds)

    seeds = tf.stack([tf.range(draws), tf.zeros(draws, tf.int32)], axis=1)
    expected = reference(seeds).numpy()
    for ours, theirs in zip((crops.height, crops.width), expected.T, strict=True):
        # Two-sample Kolmogorov–Smirnov distance; its 0.1 % point here is 0.044.
        grid = np.arange(65)
        gap = (ours.numpy()[:, None] <= grid).mean(0) - (theirs[:, None] <= grid).mean(0)
        assert np.abs(gap).max() < 0.044


def test_crop_and_resize_equals_tensorflow_1s_bicubic():
    images = random_images(5)
    crops = augmentation.Crops(
        *(
            tf.constant(row, tf.float32)
            for row in np.transpose(
                [(0, 0, 64, 64), (3, 10, 48, 40), (20, 0, 44, 48), (0, 9, 50, 55), (7, 7, 40, 51)]
            )
        )
    )
    ours = augmentation.crop_and_resize(images, crops)
    for number, (top, left, height, width) in enumerate(np.transpose(crops).astype(int)):
        crop = images[number, top : top + height, left : left + width]
        expected = tf.compat.v1.image.resize_bicubic(crop[tf.newaxis], (64, 64))[0]
        np.testing.assert_allclose(ours[number], expected, atol=3e-6)
    np.testing.assert_allclose(ours[0], images[0], atol=1e-6)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_saturation_equals_tf_image(factor: float):
    images = random_images(2)
    ours = augmentation.adjust_saturation(images, tf.fill([2, 1, 1], factor))
    np.testing.assert_allclose(ours, tf.image.adjust_saturation(images, factor), atol=1e-5)


def test_what_overshoots_is_not_clipped():
    edges = tf.cast(tf.random.stateless_uniform([4, 64, 64, 3], [1, 2]) < 0.5, tf.float32)
    augmented = augmentation.augment_batch(edges, seed=SEED)
    assert float(tf.reduce_min(augmented)) < 0 and float(tf.reduce_max(augmented)) > 1


def test_half_of_the_images_are_flipped():
    # Left half dark, right half bright: whichever crop is taken, its sides tell.
    image = tf.concat([tf.zeros([1, 64, 32, 3]), tf.ones([1, 64, 32, 3])], axis=2)
    augmented = augmentation.augment_batch(tf.repeat(image, 400, axis=0), seed=SEED).numpy()
    flipped = augmented[:, :, :8].mean((1, 2, 3)) > augmented[:, :, -8:].mean((1, 2, 3))
    assert 150 < flipped.sum() < 250
