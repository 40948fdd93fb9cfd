"""What others read of an audit: its schema, JUnit XML, model card, table of images, notebook."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
import yaml

from alp_repro.attacks import PGD, Attack, Phase, Square
from alp_repro.auditing import AttackResult, Audit, Indicator, gate, image_table, specs
from alp_repro.auditing.junit import to_junit
from alp_repro.auditing.model_card import to_model_card
from alp_repro.auditing.schema import SCHEMA_VERSION, audit_schema
from alp_repro.errors import InputError
from alp_repro.evaluation.record import new_record
from alp_repro.evaluation.store import attack_settings

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how_to_read_an_audit.md"
EPS = 8 / 255
PLAIN = PGD(eps=EPS, eps_iter=EPS / 4, nb_iter=10, restarts=3)
SQUARE = Square(eps=EPS, nb_iter=100)


def attack(name: str, settings: Attack, attacked: list[int], first: list[int]) -> AttackResult:
    on = "all" if name == "default" else "standing"
    places, first_break = np.array(attacked), np.array(first, np.int32)
    fresh = new_record(
        labels=places,
        indices=places,
        clean_predictions=places,
        settings={"attack": attack_settings(settings)},
    )
    done = np.where(first_break < 0, settings.restarts, first_break + 1)
    record = dataclasses.replace(fresh, first_break=first_break, next_restart=done)
    return AttackResult(Phase(settings, on, name=name, title=f"{name}: <its> title"), record, 1.5)


def audit(**changed) -> Audit:  # type: ignore[no-untyped-def]
    """Four images: wrong before, broken by the default's second restart, by Square, by none."""
    images = np.full((4, 2, 2, 1), 0.5, np.float32)
    adversarial = np.zeros_like(images)
    adversarial[1], adversarial[2] = 0.5 + EPS, 0.5 - EPS / 2
    found = Audit(
        eps=EPS,
        images=images,
        labels=np.array([0, 1, 2, 0], np.int32),
        predictions=np.array([1, 1, 2, 0], np.int32),
        attacks=(
            attack("default", PLAIN, [1, 2, 3], [1, -1, -1]),
            attack("square", SQUARE, [2, 3], [0, -1]),
        ),
        indicators=(
            specs.OVERESTIMATE.indicator(True, "50.0% | 25.0%"),
            specs.CHANCE.indicator(False, "clean accuracy 75%"),
            specs.PLANTED.not_judged("no features"),
        ),
        broken_by=np.array([-1, 0, 1, -1]),
        adversarial=adversarial,
        found=np.array([-1, 0, 0, -1], np.int32),
        settings={"model": "m|odel <1>.keras", "data": "/home/me/d: ε.npz"},
        provenance={"date": "2026-01-02T03:04:05+00:00", "revision": "abc"},
    )
    return dataclasses.replace(found, **changed)


NOT_MEASURED = {"attacks": (), "broken_by": np.full(4, -1), "not_measured": "outputs are random"}


# --- the schema


def test_the_schema_is_one_and_has_the_version() -> None:
    jsonschema.Draft202012Validator.check_schema(audit_schema())
    assert audit_schema()["properties"]["schema_version"]["const"] == SCHEMA_VERSION


@pytest.mark.parametrize("changed", [{}, NOT_MEASURED, {"attacks": (), "indicators": ()}])
def test_numbers_have_the_schema_and_every_key_is_described(changed: dict) -> None:
    made = {"command": ["x"], "python": "3", "versions": {}, "machine": "m", "kernels": "k"}
    found = audit(**changed)
    found = dataclasses.replace(found, provenance={**found.provenance, **made})
    numbers = json.loads(json.dumps(found.to_json()))
    jsonschema.validate(numbers, audit_schema())
    properties = audit_schema()["properties"]
    assert set(numbers) == set(properties)
    for part in ("indicators", "attacks"):
        for one in numbers[part]:
            assert set(one) == set(properties[part]["items"]["properties"])


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": SCHEMA_VERSION + 1},
        {"worst_accuracy": 40},
        {"broken_by": ["default"]},
        {"indicators": [{"key": "restarts"}]},
    ],
)
def test_other_numbers_are_no_audit(change: dict) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**audit().to_json(), **change}, audit_schema())


# --- the gate


@pytest.mark.parametrize(
    ("survive", "of", "bound", "outcome"),
    [
        (29, 100, 29, "passed"),
        (57, 100, 57, "passed"),
        (28, 100, 28.5, "below"),
        (0, 5, 0, "passed"),
        (5, 5, 100, "passed"),
        (1, 3, None, "passed"),
        (1, 3, 33.4, "below"),
    ],
)
def test_a_bound_is_passed_by_as_many_as_it_says(survive, of, bound, outcome) -> None:
    """Though 100 * 0.29 is a little less than 29 for a computer."""
    labels = np.zeros(of, np.int32)
    found = audit(
        labels=labels,
        predictions=(np.arange(of) >= survive).astype(np.int32),
        broken_by=np.full(of, -1),
    )
    assert gate.outcome(found, fail_below=bound) == outcome


# --- JUnit


def cases(text: str) -> dict[str, ElementTree.Element]:
    return {case.get("name", ""): case for case in ElementTree.fromstring(text).iter("testcase")}


def test_an_indicator_is_a_test_case_and_a_raised_one_a_failure() -> None:
    found = cases(to_junit(audit()))
    assert list(found) == ["robust_accuracy", "overestimate", "near_chance", "unit_test"]
    assert "50.0%" in found["overestimate"].find("failure").get("message")
    assert specs.OVERESTIMATE.advice in found["overestimate"].find("failure").text
    assert found["unit_test"].find("skipped").get("message") == "no features"
    assert not len(found["near_chance"]) and not len(found["robust_accuracy"])


def test_a_failed_bound_is_a_failure_and_one_that_cannot_be_judged_an_error() -> None:
    below = cases(to_junit(audit(), fail_below=30))["robust_accuracy"]
    assert "25.0%" in below.find("failure").get("message")
    unknown = cases(to_junit(audit(**NOT_MEASURED), fail_below=30))["robust_accuracy"]
    assert "random" in unknown.find("error").get("message")
    assert unknown.find("failure") is None


def test_the_counts_are_those_of_the_cases() -> None:
    root = ElementTree.fromstring(to_junit(audit(), fail_below=30))
    for element in (root, root[0]):
        counts = {name: element.get(name) for name in ("tests", "failures", "errors", "skipped")}
        assert counts == {"tests": "4", "failures": "2", "errors": "0", "skipped": "1"}
        assert element.get("time") == "3.0"


def test_what_xml_cannot_hold_is_replaced() -> None:
    text = to_junit(audit(settings={"model": "a\x00b\x1b\ufffe<&\"'"}, notes=("\x08",)))
    assert ElementTree.fromstring(text)[0].get("name", "").startswith("audit of a\ufffdb")


# --- the model card


def front_matter(card: str) -> dict:
    begin, head, _ = card.split("---\n", 2)
    assert begin == ""
    (found,) = yaml.safe_load(head)["model-index"]
    return found


def test_the_card_has_what_a_hub_reads() -> None:
    found = front_matter(to_model_card(audit()))
    assert found["name"] == "m|odel <1>.keras"
    (result,) = found["results"]
    assert result["dataset"]["name"] == "d: ε.npz"  # not where it lay
    clean, robust = result["metrics"]
    assert (clean["type"], clean["value"]) == ("accuracy", 0.75)
    assert (robust["type"], robust["value"]) == ("robust_accuracy", 0.25)
    details = robust["args"]
    assert details["eps_255"] == 8 and details["images"] == 4 and details["norm"] == "Linf"
    low, high = details["interval_95"]
    assert low < 0.25 < high
    assert [one.split()[0] for one in details["attacks"]] == ["pgd", "square"]
    states = {"raised": ["overestimate"], "clear": ["near_chance"], "not_judged": ["unit_test"]}
    assert details["indicators"] == states


def test_the_card_of_what_was_not_measured_claims_no_number() -> None:
    card = to_model_card(audit(**NOT_MEASURED))
    metrics = front_matter(card)["results"][0]["metrics"]
    assert [one["type"] for one in metrics] == ["accuracy"]
    assert "not measured: outputs are random" in card


def test_every_line_of_the_cards_table_has_two_cells() -> None:
    text = to_model_card(audit(left_out=("a | b",))).split("---\n", 2)[2]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) > 8
    assert all(line.replace("\\|", "").count("|") == 3 for line in lines)


def test_a_card_replaces_a_card_and_nothing_else(tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    audit().save(card)
    audit(settings={"model": "another"}).save(card)
    assert front_matter(card.read_text(encoding="utf-8"))["name"] == "another"
    card.write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="left as it is"):
        audit().save(card)
    assert card.read_text(encoding="utf-8") == "mine"


# --- the table of images


def test_who_was_broken_by_what_at_which_cost() -> None:
    """What is spent on an image after it broke is no cost of breaking it."""
    late = attack("late", PLAIN, [1, 3], [0, -1])
    found = audit(attacks=(*audit().attacks, late))
    rows = list(csv.DictReader(io.StringIO(image_table.to_csv(found))))
    assert [row["broken_by"] for row in rows] == ["", "default", "square", ""]
    assert [row["restart"] for row in rows] == ["", "2", "1", ""]
    assert [row["gradients"] for row in rows] == ["0", "20", "30", "60"]
    assert [row["queries"] for row in rows] == ["0", "0", "100", "100"]
    assert [row["correct"] for row in rows] == ["false", "true", "true", "true"]
    assert [row["robust"] for row in rows] == ["false", "false", "false", "true"]
    distances = [float(row["distance"] or math.nan) for row in rows]
    np.testing.assert_allclose(distances, [math.nan, 8, 4, math.nan], atol=1e-3)


def test_nothing_is_called_robust_where_nothing_was_measured() -> None:
    rows = list(csv.DictReader(io.StringIO(image_table.to_csv(audit(**NOT_MEASURED)))))
    assert {row["robust"] for row in rows} == {""}


def test_every_column_is_explained() -> None:
    explained = GUIDE.read_text(encoding="utf-8")
    assert not [name for name in image_table.COLUMNS if f"| `{name}` |" not in explained]


def test_the_table_as_a_dataframe() -> None:
    pytest.importorskip("pandas")
    frame = audit().to_dataframe()
    assert frame.index.name == "image" and frame["gradients"].tolist() == [0, 20, 30, 30]


# --- a notebook


def test_a_notebook_shows_the_verdict_and_what_is_raised() -> None:
    shown = audit()._repr_html_()
    assert audit().verdict.split(".")[0] in shown
    assert "&lt;its&gt; title" in shown and "<its>" not in shown
    assert specs.OVERESTIMATE.title in shown and specs.CHANCE.title not in shown
    assert "data:image/png" in shown
    assert "outputs are random" in audit(**NOT_MEASURED)._repr_html_()


def test_an_audit_is_one_line() -> None:
    assert "\n" not in repr(audit()) and "array" not in repr(audit())
    assert "At most 25.0%" in repr(audit())


def test_an_indicator_has_the_states_of_the_schema() -> None:
    states = audit_schema()["properties"]["indicators"]["items"]["properties"]["state"]["enum"]
    assert {one.state for one in audit().indicators} == set(states)
    assert isinstance(audit().indicators[0], Indicator)
