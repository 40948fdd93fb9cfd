"""JSON read as a type: what fits comes back equal, what does not is one line that says where."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any, Literal

import pytest

from alp_repro.attacks import PGD, Attack, attack_of, strong_attack
from alp_repro.errors import InputError
from alp_repro.validation.decoding import from_json, from_plain, read_json


@dataclasses.dataclass(frozen=True)
class Ball:
    """A dataclass that checks itself."""

    eps: float
    steps: int = 1
    drops: tuple[int, ...] = ()
    kind: Literal["pgd", "apgd"] = "pgd"

    def __post_init__(self) -> None:
        if self.eps < 0:
            raise InputError(f"ball eps {self.eps:g}: 0 or more is needed")


def test_dataclasses_come_back_equal() -> None:
    attack = PGD(eps=0.1, eps_iter=0.05, nb_iter=3)
    assert from_json(json.dumps(attack.to_json()), Attack, source="here") == attack
    ensemble = strong_attack(0.3)
    assert attack_of(json.loads(json.dumps(ensemble.to_json())), source="here") == ensemble
    assert from_json('{"eps": 1, "drops": [2, 3]}', Ball, source="") == Ball(1.0, drops=(2, 3))


def test_floats_keep_every_bit() -> None:
    generator = random.Random(0)
    values = [generator.uniform(-1, 1) * 10 ** generator.randint(-300, 300) for _ in range(2000)]
    assert from_json(json.dumps(values), list[float], source="") == values
    assert from_plain({"a": values}, dict[str, Any], source="") == {"a": values}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "object"),
        ("null", "object"),
        ("3", "object"),
        ('{"steps": 1}', "eps: field required"),
        ('{"eps": null}', "eps: input should be a valid number, got None"),
        ('{"eps": "1"}', "eps: input should be a valid number, got '1'"),
        ('{"eps": true}', "eps: input should be a valid number, got True"),
        ('{"eps": 1, "steps": 1.5}', "steps: .*integer"),
        ('{"eps": 1, "steps": "x", "drops": 3}', r"steps: .*\(and 1 more\)"),
        ('{"eps": 1, "drops": [1, [2]]}', r"drops\.1: .*integer"),
        ('{"eps": 1, "kind": "spsa"}', "kind: .*'pgd' or 'apgd'"),
        ('{"eps": -1}', "ball eps -1: 0 or more is needed"),
        ('{"eps": 1, "sise": 2}', "sise: unexpected"),
        ('{"eps": 1, "eps": 2}', "the key 'eps' is given twice"),
        ('{"eps": NaN}', "NaN is not a valid JSON number"),
        ('{"eps": -Infinity}', "-Infinity is not a valid JSON number"),
        ('{"eps": 1e999}', "too large"),
        ('{"eps": ' + "9" * 5000 + "}", "digits"),
        ('{"eps": ' + "[" * 60 + "]" * 60 + "}", "nested deeper than 50"),
        ("[" * 100_000, "nested deeper than 50"),
        (r'{"kind": "\ud800"}', "surrogate"),
        ("", "Expecting value"),
        ('{"eps": 1', "delimiter"),
        (b'{"kind": "\xff"}', "utf-8"),
        ('{"eps": "' + "x" * 5000 + '"}', "…"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, text: str | bytes, told: str) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=told) as caught:
        read_json(path, Ball, advice="train again")
    line = str(caught.value)
    assert line.startswith(f"{path} is damaged (") and line.endswith("): train again")
    assert "\n" not in line and len(line) < 400


def test_keys_that_are_not_known_may_be_left_out() -> None:
    text = '{"eps": 1, "date": "today"}'
    assert from_json(text, Ball, source="", extra_keys=True) == Ball(1.0)


def test_a_file_is_an_object_unless_something_else_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(InputError, match=r"a\.json does not exist"):
        read_json(path)
    path.write_text("[1]")
    assert read_json(path, list[int]) == [1]
    with pytest.raises(InputError, match="object"):
        read_json(path)
    with pytest.raises(InputError, match="could not be read"):
        read_json(tmp_path)


def test_plain_data_is_read_the_same_way() -> None:
    assert from_plain({"eps": 0.5}, Ball, source="--ball") == Ball(0.5)
    with pytest.raises(InputError, match=r"^--ball: eps: input should be a valid number"):
        from_plain({"eps": "0.5"}, Ball, source="--ball")
    with pytest.raises(InputError, match="not plain data"):
        from_plain({"eps": {1, 2}}, Ball, source="--ball")
