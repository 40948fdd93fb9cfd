"""A cache of compiled programs, each valid while its model computes the traced function."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from alp_repro.models.copies import logits_function
from alp_repro.models.probes import full_float32, probe_images, rounding_explains

if TYPE_CHECKING:
    import keras

R = TypeVar("R")


def kept_for_models(*, maxsize: int) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Decorate a function that compiles a program of (model, image_shape, …) with an `lru_cache`.

    A trace follows changes of the model's weights, but not of its Python side: an attribute that
    `call` reads, an exchanged activation. Before a cached program is returned, the model's current
    logits are compared with those of a trace made with the program; if they differ, it is compiled
    again.
    """

    def decorator(compile_program: Callable[..., R]) -> Callable[..., R]:
        @functools.lru_cache(maxsize=maxsize)
        def entry(
            model: keras.Model, image_shape: tuple[int, ...], *rest: Any
        ) -> tuple[Callable[[], bool], R]:
            return _question(model, image_shape), compile_program(model, image_shape, *rest)

        @functools.wraps(compile_program)
        def get(model: keras.Model, image_shape: tuple[int, ...], *rest: Any) -> R:
            is_current, program = entry(model, image_shape, *rest)
            if not is_current():
                entry.cache_clear()
                _, program = entry(model, image_shape, *rest)
            return program

        return get

    return decorator


def _question(model: keras.Model, image_shape: tuple[int, ...]) -> Callable[[], bool]:
    """Return a function that tells later whether the model still computes what it does now."""
    import tensorflow as tf

    logits = logits_function(model)
    images = tf.constant(probe_images(image_shape))
    traced = tf.function(logits, autograph=False)
    with full_float32():
        traced(images)

    def is_current() -> bool:
        with full_float32():
            then, now = traced(images).numpy(), logits(images).numpy()
        return rounding_explains(now, then)

    return is_current
