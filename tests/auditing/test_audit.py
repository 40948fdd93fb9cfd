"""The audit as a whole: complete, saved phase by phase, as a page, in numbers and in words."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import keras
import numpy as np
import pytest

import alp_repro
from alp_repro.attacks import PGD, Phase, programs
from alp_repro.auditing import Audit, audit_phases, default_attack
from alp_repro.errors import InputError
from experiments import verify_adversarial
from tests.auditing import fixtures

IMAGES, LABELS = fixtures.images_and_labels()
EPS = 0.3
FEW = slice(0, 12)


def model() -> keras.Model:
    """A weak model: a larger ball breaks most of its images, not all."""
    return fixtures.honest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def found(folder: Path) -> Audit:
    """Everything, within more time than it takes."""
    lines: list[str] = []
    audit = alp_repro.audit(
        model(), IMAGES[FEW], LABELS[FEW], EPS, minutes=120, folder=folder, report=lines.append
    )
    assert "of 120.0" in lines[0]
    return audit


def test_the_worst_case_is_the_worst_of_every_attack(found: Audit) -> None:
    """Image by image, and never more than any attack alone leaves."""
    broken = np.zeros(12, bool)
    for place, attack in enumerate(found.attacks):
        if attack.phase.on == "standing":
            assert not broken[attack.attacked].any()
        broken[attack.attacked[attack.broken]] = True
        assert found.worst_after(place + 1) == pytest.approx((found.correct & ~broken).mean())
        assert found.worst_accuracy <= found.accuracy_of(attack)
    np.testing.assert_array_equal(found.robust, found.correct & ~broken)
    assert found.left_out == ()
    assert {one.key for one in found.indicators} >= {"overestimate", "unit_test", "judge_disagrees"}


def test_what_broke_an_image_breaks_it(found: Audit) -> None:
    broken = found.broken_by >= 0
    assert broken.any()
    logits = np.asarray(model()(found.adversarial[broken]))
    np.testing.assert_array_equal(logits.argmax(axis=1), found.found[broken])
    assert (found.found[broken] != LABELS[FEW][broken]).all()
    assert np.abs(found.adversarial[broken] - IMAGES[FEW][broken]).max() <= EPS + 1e-7


def test_a_second_call_continues(found: Audit, folder: Path, monkeypatch) -> None:
    """It computes no attack and no measurement, and reports the same."""
    monkeypatch.setattr(
        "alp_repro.attacks.programs.attack_program", lambda *_, **__: pytest.fail("attacked")
    )
    monkeypatch.setattr(
        "alp_repro.auditing.measurements.instability", lambda *_, **__: pytest.fail("measured")
    )
    again = alp_repro.audit(model(), IMAGES[FEW], LABELS[FEW], EPS, minutes=0.001, folder=folder)
    assert again.verdict == found.verdict and again.left_out == ()
    for part in ("attacks", "indicators"):
        assert again.to_json()[part] == found.to_json()[part]
    np.testing.assert_array_equal(again.adversarial, found.adversarial)


@pytest.mark.slow
def test_an_interrupted_audit_goes_on_where_it_was(tmp_path: Path, monkeypatch) -> None:
    """Ctrl-C in the last of three attacks; the first two are not run again."""
    attacks = [PGD(eps=EPS, eps_iter=EPS / 4, nb_iter=steps) for steps in (3, 4, 5)]
    phases = [Phase(one, "all", name=f"steps{one.nb_iter}") for one in attacks]
    same, made = fixtures.After(), []

    def audited() -> Audit:
        settings = {"attack": attacks[0], "phases": phases, "closer_look": False}
        return alp_repro.audit(same, IMAGES[FEW], LABELS[FEW], EPS, folder=tmp_path, **settings)

    def program(*arguments, attack, **settings):  # type: ignore[no-untyped-def]
        made.append(attack)
        if len(made) == 4:  # the default, the unbounded attack and the second phase are done
            raise KeyboardInterrupt
        return attack_program(*arguments, attack=attack, **settings)

    attack_program = programs.attack_program
    monkeypatch.setattr(programs, "attack_program", program)
    with pytest.raises(KeyboardInterrupt):
        audited()
    found = audited()
    assert [one.nb_iter for one in made if one.eps == EPS] == [3, 4, 5, 5]
    assert [one.attack for one in found.attacks] == attacks
    broken = found.broken_by >= 0
    assert broken.any() and found.left_out == ()
    logits = np.asarray(same(found.adversarial[broken]))
    np.testing.assert_array_equal(logits.argmax(axis=1), found.found[broken])


def test_another_model_in_the_same_folder_is_refused_or_done_again(folder: Path, found) -> None:
    with pytest.raises(InputError, match="another"):
        alp_repro.audit(fixtures.times(2.0), IMAGES[FEW], LABELS[FEW], EPS, folder=folder)


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("img", "source"):
            self.images.append(values["src" if tag == "img" else "srcset"] or "")
        if values.get("id"):
            self.ids.append(values["id"] or "")
        if tag == "a":
            self.links.append(values["href"] or "")


def test_the_page_needs_nothing_else(found: Audit, tmp_path: Path) -> None:
    found.save(tmp_path / "audit.html")
    text = (tmp_path / "audit.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    # Accuracies, wide and narrow, heat map, restarts, surface, and three of an example.
    assert len(page.images) >= 8
    assert all(src.startswith("data:image/png;base64,") for src in page.images)
    assert all(link[1:] in page.ids for link in page.links)
    assert "http" not in re.sub(r"data:[^\"]*", "", text)
    for one in found.indicators:
        assert one.title in text
    assert text.index("<img") < text.index(found.verdict[:30])  # picture first


def test_the_numbers_are_plain_data(found: Audit, tmp_path: Path) -> None:
    found.save(tmp_path / "audit.json")
    read = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert read["eps"] == pytest.approx(EPS * 255)
    assert read["worst_accuracy"] == found.worst_accuracy
    assert [one["key"] for one in read["indicators"]] == [one.key for one in found.indicators]
    assert {"definition", "source", "threshold", "saw", "advice"} <= set(read["indicators"][0])
    with pytest.raises(InputError, match=r"\.html, \.json"):
        found.save(tmp_path / "audit.pdf")


def test_adversarial_images_pass_the_independent_check(found: Audit, tmp_path: Path) -> None:
    found.save(tmp_path / "adversarial.npz")
    with np.load(tmp_path / "adversarial.npz") as file:
        arrays = {name: file[name] for name in verify_adversarial.NAMES}
    assert verify_adversarial.verify(arrays) == []
    assert verify_adversarial.same_data(arrays, IMAGES, LABELS) == []
    assert verify_adversarial.same_data(arrays, 1 - IMAGES, LABELS) != []
    bent = arrays["adversarial"].copy()
    bent[3, 0, 0, 0] += 0.01 if bent[3, 0, 0, 0] < 0.5 else -0.01
    bent[3, 1, 0, 0] = arrays["images"][3, 1, 0, 0] + EPS + 1e-4
    for changed, what in (
        ({"adversarial": bent}, "outside the ball"),
        ({"adversarial": arrays["adversarial"] + 2}, r"outside \[0, 1\]"),
        ({"labels": arrays["labels"][:3]}, "integers"),
        ({"robust_accuracy": np.float64(0.99)}, "claimed"),
        ({"adversarial": arrays["images"]}, "two different predictions"),
    ):
        assert re.search(what, "; ".join(verify_adversarial.verify({**arrays, **changed})))


def test_phases_go_from_cheap_to_expensive_and_hold_for_few_classes() -> None:
    default = default_attack(8 / 255)
    ten, two = audit_phases(default, classes=10), audit_phases(default, classes=2)
    assert [one.name for one in ten] == [one.name for one in two]
    assert ten[0].attack == default
    assert next(s for s in ten if s.name == "apgd_targeted").attack.loss == "dlr"
    assert next(s for s in two if s.name == "apgd_targeted").attack.loss == "margin"
    mine = dataclasses.replace(default, nb_iter=7, restarts=25)
    assert next(s for s in audit_phases(mine, classes=4) if s.name == "restarts").attack == mine


def nan_outputs(images: np.ndarray) -> np.ndarray:
    logits = np.zeros((len(images), 4), np.float32)
    logits[images[:, 0, 0, 0] > 0.5] = np.nan
    return logits


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"eps": 0.0}, "eps 0"),
        ({"eps": -1.0}, "eps -1"),
        ({"eps": np.nan}, "eps nan"),
        ({"eps": 8.0}, "eps 8"),
        ({"minutes": 0}, "minutes 0"),
        ({"minutes": 1e-6}, "too few: the evaluation under audit alone needs"),
        ({"seed": -1}, "seed -1"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "n > 0"),
        ({"labels": LABELS[:5]}, "for 40 images"),
        ({"labels": LABELS + 1}, "classes 0 to 3"),
        ({"model": nan_outputs}, "image 0 are not finite"),
        ({"model": "nothing.keras"}, "does not exist"),
        ({"attack": PGD(eps=0.1, eps_iter=0.01, nb_iter=3)}, "not the audit's"),
    ],
)
def test_bad_input_is_one_line(change: dict, what: str) -> None:
    given = {"model": fixtures.honest(), "images": IMAGES, "labels": LABELS, "eps": EPS} | change
    with pytest.raises(InputError, match=what) as error:
        alp_repro.audit(**given)
    assert "\n" not in str(error.value)


def test_no_image_classified_correctly_is_no_crash() -> None:
    wrong = (LABELS + 1) % fixtures.CLASSES
    found = alp_repro.audit(fixtures.honest(), IMAGES, wrong, EPS)
    assert "No attack was run" in found.verdict
    assert found.worst_accuracy == 0.0
