"""The paper's three architectures, and Wong's small one, as functional Keras models.

Every model is made of built-in Keras layers alone, so it is saved, loaded and cloned (also under
another dtype policy) without custom objects. The layer names are the ones that
`alp_repro.checkpoints` maps the published TF1 variables to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alp_repro.errors import InputError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Architecture:
    """One entry of `MODELS`.

    `paper_width` is the paper's number of channels, which all others are proportional to;
    `min_side` is the smallest image side that the model's strides allow.
    """

    paper_width: int
    min_side: int


def build_model(
    name: str,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    width: int | None = None,
    weight_seed: int = 0,
    pixel_range: tuple[float, float] = (0.0, 1.0),
) -> keras.Model:
    """Build a freshly initialised model: float32 images in [0, 1] to logits (no softmax).

    The input is (batch, *image_shape), the output (batch, num_classes). `width` None is the
    paper's (LeNet: 32 filters in the first convolution; ResNet20-v2: 64; ResNet50-v2: base depth
    64; `wong`: 16), any other value narrows or widens every hidden layer in proportion. The same
    `weight_seed` gives the same weights; each layer draws from a seed of its own. With
    `pixel_range` (low, high) other than (0, 1) the model itself rescales its [0, 1] input to that
    range, so that attacks on it keep the [0, 1] scale.

    Raises InputError for an unknown name, an image that is too small for the model's strides,
    and for sizes or seeds that are not valid.

    Source: protocol, "MNIST and CIFAR-10" and "Tiny ImageNet"; `wong`: Wong et al. 2020,
    arXiv:2001.03994.
    """
    architecture = MODELS.get(name)
    if architecture is None:
        raise InputError(f"unknown model {name!r}: expected one of {', '.join(MODELS)}")
    width = architecture.paper_width if width is None else width
    if width < 1:
        raise InputError(f"width of {name} is {width}: expected a positive number of channels")
    if num_classes < 2:
        raise InputError(f"num_classes of {name} is {num_classes}: expected 2 or more")
    if weight_seed < 0:
        raise InputError(f"weight_seed of {name} is {weight_seed}: expected 0 or more")
    if len(image_shape) != 3 or image_shape[2] < 1:
        raise InputError(
            f"image_shape of {name} is {image_shape}: expected (height, width, channels)"
        )
    if min(image_shape[:2]) < architecture.min_side:
        raise InputError(
            f"images of {image_shape[0]}×{image_shape[1]} pixels are too small for {name}: "
            f"expected at least {architecture.min_side}×{architecture.min_side}"
        )
    low, high = pixel_range
    if not low < high:
        raise InputError(f"pixel_range of {name} is {pixel_range}: expected low < high")

    import keras

    from alp_repro.models import networks

    images = keras.Input(image_shape, dtype="float32", name="images")
    x = images
    if (low, high) != (0.0, 1.0):
        x = keras.layers.Rescaling(scale=high - low, offset=low, name="rescale_pixels")(x)
    logits = networks.NETWORKS[name](x, networks.Layers(weight_seed), width, num_classes)
    return keras.Model(images, logits, name=name)


MODELS: dict[str, Architecture] = {
    "lenet": Architecture(paper_width=32, min_side=4),
    "resnet20_v2": Architecture(paper_width=64, min_side=4),
    "resnet50_v2": Architecture(paper_width=64, min_side=32),
    "wong": Architecture(paper_width=16, min_side=4),
}
