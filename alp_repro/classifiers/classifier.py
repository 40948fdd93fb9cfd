"""Any classifier as a Keras model: float32 images in [0, 1] to logits."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from alp_repro.classifiers import heads
from alp_repro.classifiers.load import load_function_or_model
from alp_repro.classifiers.pixels import UNIT_PIXELS, PixelScale
from alp_repro.errors import InputError, reason, sys_exit_refused
from alp_repro.models.probes import probe_images
from alp_repro.validation.arguments import checked_instance, fits
from alp_repro.validation.plain_numbers import quoted, whole_number

if TYPE_CHECKING:
    import tensorflow as tf

ImageShape = tuple[int, int, int]
MAX_PIXELS = 10**8  # of an image: far more than any real one has


@dataclass(frozen=True)
class Classifier:
    """A classifier in the form that attacks and audits use.

    Attributes:
      model: float32 [n, height, width, channels] in [0, 1] to logits [n, classes].
      classes: the number of classes.
      notes: the changes to the given model, one line each.
    """

    model: keras.Model
    classes: int
    notes: tuple[str, ...] = ()


@sys_exit_refused("the model's code")
def as_classifier(
    source: str | Path | keras.Model | Callable[..., Any],
    *,
    image_shape: ImageShape,
    pixels: PixelScale = UNIT_PIXELS,
    trust_code: bool = False,
) -> Classifier:
    """Return a model, a function, or what `load_function_or_model` reads as a `Classifier`.

    The given model is not changed. The pixels are converted to its scale, images are reshaped if it
    expects them flat or without a channel axis, and a softmax or sigmoid at its end is removed if
    its layers are accessible; one output becomes two logits. A subclassed model or a function is
    wrapped unchanged, and attacks on it are crafted in float32 only.

    Args:
      source: the classifier.
      image_shape: height, width, channels of the images.
      pixels: the scale of the model's pixels.
      trust_code: see `load_function_or_model`.

    Raises:
      InputError: it cannot be read, does not take such images, or does not return logits.
    """
    image_shape = _checked_shape(image_shape)
    pixels = checked_instance(pixels, PixelScale, name="pixels")
    if isinstance(source, str | Path):
        source = load_function_or_model(source, trust_code=trust_code)
    if type(source).__module__.startswith("tf_keras."):
        raise InputError(
            "the model is a tf_keras model (Keras 2): expected a model of Keras 3; save it as .h5 "
            "or export it as a SavedModel, and use the path"
        )
    if not pixels.fits(image_shape[2]):
        raise InputError(
            f"pixels {pixels.name}: expected images of "
            f"{max(len(pixels.scale), len(pixels.offset))} channels, got {image_shape[2]}"
        )
    if heads.is_graph(source):
        return _of_graph(source, image_shape, pixels)
    if isinstance(source, keras.Sequential):  # not built yet
        try:
            source(np.zeros((1, *image_shape), np.float32), training=False)
        except Exception as error:  # whatever its layers raise
            raise _not_called(image_shape, error) from error
        return _of_graph(source, image_shape, pixels)
    if callable(source):
        return _of_function(source, image_shape, pixels)
    raise InputError(
        f"the model is a {type(source).__name__}: expected a Keras model or a function from images "
        "to logits"
    )


def _checked_shape(image_shape: Any) -> ImageShape:
    if not isinstance(image_shape, list | tuple) or len(image_shape) != 3:
        raise InputError(f"image_shape {quoted(image_shape)}: expected (height, width, channels)")
    names = ("height", "width", "number of channels")
    height, width, channels = (
        whole_number(side, name=f"image_shape: {name}", low=1, high=MAX_PIXELS)
        for side, name in zip(image_shape, names, strict=True)
    )
    if height * width * channels > MAX_PIXELS:
        raise InputError(f"image_shape {image_shape}: expected at most {MAX_PIXELS:,} numbers")
    return height, width, channels


def _of_graph(model: keras.Model, image_shape: ImageShape, pixels: PixelScale) -> Classifier:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs: expected "
            "one of each"
        )
    reshaped = _model_shape(tuple(model.inputs[0].shape[1:]), image_shape)
    notes = [_scale_note(pixels)] if not pixels.is_identity else []
    if reshaped:
        notes.append(f"images reshaped to {reshaped}, the model's input shape")
    of_keras = type(model).__module__.partition(".")[0] == "keras"
    if not of_keras or not (isinstance(model, keras.Sequential) or model.input is model.inputs[0]):
        # Keras warns at every call of a model whose one input is in a list, and cannot copy a
        # subclass whose constructor takes other arguments.
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    probes = _probes(image_shape)
    taken = probes * np.array(pixels.scale, np.float32) + np.array(pixels.offset, np.float32)
    taken = taken.reshape(len(probes), *reshaped) if reshaped else taken
    outputs = _outputs(model, taken, image_shape)
    core, removed = heads.without_probabilities(model, taken, outputs)
    if removed:
        notes.append(f"{removed} removed: attacks need logits")
    one = core.outputs[0].shape[-1] == 1 and len(core.outputs[0].shape) == 2
    if one:
        notes.append(_ONE_OUTPUT_NOTE)
    if pixels.is_identity and not reshaped and not one:
        adapted = core
    else:
        images = keras.Input(image_shape, dtype="float32", name="unit_images")
        x: Any = images
        if not pixels.is_identity:
            x = keras.layers.Rescaling(
                _number(pixels.scale), _number(pixels.offset), dtype="float32", name="own_pixels"
            )(x)
        if reshaped:
            x = keras.layers.Reshape(reshaped)(x)
        logits = core(x)
        adapted = keras.Model(images, heads.two_logits(logits) if one else logits, name=model.name)
    if removed is None:
        _check_logits(outputs)
    return Classifier(adapted, 2 if one else outputs.shape[1], tuple(notes))


_ONE_OUTPUT_NOTE = "the one output is taken as the logit of class 1, with 0 for class 0"


def _scale_note(pixels: PixelScale) -> str:
    return f"pixels converted to the model's scale, {pixels.name}"


def _number(values: tuple[float, ...]) -> float | list[float]:
    return values[0] if len(values) == 1 else list(values)


def _model_shape(wanted: tuple[int | None, ...], image_shape: ImageShape) -> ImageShape | None:
    """Return the shape that the model expects of an image; None: the image's own."""
    if fits(image_shape, wanted):
        return None
    height, width, channels = image_shape
    for shape in ((height, width), (height * width * channels,), (height * width * channels, 1)):
        # Without a channel axis, flat, or flat with one.
        if wanted == shape and (len(shape) != 2 or channels == 1):
            return shape  # type: ignore[return-value]
    if wanted == (channels, height, width):
        raise InputError(
            f"the model expects images of shape {wanted}, channels first, got {image_shape}: use a "
            "function that transposes them, as module:function"
        )
    raise InputError(f"the model expects images of shape {wanted}, got {image_shape}")


class FunctionModel(keras.Model):
    """A function of images, or a subclassed model, as a Keras model."""

    def __init__(self, function: Callable[..., Any], *, pixels: PixelScale) -> None:
        super().__init__(name=_safe_name(function), dtype="float32")
        self._function = function
        self._scale = np.asarray(pixels.scale, np.float32)
        self._offset = np.asarray(pixels.offset, np.float32)
        self._inference = _inference_arguments(function)
        self.one_output = False
        self._in_numpy = False
        self._outputs_shape: tuple[int | None, ...] | None = None

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """(None, classes), as of a functional model."""
        assert self._outputs_shape is not None, "call learn_outputs first"
        return (None, 2) if self.one_output else self._outputs_shape

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the logits of images in [0, 1]; `training` is ignored."""
        import tensorflow as tf

        x = tf.cast(images, tf.float32) * self._scale + self._offset
        if self._in_numpy:
            outputs = tf.numpy_function(self._of_numpy, [x], tf.float32)
        else:
            outputs = tf.cast(self._outputs_of(x), tf.float32)
        if self._outputs_shape is not None:
            outputs = tf.ensure_shape(outputs, self._outputs_shape)
        return heads.two_logits(outputs) if self.one_output else outputs

    def _of_numpy(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._outputs_of(images), np.float32)

    def _outputs_of(self, images: Any) -> Any:
        with sys_exit_refused("the model's function"):
            return self._function(images, **self._inference)

    def learn_outputs(self, images: np.ndarray) -> None:
        """Find out, on a few images, how to call the function and what it returns."""
        import tensorflow as tf

        try:
            outputs = np.asarray(self(images))
        except InputError:
            raise
        except Exception as error:  # a function of NumPy arrays fails on tensors in its own ways
            self._in_numpy = True
            try:
                outputs = np.asarray(self(images))
            except Exception as other:
                if reason(other) == reason(error):
                    raise
                raise ValueError(f"{reason(error)}; with NumPy arrays: {reason(other)}") from error
        if outputs.ndim != 2 or len(outputs) != len(images):
            raise InputError(
                f"the model returns {outputs.shape} for {len(images)} images: expected logits "
                "[n, classes]"
            )
        self._outputs_shape = (None, outputs.shape[1])
        self.one_output = outputs.shape[1] == 1
        if not self._in_numpy:
            try:
                spec = tf.TensorSpec([None, *images.shape[1:]], tf.float32)
                tf.function(self.call, autograph=False).get_concrete_function(spec)
            except Exception:  # what cannot be traced can still be called from a graph
                self._in_numpy = True


def _safe_name(function: Any) -> str:
    name = getattr(function, "name", None) or getattr(function, "__name__", None) or "model"
    # TensorFlow requires the name of a scope, which "<lambda>" is not.
    return "".join(c for c in str(name) if c.isascii() and c.isalnum()) or "model"


def _inference_arguments(function: Any) -> dict[str, bool]:
    call = function.call if isinstance(function, keras.Model) else function
    try:
        return {"training": False} if "training" in inspect.signature(call).parameters else {}
    except (TypeError, ValueError):
        return {}


def _of_function(
    function: Callable[..., Any], image_shape: ImageShape, pixels: PixelScale
) -> Classifier:
    model = FunctionModel(function, pixels=pixels)
    notes = [_scale_note(pixels)] if not pixels.is_identity else []
    probe = _probes(image_shape)
    try:
        model.learn_outputs(probe)
    except InputError:
        raise
    except Exception as error:  # whatever a function of the user's raises
        raise _not_called(image_shape, error) from error
    outputs = np.asarray(model(probe))
    # Behind `two_logits`, class 0 has a logit of 0.
    _check_logits(outputs[:, 1:] if model.one_output else outputs)
    if model.one_output:
        notes.append(_ONE_OUTPUT_NOTE)
    return Classifier(model, outputs.shape[1], tuple(notes))


def _probes(image_shape: ImageShape) -> np.ndarray:
    """Return images that differ, so that a function with one row for all of them is noticed."""
    plain = np.stack([np.zeros(image_shape), np.full(image_shape, 0.5)]).astype(np.float32)
    return np.concatenate([plain, probe_images(image_shape)])


def _not_called(image_shape: ImageShape, error: Exception) -> InputError:
    return InputError(
        f"the model raised an error on float32 images of shape {image_shape}: {reason(error)}"
    )


def _outputs(model: keras.Model, images: np.ndarray, image_shape: ImageShape) -> np.ndarray:
    """Return a model's outputs [n, classes] for images on its own scale; else InputError."""
    try:
        outputs = np.asarray(keras.ops.convert_to_numpy(model(images, training=False)), np.float32)
    except Exception as error:  # whatever its layers raise
        raise _not_called(image_shape, error) from error
    if outputs.ndim != 2:
        raise InputError(f"the model returns {outputs.shape}: expected logits [n, classes]")
    return outputs


def _check_logits(outputs: np.ndarray) -> None:
    why = heads.why_not_logits(outputs)
    if why is not None:
        raise InputError(why)
