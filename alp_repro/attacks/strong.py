"""`strong`: our preset."""

from __future__ import annotations

from alp_repro.attacks.pgd import PGD
from alp_repro.dtypes import Dtype


def strong_attack(eps: float, *, dtype: Dtype = "float32") -> PGD:
    """Our preset `strong`: 450 gradients an image on average (docs/performance.md).

    Two to eighteen runs of 100 steps that fall linearly, in turns of three, and a search. The first
    of a turn is aimed at another wrong class by gradients at noisy points that momentum averages,
    with steps from ε: a distorted surface, as of CLP and LSQ, hides its way up from the true
    label's loss at the point itself, not from these. The second has no target and the third is
    aimed like the first, both by the point's own gradients and with steps from ε/8: on smooth
    surfaces, as of adversarially trained models, these find what the first pass over. What two runs
    have left far from its boundary hardly anything breaks: further runs go to the images that came
    closest, and after six a Square attack, which finds what no gradient of theirs leads to. The
    sizes were found on MNIST.
    """
    return PGD(
        eps=eps,
        eps_iter=eps,
        nb_iter=100,
        restarts=19,
        loss="mixed",
        step_schedule="linear",
        momentum=0.75,
        gradient_noise=4 * eps,
        target="rotate",
        budget=450,
        search=5000,
        plain_step=0.125,
        dtype=dtype,
    )
