"""Results on disk: kept, extended, never overwritten, never torn; and bad input at the door."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import keras
import numpy as np
import pytest

from alp_repro import evaluation, files, runs
from alp_repro.attacks import APGD, PGD, Attack, WorkItems, programs
from alp_repro.errors import InputError
from alp_repro.evaluation import AttackRecord, evaluate, load_record, restarts
from tests import evaluation_worker
from tests.small_model import CLASSES, IMAGE_SHAPE, small_images, small_model

ATTACK = PGD(eps=0.05, eps_iter=0.02, nb_iter=2, restarts=4)
ARRAYS = (
    "labels",
    "indices",
    "clean_predictions",
    "first_break",
    "next_restart",
    "losses",
    "broken",
    "adversarial",
)


def attack(**changes: Any) -> Attack:
    return dataclasses.replace(ATTACK, **changes)


@pytest.fixture
def evaluated(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, tmp_path: Path
) -> Callable[..., AttackRecord]:
    """Evaluates the small model into a folder, with what a test changes."""

    def run(**changes: Any) -> AttackRecord:
        options = {"attack": ATTACK, "batch_size": 16, "folder": tmp_path, **changes}
        return evaluate(
            options.pop("model", model),
            options.pop("images", images),
            options.pop("labels", labels),
            **options,
        )

    return run


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets one entry for every batch that an attack program runs."""
    seen: list[int] = []
    original = programs.attack_program

    def counting(*args: Any, **options: Any) -> Any:
        program = original(*args, **options)

        def run(items: WorkItems) -> Any:
            seen.append(len(items.images))
            return program(items)

        return run

    monkeypatch.setattr(programs, "attack_program", counting)
    return seen


def results(folder: Path) -> list[Path]:
    """Results in a folder, and nothing else may be there but locks."""
    found = sorted(folder.iterdir())
    assert all(file.suffix == ".npz" or file.suffix == ".lock" for file in found)
    assert not any(file.suffix == ".npz" and file.name.startswith(".") for file in found)
    return [file for file in found if file.suffix == ".npz"]


def assert_same(found: AttackRecord, expected: AttackRecord) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


# Results


def model_ending_in(*layers: keras.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(IMAGE_SHAPE), *layers])


def test_a_result_says_what_happened(
    evaluated: Callable[..., AttackRecord],
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
) -> None:
    record = evaluated(save_adversarial=True, indices=np.arange(40) + 100, details={"scale": "x"})
    np.testing.assert_array_equal(record.labels, labels)
    np.testing.assert_array_equal(record.indices, np.arange(40) + 100)
    np.testing.assert_array_equal(record.clean_predictions, model(images).numpy().argmax(axis=1))
    assert record.clean_accuracy == 37 / 40
    assert record.accuracy_at(4) <= record.accuracy_at(1) <= 1
    broken = ~record.standing
    predicted = model(record.adversarial[broken]).numpy().argmax(axis=1)
    assert broken.any() and np.all(predicted != labels[broken])
    assert np.all(record.adversarial[record.standing] == 0)
    distance = np.abs(record.adversarial[broken].astype(np.float64) - images[broken])
    assert distance.max() <= 0.05
    assert record.settings["attack"]["eps"] == 0.05
    (session,) = record.sessions
    assert session["scale"] == "x" and session["restarts"] == 4
    assert {"date", "revision", "versions", "machine", "seconds"} <= set(session)


def test_without_a_folder_nothing_is_written(
    evaluated: Callable[..., AttackRecord], tmp_path: Path
) -> None:
    expected = evaluated()
    count = len(list(tmp_path.iterdir()))
    np.testing.assert_array_equal(evaluated(folder=None).first_break, expected.first_break)
    assert len(list(tmp_path.iterdir())) == count


def test_a_result_that_is_there_is_not_computed_again(
    evaluated: Callable[..., AttackRecord], tmp_path: Path, batches: list[int]
) -> None:
    first = evaluated()
    (file,) = results(tmp_path)
    before, computed = file.read_bytes(), len(batches)
    assert computed > 0
    again = evaluated()
    assert len(batches) == computed
    assert file.read_bytes() == before
    assert_same(again, first)
    fewer = evaluated(attack=attack(restarts=2))
    assert len(batches) == computed and fewer.accuracy_at(2) == first.accuracy_at(2)


def test_a_result_is_extended_with_more_restarts(
    evaluated: Callable[..., AttackRecord], tmp_path: Path, batches: list[int]
) -> None:
    evaluated()
    computed = len(batches)
    more = evaluated(attack=attack(restarts=9))
    (file,) = results(tmp_path)
    assert len(load_record(file).sessions) == 2
    extension = len(batches) - computed
    at_once = evaluated(attack=attack(restarts=9), folder=tmp_path / "other")
    assert extension < len(batches) - computed - extension
    np.testing.assert_array_equal(more.first_break, at_once.first_break)
    np.testing.assert_array_equal(more.restarts_spent(9), at_once.restarts_spent(9))


@pytest.mark.parametrize(
    "changes",
    [
        {"attack": attack(eps=0.06)},
        {"attack": attack(eps_iter=0.03)},
        {"attack": attack(nb_iter=3)},
        {"attack": attack(loss="margin")},
        {"attack": attack(step_schedule="linear")},
        {"attack": attack(success="any")},
        {"attack": attack(target="random")},
        {"attack": attack(random_start=False)},
        {"attack": attack(dtype="bfloat16")},
        {"attack": APGD(eps=ATTACK.eps, nb_iter=ATTACK.nb_iter, restarts=ATTACK.restarts)},
        {"seed": 1},
        {"batch_size": 20},
        {"record_losses": True},
        {"save_adversarial": True},
        {"images": 0.5},
        {"labels": 1},
    ],
    ids=str,
)
def test_another_setting_never_overwrites(
    evaluated: Callable[..., AttackRecord],
    images: np.ndarray,
    labels: np.ndarray,
    tmp_path: Path,
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(programs, "attack_program", evaluation_worker.stand_in_program)
    changes = dict(changes)
    if "images" in changes:
        changes["images"] = images * changes["images"]
    if "labels" in changes:
        changes["labels"] = (labels + changes["labels"]) % CLASSES
    evaluated()
    (file,) = results(tmp_path)
    before = file.read_bytes()
    evaluated(**changes)
    assert len(results(tmp_path)) == 2
    assert file.read_bytes() == before


def test_a_name_tells_the_attack(evaluated: Callable[..., AttackRecord], tmp_path: Path) -> None:
    settings = attack(eps=76.5 / 255, eps_iter=2.55 / 255, step_schedule="linear", loss="margin")
    evaluated(attack=settings)
    (file,) = results(tmp_path)
    assert file.name.startswith("pgd_eps76.5_step2.55_n2_margin_linear_images40_")


def test_the_result_of_another_model_is_refused_and_left_alone(
    evaluated: Callable[..., AttackRecord], tmp_path: Path
) -> None:
    evaluated()
    (file,) = results(tmp_path)
    before = file.read_bytes()
    other = small_model()
    other.weights[0].assign(other.weights[0] + 1e-6)
    with pytest.raises(InputError, match="another model") as caught:
        evaluated(model=other)
    assert file.name in str(caught.value) and "\n" not in str(caught.value)
    assert file.read_bytes() == before and results(tmp_path) == [file]


@pytest.mark.parametrize("change", ["activation", "rescaling"])
def test_the_result_of_another_function_of_the_same_weights_is_refused(
    tmp_path: Path, change: str
) -> None:
    def model(activation: str, factor: float) -> keras.Model:
        found = model_ending_in(
            keras.layers.Rescaling(factor),
            keras.layers.Flatten(),
            keras.layers.Dense(9, activation=activation),
            keras.layers.Dense(3),
        )
        generator = np.random.default_rng(1)
        found.set_weights([generator.normal(0, 0.3, w.shape) for w in found.get_weights()])
        return found

    images, labels = small_images(6), np.zeros(6, int)
    evaluate(model("tanh", 1.0), images, labels, attack=ATTACK, batch_size=6, folder=tmp_path)
    other = model("relu", 1.0) if change == "activation" else model("tanh", 2.0)
    (file,) = results(tmp_path)
    before = file.read_bytes()
    with pytest.raises(InputError, match="another model") as caught:
        evaluate(other, images, labels, attack=ATTACK, batch_size=6, folder=tmp_path)
    assert file.name in str(caught.value) and "\n" not in str(caught.value)
    assert file.read_bytes() == before


def test_a_result_without_a_function_is_found_and_gets_one_when_it_is_gone_on_with(
    evaluated: Callable[..., AttackRecord], tmp_path: Path, batches: list[int]
) -> None:
    first = evaluated(attack=attack(restarts=1))
    (file,) = results(tmp_path)
    settings = {key: value for key, value in first.settings.items() if key != "function"}
    evaluation.save_record(file, dataclasses.replace(first, settings=settings))
    computed = len(batches)
    evaluated(attack=attack(restarts=1))
    assert len(batches) == computed
    found = evaluated()
    assert found.settings == first.settings
    assert_same(found, evaluated(folder=None))


def test_the_result_of_another_attack_under_this_name_is_refused(
    evaluated: Callable[..., AttackRecord], tmp_path: Path
) -> None:
    evaluated()
    (file,) = results(tmp_path)
    evaluated(attack=attack(eps=0.06), folder=tmp_path / "other")
    (wrong,) = results(tmp_path / "other")
    wrong.replace(file)
    before = file.read_bytes()
    with pytest.raises(InputError, match="another attack"):
        evaluated()
    assert file.read_bytes() == before


def test_a_truncated_result_is_refused_and_left_alone(
    evaluated: Callable[..., AttackRecord], tmp_path: Path
) -> None:
    evaluated()
    (file,) = results(tmp_path)
    half = file.read_bytes()[: file.stat().st_size // 2]
    file.write_bytes(half)
    with pytest.raises(InputError, match="truncated") as caught:
        evaluated()
    assert file.name in str(caught.value) and "\n" not in str(caught.value)
    assert file.read_bytes() == half and results(tmp_path) == [file]


def test_a_second_process_is_refused_while_a_first_works(
    evaluated: Callable[..., AttackRecord], tmp_path: Path, batches: list[int]
) -> None:
    evaluated(attack=attack(restarts=1))
    (file,) = results(tmp_path)
    before, computed = file.read_bytes(), len(batches)
    (lock,) = tmp_path.glob(".*.lock")
    started = time.monotonic()
    with (
        filelock.FileLock(lock),
        pytest.raises(InputError, match="another process is working on") as caught,
    ):
        evaluated()
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 10  # it says so at once
    assert file.read_bytes() == before and len(batches) == computed
    evaluated()
    assert len(batches) > computed


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a file is written, then the disk is full."""

    def write_array(file: Any, array: np.ndarray, **options: Any) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np.lib.format, "write_array", write_array)


def test_a_full_disk_leaves_the_old_result(
    evaluated: Callable[..., AttackRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(attack=attack(restarts=2))
    (file,) = results(tmp_path)
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        full_disk(patch)
        with pytest.raises(InputError, match="No space left on device") as caught:
            evaluated()
        assert file.name in str(caught.value) and "\n" not in str(caught.value)
    assert file.read_bytes() == before
    assert results(tmp_path) == [file]  # no half file stays
    np.testing.assert_array_equal(evaluated().first_break, evaluated(folder=None).first_break)


def test_a_folder_that_cannot_be_made_is_refused(
    evaluated: Callable[..., AttackRecord], tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(InputError, match="cannot write to") as caught:
        evaluated(folder=blocked / "attacks")
    assert "\n" not in str(caught.value)


def test_an_interrupted_evaluation_goes_on(
    evaluated: Callable[..., AttackRecord], tmp_path: Path, batches: list[int]
) -> None:
    expected = evaluated(record_losses=True, folder=tmp_path / "undisturbed")
    whole = len(batches)

    def interrupt(progress: restarts.Progress) -> None:
        if len(batches) == whole + 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluated(record_losses=True, report=interrupt)
    (file,) = tmp_path.glob("*.npz")
    assert load_record(file).next_restart.sum() == 3 * 16
    found = evaluated(record_losses=True)
    assert len(batches) == 2 * whole  # nothing was done twice
    assert_same(found, expected)
    assert len(found.sessions) == 2


def test_what_a_killed_process_left_is_removed_and_never_read(
    evaluated: Callable[..., AttackRecord], model: keras.Model, tmp_path: Path
) -> None:
    run = runs.RunDir(tmp_path)
    runs.save_model(run.model, model)
    files.write_json(run.recipe, {"weights": runs.weights_hash(model)})
    evaluated(folder=run.attacks, attack=attack(restarts=1))
    (file,) = results(run.attacks)
    torn = file.with_name(f".4321.{file.name}")
    torn.write_bytes(file.read_bytes()[:100])
    assert evaluation.find_record(run, attack=ATTACK, num_images=40) is not None
    evaluated(folder=run.attacks)
    assert results(run.attacks) == [file]


def test_find_record_finds_this_models_result_of_this_attack(
    evaluated: Callable[..., AttackRecord], model: keras.Model, tmp_path: Path
) -> None:
    run = runs.RunDir(tmp_path)

    def find(**changes: Any) -> AttackRecord | None:
        return evaluation.find_record(run, **{"attack": ATTACK, "num_images": 40, **changes})

    assert find() is None
    runs.save_model(run.model, model)
    files.write_json(run.recipe, {"weights": runs.weights_hash(model)})
    assert find() is None
    expected = evaluated(folder=run.attacks)
    assert_same(find(), expected)
    assert_same(find(attack=attack(restarts=1000)), expected)
    for changes in (
        {"attack": attack(eps=0.06)},
        {"num_images": 39},
        {"seed": 1},
        {"record_losses": True},
    ):
        assert find(**changes) is None
    files.write_json(run.recipe, {"weights": "another"})
    assert find() is None


# Killed


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    """Forks from a server that has imported TensorFlow but not used it: a start takes no time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.evaluation_worker"])
    return context


def start(
    processes: Any, target: Callable[..., Any], folder: Path, pause: float
) -> tuple[Any, Any]:
    """A worker and the reports that it sends, once the first has come."""
    reports, sender = processes.Pipe(duplex=False)
    worker = processes.Process(target=target, args=(str(folder), sender, pause))
    worker.start()
    sender.close()
    return worker, reports


def drain(reports: Any) -> Iterator[int]:
    try:
        while True:
            yield reports.recv()
    except EOFError:
        return


@pytest.mark.slow
def test_kill_9_at_random_moments_twenty_times_changes_nothing(
    processes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng()
    done = 0
    for kill in range(20):
        worker, reports = start(processes, evaluation_worker.work, tmp_path, pause=0.01)
        if kill % 5:  # every fifth is killed at its start, the others at work
            reports.recv()
        time.sleep(generator.uniform(0, 0.1))
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        assert worker.exitcode == -signal.SIGKILL  # it was not done
        reported = len(list(drain(reports))) + bool(kill % 5)
        found = list(tmp_path.glob("[!.]*.npz"))
        assert len(found) <= 1
        now = int(load_record(found[0]).next_restart.sum()) if found else 0
        # A batch is reported before it is saved: at most the last one is lost.
        assert now >= done + (reported - 1) * evaluation_worker.BATCH
        done = max(done, now)
    assert 0 < done < evaluation_worker.IMAGES * evaluation_worker.ATTACK.restarts

    monkeypatch.setattr(programs, "attack_program", programs.attack_program)  # put back afterwards
    monkeypatch.setattr(restarts, "SAVE_SECONDS", restarts.SAVE_SECONDS)
    final = evaluation_worker.work(str(tmp_path))
    assert len(results(tmp_path)) == 1
    undisturbed = evaluation_worker.work(str(tmp_path / "undisturbed"))
    assert_same(final, undisturbed)


@pytest.mark.slow
def test_sigterm_saves_and_ends_cleanly(processes: Any, tmp_path: Path) -> None:
    done = 0
    for _ in range(2):
        worker, reports = start(processes, evaluation_worker.work_as_a_binary, tmp_path, pause=0.1)
        reports.recv()
        with pytest.raises(InputError, match="another process is working on"):
            evaluation_worker.real_work(str(tmp_path))
        os.kill(worker.pid, signal.SIGTERM)
        worker.join()
        assert worker.exitcode == 130
        (file,) = results(tmp_path)
        now = int(load_record(file).next_restart.sum())
        assert now >= done + 16 * (1 + len(list(drain(reports))))  # every batch that it reported
        done = now
    final = evaluation_worker.real_work(str(tmp_path))
    assert len(final.sessions) == 3
    assert_same(final, evaluation_worker.real_work(str(tmp_path / "undisturbed")))


def test_float64_images_and_other_integers_are_taken(
    evaluated: Callable[..., AttackRecord],
    images: np.ndarray,
    labels: np.ndarray,
    batches: list[int],
) -> None:
    expected = evaluated()
    computed = len(batches)
    found = evaluated(images=images.astype(np.float64), labels=labels.astype(np.uint8))
    assert_same(found, expected)
    assert len(batches) == computed  # the very same result
