"""Heat maps of adversarial accuracy over step size × iterations, one run for each step size.

The k-th iterate of a constant-step PGD of n > k iterations is the last one of a run of k, so one
run with an outcome at each iteration count gives a whole column of the map. This module has the
grid and its file; the attacks are those of every evaluation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alp_repro import files
from alp_repro.attacks.base import MAX_STEPS, Attack
from alp_repro.attacks.batches import DEFAULT_BATCH, Execution, GridOutcome, WorkItems, work_items
from alp_repro.attacks.pgd import PGD
from alp_repro.attacks.programs import attack_program, grid_program
from alp_repro.errors import InputError
from alp_repro.evaluation.input_check import (
    check_is_keras,
    checked_batch_size,
    checked_folder,
    checked_images,
    checked_labels,
)
from alp_repro.evaluation.model_check import restoring_weights, validate_model
from alp_repro.evaluation.store import (
    ResultFormat,
    load_or_compute,
    result_file_name,
    subject_settings,
)
from alp_repro.validation.arguments import checked_details
from alp_repro.validation.plain_numbers import checked_seed, whole_number

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class HeatMap:
    """The images that each attack of a grid breaks; complete or unfinished.

    Attributes:
      broken: bool [steps, counts, n], some restart's iterate is misclassified.
      eps_iters: float64 [steps], step sizes on the [0, 1] scale.
      nb_iters: int64 [counts], iterations, ascending.
      columns: the number of step sizes, from the first, that are done.
      settings: the settings of this result: attack, seed, batch, hashes of model and images.
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
        """True if every step size is done."""
        return self.columns == len(self.eps_iters)

    @property
    def accuracy(self) -> np.ndarray:
        """float64 [steps, counts], adversarial accuracy; NaN where it is not known yet."""
        accuracy = 1.0 - self.broken.mean(axis=2)
        accuracy[self.columns :] = np.nan
        return accuracy


RunColumns = Callable[..., Iterable[np.ndarray]]  # as `run_columns_here`


def heat_map(  # noqa: PLR0913 - settings, each by its name
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    attack: PGD,
    eps_iters: Sequence[float],
    nb_iters: Sequence[int],
    seed: int = 0,
    batch_size: int = DEFAULT_BATCH,
    folder: str | Path | None = None,
    strategy: tf.distribute.Strategy | None = None,
    jit_compile: bool | None = None,
    report: Callable[[int, int], None] = lambda done, columns: None,
    run_columns: RunColumns | None = None,
    details: dict[str, Any] | None = None,
) -> HeatMap:
    """Attack with every step size and iteration count of a grid.

    Each cell equals `evaluation.evaluate` with that attack, the same seed and batch size.

    Args:
      model: float32 images in [0, 1] to logits.
      images: [n, height, width, channels], uint8 (0-255) or float in [0, 1].
      labels: int [n].
      attack: the grid replaces its step size and number of iterations. If the iterates of a run are
        not the results of shorter attacks (`iterates_are_results`), each count gets its own run.
      eps_iters: step sizes on the [0, 1] scale, each in (0, eps].
      nb_iters: iteration counts, ascending.
      seed: seeds the random starts and targets.
      batch_size: (image, restart) items in a batch.
      folder: where the result is stored after each column, under `map_file_name`. Columns that are
        there are not computed again.
      strategy, jit_compile: see `Execution`.
      report: called with (columns done, columns) after each column.
      run_columns: computes the columns; None: in this process, one after the other.
      details: further provenance for the result.

    Raises:
      InputError: images, labels or a model that `evaluate` refuses; an invalid grid or attack; a
        result in `folder` that is damaged, belongs to another model or is in use by another
        process.
    """
    images = checked_images(images)
    labels = checked_labels(labels, len(images))
    seed, batch_size = checked_seed(seed), checked_batch_size(batch_size)
    details = checked_details(details)
    folder = None if folder is None else checked_folder(folder)
    execution = Execution(batch_size=batch_size, strategy=strategy, jit_compile=jit_compile)
    _check(attack, eps_iters, nb_iters)
    check_is_keras(model)
    with restoring_weights(model, images.shape[1:]):
        verdict_model, _ = validate_model(model, images, labels, attack=attack)
        settings = {
            **_settings(attack, eps_iters, nb_iters, seed, batch_size),
            **subject_settings(model, images, labels, verdict_model=verdict_model),
        }
        fresh = HeatMap(
            broken=np.zeros((len(eps_iters), len(nb_iters), len(images)), bool),
            eps_iters=np.asarray(eps_iters, np.float64),
            nb_iters=np.asarray(nb_iters, np.int64),
            columns=0,
            settings=settings,
            sessions=[],
        )

        def continue_map(found: HeatMap, save: Callable[[HeatMap], None]) -> HeatMap:
            run = run_columns or run_columns_here
            columns = run(
                verdict_model,
                images,
                labels,
                found.eps_iters[found.columns :],
                attack=attack,
                counts=[int(count) for count in nb_iters],
                seed=seed,
                execution=execution,
            )
            for column in columns:
                broken = found.broken.copy()
                broken[found.columns] = column
                found = dataclasses.replace(found, broken=broken, columns=found.columns + 1)
                save(found)
                report(found.columns, len(eps_iters))
            return found

        if folder is None:
            return continue_map(fresh, lambda found: None)
        return load_or_compute(
            folder / map_file_name(settings),
            _MAPS,
            settings=settings,
            fresh=lambda: fresh,
            work=continue_map,
            details=details,
        )


def run_columns_here(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    eps_iters: np.ndarray,
    **setting: Any,
) -> Iterator[np.ndarray]:
    """Yield bool [counts, n] for each step size in turn; see `StepSize` for the settings."""
    return map(StepSize(model, images, labels, **setting), eps_iters)


def _check(attack: Attack, eps_iters: Sequence[float], nb_iters: Sequence[int]) -> None:
    if not isinstance(attack, PGD):
        raise InputError(f"heat map: expected the attack pgd, got {attack.name}")
    if len(eps_iters) == 0 or len(nb_iters) == 0:
        raise InputError("heat map: expected at least one step size and one iteration count")
    for eps_iter in eps_iters:
        dataclasses.replace(attack, eps_iter=eps_iter)  # raises if the step is out of range
        if eps_iter <= 0:
            raise InputError(f"heat map eps_iter {eps_iter * 255:g}: expected a step above 0")
    for count in nb_iters:
        whole_number(count, name="heat map iterations", low=1, high=MAX_STEPS)
    if list(nb_iters) != sorted(set(nb_iters)):
        raise InputError(
            f"heat map iterations {', '.join(map(str, nb_iters))}: expected ascending counts"
        )


class StepSize:
    """Attacks with one step size and all iteration counts, every restart on every image."""

    def __init__(
        self,
        model: keras.Model,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        attack: PGD,
        counts: Sequence[int],
        seed: int,
        execution: Execution,
    ) -> None:
        self._images, self._labels = images, labels
        self._attack, self._counts = attack, counts
        self._execution = execution.capped_at(len(images) * attack.restarts)
        self._options = {
            "model": model,
            "image_shape": images.shape[1:],
            "seed": seed,
            "execution": self._execution,
        }

    def __call__(self, eps_iter: float) -> np.ndarray:
        """Return bool [counts, n]: some restart's final image is misclassified."""
        attack_items = self._outcomes_at_counts(eps_iter)
        broken = np.zeros((len(self._images), len(self._counts)), bool)
        items = len(self._images) * self._attack.restarts
        for start in range(0, items, self._execution.items):
            # The last batch is padded with the first items.
            chosen = np.arange(start, start + self._execution.items) % items
            restart, image = np.divmod(chosen, len(self._images))
            given = work_items(self._images, self._labels, image, restart, eps=self._attack.eps)
            outcome = attack_items(given)
            for i in np.flatnonzero(~outcome.finite.all(axis=1)):
                raise InputError(
                    f"image {image[i]}, restart {restart[i]}: the adversarial image or its logits "
                    "are not finite: expected a model with finite logits for all images in [0, 1]"
                )
            np.logical_or.at(broken, image, outcome.broken)
        return broken.T

    def _outcomes_at_counts(self, eps_iter: float) -> Callable[[WorkItems], GridOutcome]:
        attack = dataclasses.replace(self._attack, eps_iter=eps_iter)
        if attack.iterates_are_results:
            program = grid_program(**self._options, attack=attack, counts=self._counts)
            return lambda items: program(items, eps_iter)
        programs = [
            attack_program(**self._options, attack=dataclasses.replace(attack, nb_iter=count))
            for count in self._counts
        ]

        def each(items: WorkItems) -> GridOutcome:
            found = [program(items) for program in programs]
            return GridOutcome(
                broken=np.stack([outcome.broken for outcome in found], axis=1),
                finite=np.stack([outcome.finite for outcome in found], axis=1),
            )

        return each


def map_file_name(settings: dict[str, Any]) -> str:
    """Return the file name of a map."""
    grid = f"{len(settings['eps_iters'])}x{len(settings['nb_iters'])}"
    eps = f"eps{settings['attack']['eps'] * 255:g}"
    return result_file_name([eps, grid, f"images{settings['num_images']}"], settings)


def _settings(
    attack: PGD,
    eps_iters: Sequence[float],
    nb_iters: Sequence[int],
    seed: int,
    batch_size: int,
) -> dict[str, Any]:
    described = attack.to_json()
    del described["eps_iter"], described["nb_iter"]
    return {
        "attack": described,
        "eps_iters": [float(step) for step in eps_iters],
        "nb_iters": [int(count) for count in nb_iters],
        "seed": seed,
        "batch_size": batch_size,
    }


def save_heat_map(path: Path, found: HeatMap) -> None:
    """Write a map as `.npz`, atomically."""
    arrays = {name: getattr(found, name) for name in ("broken", "eps_iters", "nb_iters")}
    arrays["columns"] = np.array(found.columns)
    files.write_arrays(path, arrays, settings=found.settings, sessions=found.sessions)


def load_heat_map(path: Path) -> HeatMap:
    """Read a map.

    Raises:
      InputError: the file is truncated or not a heat map, or its parts contradict each other.
    """
    with files.open_arrays(path, what="heat map") as file:
        broken = files.read_array(file, "broken", bool, (None, None, None))
        steps, counts, images = broken.shape
        found = HeatMap(
            broken=broken,
            eps_iters=files.read_array(file, "eps_iters", np.float64, (steps,)),
            nb_iters=files.read_array(file, "nb_iters", np.int64, (counts,)),
            columns=int(files.read_array(file, "columns", np.int64, ())),
            settings=files.read_note(file, "settings"),
            sessions=files.read_note(file, "sessions", list[dict[str, Any]]),
        )
        if not (np.isfinite(found.eps_iters).all() and np.all(found.eps_iters > 0)):
            raise InputError("eps_iters: step sizes must be positive and finite")
        if np.any(np.diff(found.nb_iters, prepend=0) < 1):
            raise InputError("nb_iters: iteration counts must be positive and ascending")
        if not 0 <= found.columns <= steps or broken[found.columns :].any():
            raise InputError(
                f"columns says that {found.columns} of {steps} step sizes are done, and broken "
                "contradicts it"
            )
        grid = {"eps_iters": found.eps_iters.tolist(), "nb_iters": found.nb_iters.tolist()}
        for name, value in {**grid, "num_images": images}.items():
            if found.settings.get(name) != value:
                raise InputError(f"its settings and its arrays have different {name}")
        return found


_MAPS = ResultFormat(load_heat_map, save_heat_map, lambda found: found.complete)
