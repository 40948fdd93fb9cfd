"""An audit says when it measured nothing, counts what it spent, and keeps other results whole."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import alp_repro
from alp_repro.attacks import PGD, QUERY_COST, Ensemble, Phase, RandomPoints, Square, strong_attack
from alp_repro.auditing import Audit, audit_run, plan
from alp_repro.auditing.audit_run import AuditRun
from alp_repro.auditing.folder import SavedResults, own_folder
from alp_repro.errors import InputError
from alp_repro.evaluation.record_file import load_record
from tests.auditing import fixtures

ROOT = Path(__file__).resolve().parents[2]
IMAGES, LABELS = fixtures.images_and_labels()
EPS = 0.3
SMALL = PGD(eps=EPS, eps_iter=EPS / 4, nb_iter=3)
ONE = (Phase(SMALL, "all", name="default"),)


def audited(model, eps: float = EPS, **settings) -> Audit:  # type: ignore[no-untyped-def]
    few = slice(0, 12)
    settings = {"phases": ONE, "attack": SMALL, "closer_look": False} | settings
    return alp_repro.audit(model, IMAGES[few], LABELS[few], eps, **settings)


# --- not measured


def rounded(images: tf.Tensor) -> tf.Tensor:
    return tf.round(images * 20) / 20


NOT_MEASURED = {
    "outputs of a batch": lambda: audited(fixtures.BatchStatistics()),
    "another pixel range": lambda: audited(fixtures.honest(scale=1 / 255)),
}


@pytest.mark.parametrize("name", NOT_MEASURED)
def test_what_was_not_measured_is_no_number(name: str, tmp_path: Path) -> None:
    found = NOT_MEASURED[name]()
    assert found.clean_accuracy > 0 or name == "another pixel range"
    assert found.worst_accuracy is None and found.not_measured
    assert "not measured" in found.verdict and "survives" not in found.verdict
    found.save(tmp_path / "audit.json")
    numbers = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert numbers["measured"] is False
    assert numbers["not_measured"] == found.not_measured
    assert numbers["worst_accuracy"] is None and numbers["worst_interval"] is None
    found.save(tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "not measured</title>" in page and "% survives" not in page
    found.save(tmp_path / "adversarial.npz")
    with np.load(tmp_path / "adversarial.npz") as file:
        assert np.isnan(file["robust_accuracy"])
        assert str(file["not_measured"]) == found.not_measured
    verified = subprocess.run(
        [sys.executable, "experiments/verify_adversarial.py", str(tmp_path / "adversarial.npz")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 3
    assert "not measured" in verified.stdout and "right" not in verified.stdout


def test_starts_without_a_gradient_measure_nothing() -> None:
    """Small steps that round away: only the random starts are tried, and no black box."""
    found = audited(
        fixtures.After(before=rounded),
        attack=PGD(eps=0.01, eps_iter=0.005, nb_iter=3),
        eps=0.01,
        phases=[Phase(PGD(eps=0.01, eps_iter=0.005, nb_iter=3), "all", name="default")],
    )
    assert [one.spent for one in found.attacks] == [0]
    assert "no gradient" in found.attacks[0].title and "pgd" in found.settings["attack"]
    assert found.worst_accuracy is None


def test_where_nothing_is_classified_correctly_nothing_survives() -> None:
    wrong = (LABELS + 1) % fixtures.CLASSES
    found = alp_repro.audit(fixtures.honest(), IMAGES, wrong, EPS)
    assert found.worst_accuracy == 0.0 and found.not_measured is None


# --- a refusal is no missing gradient


def two_classes() -> keras.Model:
    inner = fixtures.honest()
    return keras.Model(inner.inputs[0], keras.layers.Dense(2)(inner.outputs[0]))


def test_a_loss_for_more_classes_is_reported_as_such() -> None:
    model = two_classes()
    labels = np.asarray(model(IMAGES)).argmax(axis=1)
    attack = PGD(eps=EPS, eps_iter=EPS / 4, nb_iter=3, loss="dlr")
    found = alp_repro.audit(model, IMAGES, labels, EPS, attack=attack)
    assert found.worst_accuracy is None and found.attacks == ()
    assert "few_classes" in [one.key for one in found.raised]
    assert "no gradient" not in found.verdict
    assert "more classes" in found.verdict


def test_another_refusal_is_not_taken_for_a_missing_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise InputError("something else")

    monkeypatch.setattr(audit_run, "check_gradient", refuse)
    with pytest.raises(InputError, match="something else"):
        audited(fixtures.honest())


def test_square_under_audit_is_run_on_a_model_without_a_gradient() -> None:
    square = Square(eps=EPS, nb_iter=50)
    pgd = Phase(SMALL, "all", name="steps")
    found = audited(
        fixtures.After(before=rounded),
        attack=square,
        phases=[Phase(square, "all", name="default"), pgd],
    )
    assert [one.name for one in found.attacks] == ["default"]
    assert found.attacks[0].spent > 0 and found.worst_accuracy is not None


# --- phases of one's own


@pytest.mark.slow
def test_the_phases_of_an_ensemble_are_audited_one_by_one() -> None:
    """Without names of their own they have those of their attacks."""
    eps = 0.005
    parts = alp_repro.autoattack(eps, version="rand", classes=fixtures.CLASSES).phases
    mine = PGD(eps=eps, eps_iter=eps / 4, nb_iter=3)
    found = audited(fixtures.honest(), eps, attack=None, phases=[Phase(mine, "all"), *parts])
    assert [one.name for one in found.attacks] == ["pgd", "apgd", "apgd_2"]
    assert [one.attack for one in found.attacks] == [mine, *(part.attack for part in parts)]
    assert len({one.title for one in found.attacks}) == 3


@pytest.mark.slow
def test_an_ensemble_under_audit_has_a_closer_look_too() -> None:
    """But for the histograms: its runs are no restarts of one attack."""
    both = Ensemble("both", (Phase(SMALL), Phase(Square(eps=EPS, nb_iter=20))))
    found = audited(fixtures.honest(), attack=both, phases=[Phase(both, "all")], closer_look=True)
    assert found.restarts is None and found.surface is not None
    assert found.attacks[0].attack == both


# --- what an attack costs


@pytest.mark.slow
def test_an_attack_counts_what_its_record_counts(tmp_path: Path) -> None:
    """Steps alone leave out the queries of a search."""
    strong = strong_attack(EPS)
    found = audited(
        fixtures.honest(sharpness=3.0),
        eps=EPS,
        phases=[*ONE, Phase(strong, "all", name="strong")],
        folder=tmp_path,
    )
    records = [load_record(path) for path in tmp_path.glob("attacks/*.npz")]
    (record,) = (r for r in records if r.settings["attack"]["method"] == "strong")
    spent = int(record.gradients_spent(strong.restarts).sum())
    (one,) = (a for a in found.attacks if a.name == "strong")
    assert one.spent == spent


def test_costs_are_in_gradients() -> None:
    square = Square(eps=EPS, nb_iter=100, loss="cross_entropy")
    assert square.gradients == 100 * QUERY_COST
    blind = plan.without_gradient(plan.audit_phases(plan.default_attack(EPS), classes=4))
    assert [one.name for one in blind] == ["default", "square"]
    assert blind[0].attack == RandomPoints(eps=EPS)


def test_speed_comes_from_all_sessions_of_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that another process had nearly finished would make the machine look fast."""
    run = object.__new__(AuditRun)
    seconds = 100 + 2 * audit_run.COMPILATION_SECONDS
    run._learn_speed(1000, seconds, sessions=2)
    assert run._gradients_a_second == pytest.approx(10)


# --- one folder, one audit


@pytest.mark.slow
def test_another_audit_does_not_replace_what_lies_there(tmp_path: Path) -> None:
    audited(fixtures.honest(), folder=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    for change in (
        {"seed": 1},
        {"model": fixtures.honest(sharpness=5.0)},
        {"attack": PGD(eps=EPS, eps_iter=EPS / 3, nb_iter=3)},
    ):
        given = {"model": fixtures.honest(), "attack": SMALL, "folder": tmp_path} | change
        with pytest.raises(InputError, match="another folder") as error:
            audited(**given, phases=[Phase(given["attack"], "all", name="default")])
        assert f"another {next(iter(change))}" in str(error.value)
    with pytest.raises(InputError, match="another data"):
        alp_repro.audit(
            fixtures.honest(), 1 - IMAGES, LABELS, EPS, attack=SMALL, phases=ONE, folder=tmp_path
        )
    for path, content in before.items():
        assert path.read_bytes() == content
    assert audited(fixtures.honest(), folder=tmp_path, minutes=99).attacks


@pytest.mark.parametrize("name", ["audit.json", "audit.html", "adversarial.npz"])
def test_a_foreign_file_is_not_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=name):
        audited(fixtures.honest(), folder=tmp_path)
    assert (tmp_path / name).read_text(encoding="utf-8") == "mine"


@pytest.mark.slow
def test_a_folder_where_nothing_was_attacked_yet_is_free(tmp_path: Path) -> None:
    """As after a refusal for too little time; fewer images are other data."""
    with pytest.raises(InputError, match="too few"):
        audited(fixtures.honest(), folder=tmp_path, minutes=1e-6)
    found = alp_repro.audit(
        fixtures.honest(),
        IMAGES[:8],
        LABELS[:8],
        EPS,
        attack=SMALL,
        phases=ONE,
        closer_look=False,
        folder=tmp_path,
    )
    assert found.attacks


def test_a_saved_result_is_refused_where_it_is_not_as_it_was_written(tmp_path: Path) -> None:
    """A wrong digit would be taken for the right one."""
    this, another = (SavedResults(tmp_path, {"seed": seed}, None) for seed in (0, 1))
    result = {"forgotten": 0.25, "standing": 3, "broken": [True, None, "x"]}
    this.save("way", result)
    assert this.load("way") == result and another.load("way") is None
    (file,) = tmp_path.rglob("way.json")
    text = file.read_text(encoding="utf-8")
    for right, wrong in (("0.25", "0.35"), ("standing", "standinf"), ('"result"', '"resulu"')):
        file.write_text(text.replace(right, wrong), encoding="utf-8")
        with pytest.raises(InputError, match=r"way\.json is damaged"):
            this.load("way")


@pytest.mark.slow
def test_two_at_once(tmp_path: Path) -> None:
    with own_folder(tmp_path), pytest.raises(InputError, match="another process"):
        audited(fixtures.honest(), folder=tmp_path)
    assert audited(fixtures.honest(), folder=tmp_path).attacks


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ([], "expected one or more"),
        ([*ONE, *ONE], "a name of its own"),
        ([Phase(PGD(eps=1.0, eps_iter=0.1, nb_iter=1), "all")], "at most the audit's"),
        ([*ONE, Phase(SMALL, "closest", budget=9)], "on=closest, expected all or standing"),
        ([Phase(Square(eps=EPS), "all")], "not that of the first phase"),
    ],
)
def test_phases_that_cannot_be(given: list[Phase], what: str) -> None:
    with pytest.raises(InputError, match=what):
        audited(fixtures.honest(), phases=given)


_SCRIPT = """
import sys
from tests.auditing import test_gates as t
t.three_phases(sys.argv[1])
"""


def three_phases(folder: str | Path) -> Audit:
    attacks = [PGD(eps=EPS, eps_iter=EPS / 4, nb_iter=steps) for steps in (3, 4, 2000)]
    phases = [Phase(one, "all", name=f"s{one.nb_iter}") for one in attacks]
    return audited(fixtures.honest(sharpness=3.0), attack=attacks[0], phases=phases, folder=folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """The audit of three phases that nothing stops."""
    return three_phases(tmp_path_factory.mktemp("whole"))


def script(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.slow
def test_a_killed_audit_goes_on_with_the_same_result(tmp_path: Path, whole: Audit) -> None:
    """SIGKILL once the second phase is saved; what it left half-written is in nobody's way."""
    process = script(tmp_path / "killed")
    until = time.monotonic() + 120
    while not (tmp_path / "killed" / "stages" / "attack_s4.json").exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    found = three_phases(tmp_path / "killed")
    assert found.verdict == whole.verdict
    np.testing.assert_array_equal(found.broken_by, whole.broken_by)
    np.testing.assert_array_equal(found.adversarial, whole.adversarial)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_loses_nothing(
    tmp_path: Path, whole: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up in the second attack; what was done before is continued."""
    write_array, saved = np.lib.format.write_array, tmp_path / "stages" / "attack_s3.json"

    def full(*arguments: object, **options: object) -> None:
        if saved.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        write_array(*arguments, **options)

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(InputError, match=r"No space left on device.*free some space"):
        three_phases(tmp_path)
    monkeypatch.undo()
    before = saved.read_bytes()
    assert three_phases(tmp_path).verdict == whole.verdict
    assert saved.read_bytes() == before
