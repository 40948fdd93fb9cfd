"""Adversarial accuracy over step size × iterations: a heat map, one attack run for each step size.

The k-th iterate of a constant-step PGD of n > k iterations is the last one of a run of k, so one
run with a verdict at each asked iteration count yields a whole column of the map.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alp_repro import files, runs
from alp_repro.attacks import (
    Attack,
    choose_targets,
    exact_bounds,
    loss_and_gradient,
    pgd_step,
    random_starts,
)
from alp_repro.errors import InputError
from alp_repro.evaluation.evaluate import DEFAULT_BATCH
from alp_repro.model_copies import copy_weights, crafting_copy, logits_function

_ARRAYS = ("broken", "eps_iters", "nb_iters")


@dataclasses.dataclass(frozen=True, eq=False)
class HeatMap:
    """Which images each attack of a grid breaks; complete or on its way.

    Attributes:
      broken: bool [steps, counts, n], some restart's iterate is misclassified.
      eps_iters: float64 [steps], step sizes on the [0, 1] scale.
      nb_iters: int64 [counts], iterations, ascending.
      columns: how many step sizes, from the first, are done.
      settings: what makes this result: attack, seed, batch, hashes of model and images.
      sessions: provenance of every process that worked on it.
    """

    broken: np.ndarray
    eps_iters: np.ndarray
    nb_iters: np.ndarray
    columns: int
    settings: dict[str, Any]
    sessions: list[dict[str, Any]]

    @property
    def complete(self) -> bool:
        """Whether every step size is done."""
        return self.columns == len(self.eps_iters)

    @property
    def accuracy(self) -> np.ndarray:
        """float64 [steps, counts], adversarial accuracy; NaN where it is not known yet."""
        accuracy = 1.0 - self.broken.mean(axis=2)
        accuracy[self.columns :] = np.nan
        return accuracy


def heat_map(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    attack: Attack,
    eps_iters: Sequence[float],
    nb_iters: Sequence[int],
    seed: int = 0,
    batch_size: int = DEFAULT_BATCH,
    folder: Path | None = None,
    jit_compile: bool | None = None,
    report: Callable[[int, int], None] = lambda done, columns: None,
    details: dict[str, Any] | None = None,
) -> HeatMap:
    """Attacks with every step size and iteration count of a grid.

    Each cell equals `evaluation.evaluate` with that attack, the same seed and batch size.

    Args:
      model: float32 images in [0, 1] to logits.
      images: float [n, height, width, channels] in [0, 1].
      labels: int [n].
      attack: PGD with a constant step, judged at the last iterate; its `eps_iter` and `nb_iter` are
        the grid's instead.
      eps_iters: step sizes on the [0, 1] scale, each in (0, eps].
      nb_iters: iteration counts, ascending.
      seed: of the random starts and targets.
      batch_size: (image, restart) items in a batch.
      folder: where the result is kept after each column, under `map_name`. What is there is not
        computed again.
      jit_compile: XLA; None: on when a GPU is there.
      report: called with (columns done, columns) after each column.
      details: further provenance for the result.

    Raises:
      InputError: a grid or an attack that this cannot do; a result in `folder` that is
        damaged, belongs to another model or is being worked on.
    """
    images, labels = images.astype(np.float32), np.asarray(labels, np.int32)
    _check(attack, eps_iters, nb_iters)
    if len(images) == 0 or labels.shape != (len(images),):
        raise InputError(f"{len(images)} images and labels of shape {labels.shape}: one label each")
    fresh = HeatMap(
        broken=np.zeros((len(eps_iters), len(nb_iters), len(images)), bool),
        eps_iters=np.asarray(eps_iters, np.float64),
        nb_iters=np.asarray(nb_iters, np.int64),
        columns=0,
        settings=_settings(model, images, labels, attack, eps_iters, nb_iters, seed, batch_size),
        sessions=[],
    )

    def go_on(found: HeatMap, save: Callable[[HeatMap], None]) -> HeatMap:
        columns = _Columns(model, images, labels, fresh, attack, seed, batch_size, jit_compile)
        while not found.complete:
            broken = found.broken.copy()
            broken[found.columns] = columns.broken(found.eps_iters[found.columns])
            found = dataclasses.replace(found, broken=broken, columns=found.columns + 1)
            save(found)
            report(found.columns, len(eps_iters))
        return found

    if folder is None:
        return go_on(fresh, lambda found: None)
    return _on_disk(folder / map_name(fresh.settings), fresh, go_on, details or {})


def _check(attack: Attack, eps_iters: Sequence[float], nb_iters: Sequence[int]) -> None:
    unfit = attack.departures(leaving_out=("loss", "target", "random_start", "dtype"))
    if unfit or attack.target == "rotate":
        told = ", ".join(unfit) or "target=rotate"
        raise InputError(
            f"heat map with {told}: only PGD with a constant step, judged at the last iterate, has "
            "iterates that are the results of shorter attacks"
        )
    if len(eps_iters) == 0 or len(nb_iters) == 0:
        raise InputError("heat map: one step size and one iteration count or more are needed")
    for eps_iter in eps_iters:
        dataclasses.replace(attack, eps_iter=eps_iter)  # refuses a step that is out of range
    if list(nb_iters) != sorted(set(nb_iters)) or min(nb_iters) < 1:
        raise InputError(
            f"heat map iterations {', '.join(map(str, nb_iters))}: ascending counts of 1 or more "
            "are needed"
        )


class _Columns:
    """Computes a column of the map: one step size, all iteration counts, images and restarts."""

    def __init__(
        self,
        model: keras.Model,
        images: np.ndarray,
        labels: np.ndarray,
        grid: HeatMap,
        attack: Attack,
        seed: int,
        batch_size: int,
        jit_compile: bool | None,
    ) -> None:
        if jit_compile is None:
            jit_compile = bool(tf.config.list_physical_devices("GPU"))
        self._images, self._labels, self._counts = images, labels, len(grid.nb_iters)
        self._restarts, self._batch = attack.restarts, batch_size
        self._bounds = exact_bounds(images, attack.eps)
        self._program = _program(
            model, attack=attack, nb_iters=[int(n) for n in grid.nb_iters], seed=seed,
            signature=_signature(batch_size, images.shape[1:]), jit_compile=jit_compile,
        )  # fmt: skip

    def broken(self, eps_iter: float) -> np.ndarray:
        """Bool [counts, n] of one step size."""
        lower, upper = self._bounds
        broken = np.zeros((len(self._images), self._counts), bool)
        items = len(self._images) * self._restarts
        for start in range(0, items, self._batch):
            chosen = np.arange(start, start + self._batch) % items  # the last batch is filled up
            restart, image = np.divmod(chosen, len(self._images))
            verdicts = self._program(
                self._images[image], self._labels[image], image, restart.astype(np.int32),
                lower[image], upper[image], np.float32(eps_iter),
            )  # fmt: skip
            np.logical_or.at(broken, image, verdicts.numpy().T)
        return broken.T


def _signature(batch_size: int, image_shape: tuple[int, ...]) -> list[tf.TensorSpec]:
    like_images = tf.TensorSpec([batch_size, *image_shape], tf.float32)
    return [
        like_images,
        tf.TensorSpec([batch_size], tf.int32),
        tf.TensorSpec([batch_size], tf.int64),
        tf.TensorSpec([batch_size], tf.int32),
        *(like_images, like_images),
        tf.TensorSpec([], tf.float32),
    ]


def _program(
    model: keras.Model,
    *,
    attack: Attack,
    nb_iters: list[int],
    seed: int,
    signature: list[tf.TensorSpec],
    jit_compile: bool,
) -> Callable[..., tf.Tensor]:
    """A function of (images, labels, index, restart, lower, upper, eps_iter) -> broken.

    The step size is an argument, so that it is compiled once for the whole map. It returns bool
    [counts, batch].
    """
    crafter = model
    if attack.dtype != "float32":
        crafter = crafting_copy(model, attack.dtype)
        copy_weights(model, crafter)
    crafting_logits, logits = logits_function(crafter), logits_function(model)

    @tf.function(input_signature=signature, jit_compile=jit_compile)
    def program(
        images: tf.Tensor,
        labels: tf.Tensor,
        index: tf.Tensor,
        restart: tf.Tensor,
        lower: tf.Tensor,
        upper: tf.Tensor,
        eps_iter: tf.Tensor,
    ) -> tf.Tensor:
        item = {"image_index": index, "restart": restart, "seed": tf.constant(seed)}
        starts = random_starts(images, eps=attack.eps, **item) if attack.random_start else images
        targets = None
        if attack.target != "none":
            targets = choose_targets(
                attack.target, clean_logits=logits(images), labels=labels, **item
            )
        gradient = loss_and_gradient(crafting_logits, labels, loss=attack.loss, targets=targets)

        def step(i: tf.Tensor, points: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            moved = pgd_step(
                points, gradient(points)[2], images=images, eps=attack.eps, step_size=eps_iter
            )
            return i + 1, moved

        def verdict(points: tf.Tensor) -> tf.Tensor:
            outputs = logits(tf.clip_by_value(points, lower, upper))
            return tf.argmax(outputs, axis=1, output_type=tf.int32) != labels

        return _judged_at(nb_iters, starts, step, verdict)

    return program


def _judged_at(
    nb_iters: list[int],
    starts: tf.Tensor,
    step: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    verdict: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """Iterates `step` and collects the verdicts after each of the asked counts: [counts, batch]."""
    counts = tf.constant(nb_iters)
    verdicts = tf.TensorArray(tf.bool, size=len(nb_iters), element_shape=[starts.shape[0]])

    def to_next_count(
        j: tf.Tensor, i: tf.Tensor, points: tf.Tensor, verdicts: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.TensorArray]:
        i, points = tf.while_loop(
            lambda i, _: i < counts[j], step, (i, points), parallel_iterations=1
        )
        return j + 1, i, points, verdicts.write(j, verdict(points))

    *_, verdicts = tf.while_loop(
        lambda j, *_: j < len(nb_iters),
        to_next_count,
        (tf.constant(0), tf.constant(0), starts, verdicts),
        parallel_iterations=1,
    )
    return verdicts.stack()


def map_name(settings: dict[str, Any]) -> str:
    """File name of a map: what a reader looks for, and eight digits of all that matters."""
    # The model is left out: a result of another model at this place is to be noticed.
    identity = {key: value for key, value in settings.items() if key != "model"}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    eps = settings["attack"]["eps"] * 255
    grid = f"{len(settings['eps_iters'])}x{len(settings['nb_iters'])}"
    return f"eps{eps:g}_{grid}_images{settings['num_images']}_{digest}.npz"


def _settings(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    attack: Attack,
    eps_iters: Sequence[float],
    nb_iters: Sequence[int],
    seed: int,
    batch_size: int,
) -> dict[str, Any]:
    described = dataclasses.asdict(attack)
    del described["eps_iter"], described["nb_iter"]
    digest = hashlib.sha256(np.ascontiguousarray(images).tobytes())
    digest.update(labels.tobytes())
    return files.plain(
        {
            "attack": described,
            "eps_iters": [float(step) for step in eps_iters],
            "nb_iters": [int(count) for count in nb_iters],
            "seed": seed,
            "batch_size": batch_size,
            "num_images": len(labels),
            "images": digest.hexdigest()[:16],
            "model": runs.weights_hash(model),
        }
    )


def _on_disk(
    path: Path,
    fresh: HeatMap,
    go_on: Callable[[HeatMap, Callable[[HeatMap], None]], HeatMap],
    details: dict[str, Any],
) -> HeatMap:
    """Loads, goes on with, or begins the map at `path`; one process at a time works on it."""
    with files.exclusive(path):
        found = load_heat_map(path) if path.exists() else fresh
        if found.settings != fresh.settings:
            raise InputError(
                f"{path} is the result of another model (its weights differ): move it away to "
                "have it computed again"
            )
        if found.complete:
            return found
        session, started = {**runs.provenance(), **details}, time.monotonic()
        earlier = found.sessions

        def with_session(current: HeatMap) -> HeatMap:
            spent = {"seconds": round(time.monotonic() - started, 1)}
            return dataclasses.replace(current, sessions=[*earlier, {**session, **spent}])

        go_on(found, lambda current: _save(path, with_session(current)))
        return load_heat_map(path)


def _save(path: Path, found: HeatMap) -> None:
    arrays = {name: getattr(found, name) for name in _ARRAYS}
    arrays["columns"] = np.array(found.columns)
    files.write_arrays(path, arrays, settings=found.settings, sessions=found.sessions)


def load_heat_map(path: Path) -> HeatMap:
    """Reads a map; InputError when it is truncated or something else."""
    with files.reading_arrays(path, what="heat map") as file:
        return HeatMap(
            **{name: file[name] for name in _ARRAYS},
            columns=int(file["columns"]),
            settings=files.note(file, "settings"),
            sessions=files.note(file, "sessions", list[dict[str, Any]]),
        )
