"""alp-audit and alp-verify as a user calls them, with a `.h5` file and an `.npz`."""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import keras
import numpy as np
import pytest
from absl import flags

import alp_repro.auditing
from alp_repro.auditing import image_table
from alp_repro.auditing.schema import audit_schema
from alp_repro.errors import InputError
from experiments import audit, verify_adversarial
from experiments.flags import classifier_flags
from tests import command_runner
from tests.auditing import fixtures

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a model with a softmax that takes 0-255, and uint8 images without channels for it."""
    folder = tmp_path_factory.mktemp("cli")
    inner = fixtures.honest(scale=1 / 255)
    keras.Model(inner.inputs[0], keras.layers.Softmax()(inner.outputs[0])).save(folder / "m.h5")
    images, labels = fixtures.images_and_labels()
    pixels = np.round(images[:16, ..., 0] * 255).astype(np.uint8)
    np.savez(folder / "d.npz", x=pixels, y=np.eye(4)[labels[:16]])
    np.savez(folder / "floats.npz", x=images, y=labels)
    return folder


def given(folder: Path) -> list[str]:
    return [f"--model={folder}/m.h5", f"--data={folder}/d.npz", "--pixel_range=0,255"]


@pytest.fixture(scope="module")
def audited(folder: Path) -> tuple[int, str]:
    """Exit code and output of a whole audit."""
    words = [
        *("experiments.audit", *given(folder)),
        "--eps=200",
        f"--out={folder}/out",
        "--attack=pgd,eps_iter=50,nb_iter=10",
        "--num_images=all",
        "--minutes=60",
        "--fail_below=99",
        "--save_adversarial",
        f"--junit={folder}/reports/audit.xml",
        f"--model_card={folder}/card.md",
    ]
    return command_runner.run_all([["audit", *words]], cwd=ROOT)["audit"]


@pytest.fixture(scope="module")
def ended(folder: Path) -> command_runner.Ends:
    """Exit code and output of commands that take less."""
    gate = ["experiments.audit", "--model=a:b", "--data=d"]
    commands = {
        "not measured": [
            "experiments.audit",
            "--model=tests.auditing.fixtures:BatchStatistics",
            f"--data={folder}/floats.npz",
            f"--out={folder}/not_measured",
            "--fail_below=0",
        ],
        **{f"below {bound}": [*gate, f"--fail_below={bound}"] for bound in ("nan", "-1", "101")},
        "evaluate": [
            "experiments.evaluate",
            *given(folder),
            "--attack=pgd,eps=200,eps_iter=50,nb_iter=10",
            "--num_images=16",
            f"--out={folder}/results",
        ],
        "without eps": ["experiments.evaluate", *given(folder), "--attack=pgd,eps_iter=50"],
    }
    return command_runner.run_all([[name, *words] for name, words in commands.items()], cwd=ROOT)


@pytest.mark.slow
def test_one_command_makes_page_and_verdict(folder: Path, audited: tuple[int, str]) -> None:
    code, output = audited
    assert code == audit.EXIT_BELOW, output
    assert "below --fail_below=99%" in output
    numbers = json.loads((folder / "out" / "audit.json").read_text(encoding="utf-8"))
    assert numbers["verdict"] in output
    assert numbers["clean_accuracy"] == 1.0
    assert numbers["eps"] == pytest.approx(200)
    assert numbers["attacks"][0]["settings"]["nb_iter"] == 10
    notes = " ".join(numbers["notes"])
    for what in ("softmax at the end removed", "0 to 255", "one-hot", "channel axis", "d.npz"):
        assert what in notes
    assert "m.h5" in (folder / "out" / "audit.html").read_text(encoding="utf-8")
    assert "Traceback" not in output


@pytest.mark.slow
def test_what_a_pipeline_reads(folder: Path, audited: tuple[int, str]) -> None:
    """The numbers have their schema; the failed bound is a failure in JUnit's XML."""
    assert audited[0] == audit.EXIT_BELOW
    numbers = json.loads((folder / "out" / "audit.json").read_text(encoding="utf-8"))
    jsonschema.validate(numbers, audit_schema())
    assert numbers["settings"]["data"].endswith("d.npz")
    suite = ElementTree.parse(folder / "reports" / "audit.xml").getroot()[0]
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert set(cases) == {"robust_accuracy", *(one["key"] for one in numbers["indicators"])}
    assert "below the bound of 99%" in cases["robust_accuracy"].find("failure").get("message")
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert numbers["verdict"] in card
    (row, *_) = list(
        csv.DictReader((folder / "out" / "images.csv").read_text("utf-8").splitlines())
    )
    assert tuple(row) == image_table.COLUMNS


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (["--junit={}/report.txt"], r"\.xml"),
        (["--junit={}/folder.xml"], r"\.xml"),
        (["--model_card={}/card"], r"\.md"),
        (["--model_card={}/README.md"], "left as it is"),
        (["--junit={}/README.md/report.xml"], "cannot write"),
    ],
)
def test_files_that_cannot_be_written_are_told_before_the_audit(
    given: list[str], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.xml").mkdir()
    (tmp_path / "README.md").write_text("My model", encoding="utf-8")
    own = values("--model=m", "--data=d", *(flag.format(tmp_path) for flag in given))
    monkeypatch.setattr(audit, "FLAGS", own)
    monkeypatch.setattr(alp_repro.auditing, "audit", lambda *_, **__: pytest.fail("audited"))
    with pytest.raises(InputError, match=what):
        audit.main([])
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "My model"


def test_help_tells_the_exit_codes() -> None:
    told = " ".join((audit.__doc__ or "").split())
    for code, meaning in (
        (0, "passed"),
        (1, "below"),
        (2, "bad input"),
        (3, "could not be judged"),
    ):
        assert f"{code}: {meaning}" in told


@dataclasses.dataclass(frozen=True)
class Unpictured:
    """An audit whose page cannot be made."""

    notes: tuple[str, ...] = ()
    settings: dict[str, str] = dataclasses.field(default_factory=dict)
    indicators = raised = left_out = ()
    verdict = "the verdict"
    worst_accuracy = 0.5

    def save(self, path: Path) -> None:
        if path.suffix == ".html":
            raise RuntimeError("latex could not be found")
        path.write_text("kept")


def test_verdict_and_numbers_are_there_when_the_page_cannot_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 8, 8), np.uint8), y=[0, 1])
    monkeypatch.setattr(alp_repro.auditing, "audit", lambda *_, **__: Unpictured())
    values = flags.FlagValues()
    audit.define_flags(values)
    given = ["--model=m", f"--data={tmp_path}/d.npz", f"--out={tmp_path}", "--save_adversarial"]
    values(["audit", *given])
    monkeypatch.setattr(audit, "FLAGS", values)
    with pytest.raises(RuntimeError, match="latex"):
        audit.main([])
    assert "the verdict" in capsys.readouterr().out
    assert (tmp_path / "audit.json").exists() and (tmp_path / "adversarial.npz").exists()


def test_the_surrogate_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 8, 8), np.uint8), y=[0, 1])
    given: dict[str, object] = {}

    def taken(*_: object, **options: object) -> Unpictured:
        given.update(options)
        raise InputError("taken")

    monkeypatch.setattr(alp_repro.auditing, "audit", taken)
    own = values("--model=m.keras", f"--data={tmp_path}/d.npz", "--surrogate=s.keras")
    monkeypatch.setattr(audit, "FLAGS", own)
    with pytest.raises(InputError, match="taken"):
        audit.main([])
    assert given["surrogate"] == "s.keras"


@pytest.mark.slow
@pytest.mark.usefixtures("audited")
def test_the_adversarial_images_are_verified_against_the_data(folder: Path) -> None:
    command = [sys.executable, str(ROOT / "experiments" / "verify_adversarial.py")]
    file = str(folder / "out" / "adversarial.npz")
    right = subprocess.run(
        [*command, file, f"--data={folder}/d.npz"], capture_output=True, text=True, check=False
    )
    assert (right.returncode, right.stderr) == (0, "")
    assert "valid: 16 images within eps 200 of 255" in right.stdout
    with np.load(file) as arrays:
        changed = {name: arrays[name] for name in arrays.files}
    changed["eps"] = np.float64(1 / 255)
    np.savez(folder / "wrong.npz", **changed)
    wrong = subprocess.run(
        [*command, str(folder / "wrong.npz")], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == verify_adversarial.EXIT_BAD
    assert "outside the ball" in wrong.stdout
    none = subprocess.run([*command, "none.npz"], capture_output=True, text=True, check=False)
    assert none.returncode == verify_adversarial.EXIT_BAD_INPUT
    assert none.stderr.count("\n") == 1


_MODEL = """
import sys
if "{where}" == "file":
    sys.exit(0)
def model(images):
    if "{where}" == "function":
        sys.exit(0)
    return images
def build():
    sys.exit(0)
"""


@pytest.mark.parametrize("where", ["file", "function", "build"])
def test_a_model_that_exits_is_an_error(where: str, tmp_path: Path) -> None:
    file = tmp_path / "mod.py"
    file.write_text(_MODEL.format(where=where), encoding="utf-8")
    images, labels = fixtures.images_and_labels()
    name = f"{file}:{'build' if where == 'build' else 'model'}"
    with pytest.raises(InputError, match=r"sys\.exit\(0\)"):
        alp_repro.audit(name, images, labels)


def test_the_gate_of_what_was_not_measured(ended: command_runner.Ends) -> None:
    code, output = ended["not measured"]
    assert code == audit.EXIT_NOT_JUDGED, output
    assert "could not be judged" in output
    for bound in ("nan", "-1", "101"):
        code, output = ended[f"below {bound}"]
        assert code == 2
        assert "fail_below" in output


def values(*arguments: str) -> flags.FlagValues:
    own = flags.FlagValues()
    audit.define_flags(own)
    own(["audit", *arguments])
    return own


def test_pixel_flags() -> None:
    assert classifier_flags.pixels(values()).is_identity
    assert classifier_flags.pixels(values("--pixel_range=-1,1")).scale == (2.0,)
    scale = classifier_flags.pixels(
        values("--pixel_mean=0.5,0.4,0.3", "--pixel_deviation=0.25,0.25,0.5")
    )
    assert scale.scale == (4.0, 4.0, 2.0)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--pixel_range=0"], "LOW,HIGH"),
        (["--pixel_range=a,b"], "--pixel_range=a,b: expected numbers"),
        (["--pixel_range=255,0"], "low < high"),
        (["--pixel_range=0,1", "--pixel_mean=0", "--pixel_deviation=1"], "not both"),
        (["--pixel_mean=0.5"], "the same number of each"),
        (["--pixel_mean=0.5", "--pixel_deviation=0"], "above 0"),
    ],
)
def test_pixel_flags_that_cannot_be(arguments: list[str], what: str) -> None:
    with pytest.raises(InputError, match=what):
        classifier_flags.pixels(values(*arguments))


def test_the_evaluation_under_audit() -> None:
    assert audit.evaluation_under_audit(None, 0.1) is None
    attack = audit.evaluation_under_audit("pgd,eps_iter=2,nb_iter=20", 8 / 255)
    assert attack is not None
    assert (attack.eps, attack.eps_iter) == pytest.approx((8 / 255, 2 / 255))
    with pytest.raises(InputError, match="unknown method"):
        audit.evaluation_under_audit("fgsm", 0.1)


def test_alp_evaluate_takes_any_classifier_too(folder: Path, ended: command_runner.Ends) -> None:
    code, output = ended["evaluate"]
    assert code == 0, output
    assert "clean 100.0%, adversarial accuracy " in output
    assert len(list((folder / "results").glob("*.npz"))) == 1
    code, output = ended["without eps"]
    assert code == 2
    assert "--model requires eps" in output


@pytest.mark.slow
@pytest.mark.usefixtures("audited")
def test_an_audit_begins_with_what_alp_evaluate_finds(
    folder: Path, ended: command_runner.Ends
) -> None:
    numbers = json.loads((folder / "out" / "audit.json").read_text(encoding="utf-8"))
    assert f"adversarial accuracy {numbers['default_accuracy']:.1%}" in ended["evaluate"][1]
