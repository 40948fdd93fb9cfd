"""Records: what is read back is validated whole; what a notebook shows of one."""

from __future__ import annotations

import builtins
import dataclasses
import json
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alp_repro.attacks import PGD
from alp_repro.errors import InputError
from alp_repro.evaluation.record import AttackRecord, new_record, wilson_interval
from alp_repro.evaluation.record_file import load_record, save_record
from alp_repro.evaluation.store import attack_settings

N, RESTARTS = 6, 3


def record(*, losses: bool = True, adversarial: bool = True) -> AttackRecord:
    """Six images, of which three restarts break two."""
    first = np.array([-1, 0, -1, 2, -1, -1], np.int32)
    broken = np.zeros((N, RESTARTS), bool)
    broken[1, [0, 2]] = broken[3, 2] = True
    fresh = new_record(
        labels=np.arange(N),
        indices=np.arange(N) + 100,
        clean_predictions=np.arange(N),
        settings={
            "attack": attack_settings(PGD(eps=0.1, eps_iter=0.02, nb_iter=4)),
            "num_images": N,
            "seed": 0,
            "batch_size": 4,
            "images": "ab",
            "model": "cd",
            "losses": losses,
            "adversarial": adversarial,
        },
        record_losses=losses,
        image_shape=(2, 2, 1) if adversarial else None,
    )
    changes: dict[str, Any] = {"first_break": first, "next_restart": np.full(N, 3, np.int32)}
    if losses:
        changes |= {"losses": np.ones((N, RESTARTS), np.float32), "broken": broken}
    if adversarial:
        changes["adversarial"] = np.where(first >= 0, 0.5, 0.0)[:, None, None, None] * np.ones(
            (N, 2, 2, 1), np.float32
        ).astype(np.float32)
        changes["adversarial"] = changes["adversarial"].astype(np.float32)
    return dataclasses.replace(fresh, **changes)


def changed(name: str, place: Any, value: Any) -> np.ndarray:
    array = np.array(getattr(record(), name))
    array[place] = value
    return array


def test_a_record_comes_back_whole(tmp_path: Path) -> None:
    for options in ({}, {"losses": False}, {"adversarial": False}):
        save_record(tmp_path / "a.npz", record(**options))
        found = load_record(tmp_path / "a.npz")
        for field in dataclasses.fields(AttackRecord):
            np.testing.assert_array_equal(
                getattr(found, field.name), getattr(record(**options), field.name)
            )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"first_break": np.full(3, -1, np.int32)}, r"first_break.*int32 \[[36]\].*int32 \[[36]\]"),
        ({"first_break": np.full(N, np.nan)}, r"first_break.*float64"),
        ({"labels": np.arange(N, dtype=np.float32)}, r"labels.*float32 \[6\]"),
        ({"labels": np.arange(N, dtype=np.int32) - 1}, "labels has a negative entry"),
        ({"labels": np.zeros((N, 1), np.int32)}, r"labels.*int32 \[n\]"),
        ({"clean_predictions": np.zeros(N, bool)}, "clean_predictions.*bool"),
        ({"indices": np.zeros(N, np.int32)}, r"indices.*int(32|64) \[6\].*int(32|64) \[6\]"),
        ({"next_restart": np.zeros(N, np.int32)}, "first_break has restarts"),
        ({"next_restart": np.full(N, -4, np.int32)}, "next_restart has a negative"),
        ({"first_break": changed("first_break", 0, -2)}, "first_break"),
        ({"first_break": changed("first_break", 0, 1)}, "first_break contradicts broken"),
        ({"losses": np.ones((N, 2), np.float32)}, r"broken.*bool \[6, [23]\].*bool \[6, [23]\]"),
        ({"losses": np.ones((N, 3))}, "losses.*float64"),
        ({"losses": changed("losses", (2, 1), np.nan)}, "losses .*not finite"),
        ({"losses": changed("losses", (2, 1), np.inf)}, "losses .*not finite"),
        ({"broken": None}, "broken"),
        ({"adversarial": changed("adversarial", 1, np.nan)}, r"outside \[0, 1\]"),
        ({"adversarial": changed("adversarial", 1, 1.5)}, r"outside \[0, 1\]"),
        ({"adversarial": changed("adversarial", 0, 0.5)}, "adversarial .*first_break"),
        ({"adversarial": np.zeros((N, 2, 2), np.float32)}, "adversarial.*float32"),
        ({"settings": {"num_images": N + 1}}, "settings .* different num_images"),
        ({"settings": {"losses": False}}, "settings .* different losses"),
        ({"settings": {"seed": "0"}}, "settings: seed: .*integer"),
        ({"settings": {"attack": {"eps": 0.1}}}, "eps_iter is missing"),
        ({"settings": {"attack": {"eps": 7, "eps_iter": 1, "nb_iter": 1}}}, r"attack eps 1785"),
        ({"settings": []}, "settings.*object"),
        ({"sessions": {}}, "sessions"),
        ({"nonfinite_gradients": np.full(N, -1, np.int32)}, "nonfinite_gradients has a negative"),
    ],
)
def test_parts_that_do_not_fit_are_one_line(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    path = tmp_path / "a.npz"
    save_record(path, dataclasses.replace(record(), **changes))
    with pytest.raises(InputError, match=told) as caught:
        load_record(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_foreign_zip_files_are_one_line(tmp_path: Path) -> None:
    """Compressed, encrypted, of an unknown method, and arrays of four terabytes."""
    path = tmp_path / "a.npz"
    save_record(path, record())
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}

    def refused(content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.npz is truncated") as caught:
            load_record(path)
        assert "\n" not in str(caught.value)

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, part in parts.items():
            file.writestr(name, part)
    refused(path.read_bytes())
    central = whole.rindex(b"PK\x01\x02")
    refused(whole[: central + 8] + b"\x01\x00" + whole[central + 10 :])  # "encrypted"
    refused(whole[: central + 10] + b"\x63\x00" + whole[central + 12 :])  # method 99
    for shape in ("(1099511627776,)", "(-6,)", "(6.0,)", "(" * 40 + ")" * 40):
        header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': {shape}, }}".encode()
        array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
        with zipfile.ZipFile(path, "w") as file:
            for name, part in {**parts, "labels.npy": array}.items():
                file.writestr(name, part)
        refused(path.read_bytes())


def test_damaged_bytes_never_end_in_anything_but_a_line(tmp_path: Path) -> None:
    """A flipped byte is refused in one line or changes nothing that is read."""
    damage(tmp_path, rounds=300, seed=0)


def damage(folder: Path, *, rounds: int, seed: int) -> int:
    """Damages a record in `rounds` ways; how often it was refused."""
    path, generator = folder / "a.npz", random.Random(seed)
    save_record(path, record())
    whole = path.read_bytes()
    refused = 0
    for _ in range(rounds):
        content = bytearray(whole)
        for _ in range(generator.choice([1, 1, 1, 2, 8])):
            content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        if generator.random() < 0.2:
            content = content[: generator.randrange(len(content))]
        path.write_bytes(content)
        try:
            found = load_record(path)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 600
            refused += 1
        else:
            np.testing.assert_array_equal(found.first_break, record().first_break)
            assert json.dumps(found.settings) == json.dumps(record().settings)
    return refused


def test_a_record_prints_itself_in_one_line() -> None:
    found = record()
    assert repr(found) == (
        "<AttackRecord pgd eps=25.5: 6 images, clean 100.0%, adversarial 66.7% [30.0%, 90.3%] "
        "after 3 restarts>"
    )
    assert found.accuracy_at(1) == 5 / 6
    counted = dataclasses.replace(found, nonfinite_gradients=np.ones(N, np.int32))
    assert "gradients not finite in 6 steps" in repr(counted)
    unfinished = dataclasses.replace(found, next_restart=np.zeros(N, np.int32), settings={})
    assert "unfinished (4 images" in repr(unfinished)


def test_images_that_were_wrong_before_the_attack_are_told() -> None:
    """The paper's count keeps them; what is right and stays right is counted apart."""
    clean = np.arange(N)
    clean[[0, 1]] = N - 1  # one stands, one is broken
    found = dataclasses.replace(record(), clean_predictions=clean.astype(np.int32))
    assert np.flatnonzero(found.wrong_yet_standing).tolist() == [0]
    assert found.robust_at(RESTARTS) == 4 and found.right_at(RESTARTS) == 3
    assert found.accuracy_at(RESTARTS) == 4 / 6
    assert "1 of the 4 unbroken images were misclassified" in repr(found)
    assert "misclassified" not in repr(record())


def test_a_record_draws_itself() -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    _, ax = plt.subplots()
    assert record().plot(ax) is ax
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(line.get_ydata(), [500 / 6, 500 / 6, 400 / 6])
    (band,) = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    ends = [100 * wilson_interval(4, 6)[0], 100 * wilson_interval(5, 6)[1]]
    np.testing.assert_allclose([heights.min(), heights.max()], ends)
    plt.close("all")
    fresh = dataclasses.replace(record(), next_restart=np.zeros(N, np.int32))
    with pytest.raises(ValueError, match="does not have 1 restarts"):
        fresh.plot()


def test_a_record_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_pandas(name: str, *args: Any, **options: Any) -> Any:
        if name == "pandas":
            raise ImportError
        return original(name, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", without_pandas)
        with pytest.raises(InputError, match="pip install pandas"):
            record().to_dataframe()
    pytest.importorskip("pandas")
    found = record().to_dataframe()
    assert list(found.index) == [100, 101, 102, 103, 104, 105]
    assert found.loc[103, "first_break"] == 2 and found["first_break"].isna().sum() == 4


@pytest.mark.parametrize("trials", [1, 7, 1000, 10_000])
def test_the_interval_is_wilsons(trials: int) -> None:
    z2 = 1.959963984540054**2
    for successes in {0, 1, trials // 3, trials // 2, trials - 1, trials}:
        p = successes / trials
        centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
        half = (p * (1 - p) / trials + z2 / (4 * trials**2)) ** 0.5 * z2**0.5 / (1 + z2 / trials)
        low, high = wilson_interval(successes, trials)
        np.testing.assert_allclose([low, high], [centre - half, centre + half], atol=1e-12)
        assert 0 <= low <= p <= high <= 1
