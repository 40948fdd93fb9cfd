"""The pictures of an audit's page: figures, and single images as data URIs."""

from __future__ import annotations

import base64
import io
import textwrap

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from alp_repro.auditing.result import Audit
from alp_repro.reporting.figures import (
    WIDTH,
    figure_style,
    heat_map_panels,
    loss_histograms,
    surface_panels,
)

_BROKEN, _DEFAULT, _LEFT = "#D55E00", "#0072B2", "#009E73"
_NARROW = 3.9  # inches: about a phone's width at the resolution of all figures


def data_uri(figure: Figure) -> str:
    """Return a figure as a data URI, a PNG that stands inside the page."""
    buffer = io.BytesIO()
    with figure_style():
        figure.savefig(buffer, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def image_uri(image: np.ndarray) -> str:
    """Return one image, float [height, width, channels] in [0, 1], as a data URI, a PNG."""
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if pixels.shape[-1] not in (1, 3, 4):
        pixels = pixels[..., :1]
    png = tf.io.encode_png(pixels).numpy()
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@figure_style()
def accuracies(audit: Audit, *, narrow: bool = False) -> Figure:
    """Draw the accuracy left after each attack in turn, and under the evaluation under audit.

    `narrow`: for a phone's screen.
    """
    titles = ["clean", *(attack.title.partition(":")[0] for attack in audit.attacks)]
    left = [audit.worst_after(count) for count in range(len(titles))]
    alone = np.array(
        [audit.clean_accuracy, *(audit.accuracy_alone(attack) for attack in audit.attacks)], float
    )
    if narrow:
        titles = [textwrap.fill(title, 20, break_on_hyphens=False) for title in titles]
    height = 1.1 + 0.36 * len(titles) if narrow else 0.75 + 0.27 * len(titles)
    figure = Figure(figsize=(_NARROW if narrow else WIDTH, height), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(titles))[::-1]
    errors = np.array([audit.interval(share) for share in left]).T
    errors = np.abs(errors - np.array(left))
    colours = [_LEFT, _DEFAULT, *[_BROKEN] * (len(titles) - 2)]
    axes.barh(
        places,
        np.array(left) * 100,
        height=0.62,
        color=colours,
        xerr=errors * 100,
        error_kw={"elinewidth": 0.8, "ecolor": "#444444"},
    )
    axes.plot(
        alone[2:] * 100,
        places[2:],
        "D",
        color="#222222",
        markersize=3.2,
        label="this attack alone",
    )
    if len(titles) > 1:
        axes.axvline(
            alone[1] * 100,
            color=_DEFAULT,
            linestyle="--",
            linewidth=0.9,
            label="the evaluation under audit",
        )
        figure.legend(loc="outside lower center", ncols=2)
    ends = np.fmax(alone, [audit.interval(share)[1] for share in left])
    for place, share, end in zip(places, left, ends, strict=True):
        axes.text(
            end * 100 + 1.6,
            place,
            f"{share:.1%}",
            va="center",
            fontsize=7,
            bbox={"facecolor": "white", "linewidth": 0, "pad": 0.6},
        )
    axes.set_yticks(places, titles)
    axes.set_xlim(0, 126 if narrow else 112)
    axes.set_xticks([0, 20, 40, 60, 80, 100])
    axes.set_xlabel(
        "classified correctly, worst case so far (%)"
        if narrow
        else "images still classified correctly, worst case so far (%)"
    )
    axes.grid(axis="y", visible=False)
    return figure


def closer_looks(audit: Audit) -> list[tuple[str, str, str]]:
    """Return heading, picture and caption of each closer look that the audit has."""
    found = []
    if audit.heat_map is not None:
        title = f"steps and iterations, {audit.heat_map.broken.shape[2]} images"
        caption = (
            "Accuracy (percent of correctly classified images) under PGD with one restart for each "
            "step size and number of iterations. The evaluation under audit is one cell; if it is "
            "reliable, no cell beside it is much darker."
        )
        figure = heat_map_panels({title: audit.heat_map})
        found.append(("Step size and iterations", figure, caption))
    if audit.restarts is not None and audit.restarts.losses is not None:
        titles = [f"image {place}" for place in audit.restarts.indices]
        caption = (
            "Final cross-entropy of restarts of the default evaluation on images that it left "
            "standing, where there are any. Where losses differ widely from one start to another, "
            "one restart tells little."
        )
        figure = loss_histograms(audit.restarts.losses, titles, broken=audit.restarts.broken)
        found.append(("Restarts", figure, caption))
    if audit.surface is not None:
        titles = [f"image {place}" for place in audit.surface.indices]
        caption = (
            "Cross-entropy on a plane through each image, spanned by two random sign vectors. Many "
            "hills, or a plain with one narrow hill, mislead gradient steps."
        )
        figure = surface_panels(audit.surface.losses, audit.surface.plane.offsets, titles)
        found.append(("Loss surfaces", figure, caption))
    return [(heading, data_uri(figure), caption) for heading, figure, caption in found]


def perturbation(audit: Audit, place: int) -> np.ndarray:
    """Return what was added to an image, as an image: grey is nothing, white +ε, black -ε."""
    difference = audit.adversarial[place] - audit.images[place]
    return 0.5 + 0.5 * difference / audit.eps
