"""A cache of compiled programs, each valid while its model computes the traced function."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from alp_repro.models.copies import logits_function
from alp_repro.models.probes import full_float32, probe_images, rounding_explains

if TYPE_CHECKING:
    import keras

R = TypeVar("R")

_unchanged: weakref.WeakKeyDictionary[keras.Model, object] = weakref.WeakKeyDictionary()


@dataclasses.dataclass
class _Kept(Generic[R]):
    """A program, and when its model was last known to be what was traced.

    Attributes:
      program: what was compiled.
      is_current: asks the model.
      known: the block of `taken_as_unchanged` in which it was compiled or last asked; None: none.
    """

    program: R
    is_current: Callable[[], bool]
    known: object | None


def cached_for_models(*, maxsize: int) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Decorate a function that compiles a program of (model, image_shape, …) with an `lru_cache`.

    A trace follows changes of the model's weights, but not of its Python side: an attribute that
    `call` reads, an exchanged activation. Before a cached program is returned, the model's current
    logits are compared with those of a trace made with the program; if they differ, it is compiled
    again. So is one of a random model each time, since its logits tell nothing, except within
    `taken_as_unchanged`.
    """

    def decorator(compile_program: Callable[..., R]) -> Callable[..., R]:
        @functools.lru_cache(maxsize=maxsize)
        def entry(model: keras.Model, image_shape: tuple[int, ...], *rest: Any) -> _Kept[R]:
            is_current = _question(model, image_shape)
            return _Kept(compile_program(model, image_shape, *rest), is_current, now(model))

        def now(model: keras.Model) -> object | None:
            return _unchanged.get(model)

        @functools.wraps(compile_program)
        def get(model: keras.Model, image_shape: tuple[int, ...], *rest: Any) -> R:
            misses = entry.cache_info().misses
            kept = entry(model, image_shape, *rest)
            known = kept.known is not None and kept.known is now(model)
            if entry.cache_info().misses > misses or known:
                return kept.program
            if not kept.is_current():
                entry.cache_clear()
                kept = entry(model, image_shape, *rest)
            kept.known = now(model)
            return kept.program

        return get

    return decorator


@contextlib.contextmanager
def taken_as_unchanged(*models: keras.Model) -> Iterator[None]:
    """Let each program of these models be asked for once at the most, not every time.

    For work within which nobody changes their Python side, of random models above all.
    """
    before = {model: _unchanged.get(model) for model in models}
    _unchanged.update({model: object() for model in models})
    try:
        yield
    finally:
        _unchanged.update(before)


def _question(model: keras.Model, image_shape: tuple[int, ...]) -> Callable[[], bool]:
    """Return a function that tells later whether the model still computes what it does now.

    All programs of a model that stays as it is share one, and its trace.
    """
    hits = _traced_question.cache_info().hits
    is_current = _traced_question(model, image_shape)
    if _traced_question.cache_info().hits > hits and not is_current():
        _traced_question.cache_clear()
        is_current = _traced_question(model, image_shape)
    return is_current


@functools.lru_cache(maxsize=4)
def _traced_question(model: keras.Model, image_shape: tuple[int, ...]) -> Callable[[], bool]:
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
