"""alp-verify: claims are checked, and what cannot be checked is one line and exit code 2."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from experiments import verify_adversarial

RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
UNIT = BYTES.astype(np.float32) / np.float32(255)
LABELS = np.arange(20) // 5
PAIRS = [
    ("x_test", "y_test"),
    ("test_images", "test_labels"),
    ("X_test", "y_test"),
    ("x", "y"),
    ("X", "Y"),
    ("images", "labels"),
    ("image", "label"),
    ("data", "targets"),
    ("data", "labels"),
    ("arr_0", "arr_1"),
]


def claims(folder: Path, **changed: Any) -> Path:
    """A right adversarial.npz of UNIT, but for what is changed."""
    arrays = {
        "images": UNIT,
        "adversarial": UNIT,
        "labels": LABELS,
        "clean_predictions": LABELS,
        "adversarial_predictions": LABELS,
        "eps": np.float64(0.03),
        "robust_accuracy": np.float64(1),
    }
    np.savez(folder / "adversarial.npz", **(arrays | changed))
    return folder / "adversarial.npz"


def verified(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: Any
) -> tuple[int, str]:
    """The exit code and what was printed, errors too."""
    monkeypatch.setattr(sys, "argv", ["alp-verify", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        verify_adversarial.cli()
    told = capsys.readouterr()
    return int(end.value.code or 0), told.out + told.err


@pytest.mark.parametrize(
    ("changed", "code", "what"),
    [
        ({}, 0, "valid: 20 images"),
        ({"robust_accuracy": np.float64("nan")}, 1, "claimed"),
        ({"robust_accuracy": np.float64("inf")}, 1, "claimed"),
        ({"images": np.where(UNIT > 0.9, np.nan, UNIT)}, 1, r"of images .*outside \[0, 1\]"),
        ({"adversarial": UNIT * np.nan}, 1, "outside the ball: .*inf"),
        ({"adversarial": UNIT + np.inf, "images": UNIT + np.inf}, 1, "outside the ball"),
        ({"eps": np.float64("inf")}, 2, r"\(0, 1\]"),
        ({"eps": np.float64("nan")}, 2, r"\(0, 1\]"),
        ({"eps": np.float64(8)}, 2, r"\(0, 1\]"),
        ({"eps": np.full(20, 0.03)}, 2, "expected one number"),
        ({"eps": np.array("0.03")}, 2, "expected one number"),
        ({"robust_accuracy": np.ones(1)}, 2, "expected one number"),
        ({"images": BYTES, "adversarial": BYTES}, 2, "floats in"),
        ({"adversarial": UNIT[:4]}, 2, "the same shape"),
        ({"images": np.float32(1), "adversarial": np.float32(1)}, 2, "n > 0"),
        ({"labels": LABELS.astype(float)}, 2, "20 integers"),
        ({"labels": np.array([None] * 20, object)}, 2, "could not be read"),
    ],
)
def test_every_claim_is_checked(changed, code, what, tmp_path, monkeypatch, capsys) -> None:
    found, told = verified(monkeypatch, capsys, claims(tmp_path, **changed))
    assert found == code, told
    assert re.search(what, told)
    assert told.count("\n") == (1 if code != 1 else told.count("invalid: "))


@pytest.mark.parametrize("kind", ["folder", "nothing", "text", "npy", "cut", "other", "reason"])
def test_a_file_that_is_none_is_one_line(kind, tmp_path, monkeypatch, capsys) -> None:
    path = tmp_path / "bad"
    whole = claims(tmp_path).read_bytes()
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("no zip", encoding="utf-8")
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, UNIT)
    elif kind == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "other":
        with path.open("wb") as file:
            np.savez(file, x=UNIT)
    elif kind == "reason":  # a wrong bit in what nothing but the verdict asks for
        whole = claims(tmp_path, not_measured=np.array("no time")).read_bytes()
        path.write_bytes(
            whole.replace("no time".encode("utf-32-le"), "no tame".encode("utf-32-le"))
        )
    code, told = verified(monkeypatch, capsys, path)
    assert code == verify_adversarial.EXIT_BAD_INPUT
    assert told.count("\n") == 1
    assert "expected an .npz file of alp-audit" in told


@pytest.mark.parametrize(
    "arrays",
    [
        *({x: BYTES, y: LABELS} for x, y in PAIRS),
        {"x_test": BYTES, "y_test": LABELS, "x": BYTES[::-1], "y": LABELS[::-1]},
        {"test_images": BYTES, "test_labels": LABELS, "images": UNIT / 2, "labels": LABELS},
        {"x": UNIT.astype(np.float64) + 1e-9, "y": np.eye(4)[LABELS]},
        {"x": BYTES[..., 0].astype(np.int64), "y": LABELS.astype(float)},
        {"x": np.concatenate([BYTES, 255 - BYTES]), "y": np.concatenate([LABELS, LABELS])},
    ],
    ids=lambda arrays: "-".join(arrays),
)
def test_data_is_read_as_the_audit_reads_it(arrays, tmp_path, monkeypatch, capsys) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    data = f"--data={tmp_path / 'd.npz'}"
    code, told = verified(monkeypatch, capsys, claims(tmp_path), data)
    assert code == 0, told
    other = claims(tmp_path, images=UNIT[::-1], adversarial=UNIT[::-1])
    code, told = verified(monkeypatch, capsys, other, data)
    assert code == verify_adversarial.EXIT_BAD
    assert "differ from those of the data" in told


def test_the_images_that_the_audit_draws_are_those_of_the_data(
    tmp_path, monkeypatch, capsys
) -> None:
    np.savez(tmp_path / "d.npz", x=BYTES, y=LABELS)
    drawn = [0, 5, 10, 15]  # of each class the first
    part = {"images": UNIT, "adversarial": UNIT, "labels": LABELS}
    part |= {"clean_predictions": LABELS, "adversarial_predictions": LABELS}
    data = f"--data={tmp_path / 'd.npz'}"
    for places, right in ((drawn, 0), ([0, 1, 2, 3], 0), ([1, 6, 11, 16], 1)):
        file = claims(tmp_path, **{name: array[places] for name, array in part.items()})
        assert verified(monkeypatch, capsys, file, data)[0] == right


def test_data_may_be_a_folder(tmp_path, monkeypatch, capsys) -> None:
    for name, place in (("cat", 0), ("dog", 5)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        png = tf.io.encode_png(BYTES[place]).numpy()
        (tmp_path / "photos" / name / "a.png").write_bytes(png)
    labels = np.array([1, 0])
    some = {name: UNIT[[0, 5]] for name in ("images", "adversarial")}
    some |= dict.fromkeys(("labels", "clean_predictions", "adversarial_predictions"), labels)
    file, data = claims(tmp_path, **some), f"--data={tmp_path / 'photos'}"
    assert verified(monkeypatch, capsys, file, data)[0] == 1
    assert verified(monkeypatch, capsys, file, data, "--class_names=dog,cat")[0] == 0


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"x": np.where(UNIT > 0.9, np.nan, 0), "y": LABELS}, "finite pixels"),
        ({"x": BYTES, "y": np.array([None] * 20, object)}, "cannot be read"),
        ({"a": BYTES}, "x_test and y_test"),
        ({"x": UNIT * 2, "y": LABELS}, "largest possible value"),
        ({"x": (UNIT > 0.5).astype(np.int64), "y": LABELS}, "floats or booleans"),
    ],
)
def test_bad_data_is_one_line(arrays, what, tmp_path, monkeypatch, capsys) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    code, told = verified(monkeypatch, capsys, claims(tmp_path), f"--data={tmp_path / 'd.npz'}")
    assert code == verify_adversarial.EXIT_BAD_INPUT
    assert what in told
    assert told.count("\n") == 1


def test_a_file_alone_needs_nothing_of_this_project(tmp_path) -> None:
    script = Path(verify_adversarial.__file__).read_bytes()
    (tmp_path / "check.py").write_bytes(script)
    blocked = "import sys; sys.modules.update(alp_repro=None, tensorflow=None)\n"
    (tmp_path / "sitecustomize.py").write_text(blocked, encoding="utf-8")
    process = subprocess.run(
        [sys.executable, str(tmp_path / "check.py"), str(claims(tmp_path))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert (process.returncode, process.stderr) == (0, "")
