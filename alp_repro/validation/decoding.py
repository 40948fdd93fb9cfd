"""Reads JSON from files, notes and flags as a given type, with errors in one line.

Pydantic checks and builds the types, our frozen dataclasses among them. What it accepts is checked
before: duplicate keys, numbers that are not finite, nesting that later code could not handle.
"""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any, TypeVar, overload

import pydantic

from alp_repro.errors import InputError

T = TypeVar("T")

_MOST_LEVELS = 50
_LONGEST = 60  # characters of a wrong value to show


@overload
def from_json(
    text: str | bytes, kind: type[T], *, source: str, advice: str = ..., extra_keys: bool = ...
) -> T: ...
@overload
def from_json(
    text: str | bytes, kind: Any, *, source: str, advice: str = ..., extra_keys: bool = ...
) -> Any: ...
def from_json(
    text: str | bytes, kind: Any, *, source: str, advice: str = "", extra_keys: bool = False
) -> Any:
    """Read JSON text as a type; strictly: no number in quotes, no 1 for true, finite numbers only.

    Args:
      text: JSON; bytes are UTF-8.
      kind: a type that pydantic supports: a dataclass, `dict[str, Any]`, `tuple[int, ...]`, a
        Literal.
      source: the origin of the text, for the error: a path, or the name of a flag.
      advice: what to do about an error.
      extra_keys: ignore keys that a dataclass does not have, instead of refusing them.

    Raises:
      InputError: one line with the source, the path of keys and what is expected there.
    """
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        parsed = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse)
        _check_plain(parsed)
        return _adapter(kind).validate_json(
            text, strict=True, extra="ignore" if extra_keys else "forbid"
        )
    except pydantic.ValidationError as error:
        problem = _first_problem(error)
    except RecursionError:
        problem = f"nested deeper than {_MOST_LEVELS} levels"
    except InputError as error:  # a dataclass of ours that refuses its values
        problem = str(error)
    except ValueError as error:  # not UTF-8, not JSON, or one of the checks above
        problem = str(error)
    raise InputError(_line(source, problem, advice))


@overload
def from_plain(
    value: Any, kind: type[T], *, source: str, advice: str = ..., extra_keys: bool = ...
) -> T: ...
@overload
def from_plain(
    value: Any, kind: Any, *, source: str, advice: str = ..., extra_keys: bool = ...
) -> Any: ...
def from_plain(
    value: Any, kind: Any, *, source: str, advice: str = "", extra_keys: bool = False
) -> Any:
    """Read lists and dicts that came from JSON as a type; arguments and errors as `from_json`."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(_line(source, f"not plain data: {error}", advice)) from error
    return from_json(text, kind, source=source, advice=advice, extra_keys=extra_keys)


@overload
def read_json(path: Path, kind: type[T], *, advice: str = ..., extra_keys: bool = ...) -> T: ...
@overload
def read_json(path: Path, kind: Any = ..., *, advice: str = ..., extra_keys: bool = ...) -> Any: ...
def read_json(
    path: Path,
    kind: Any = dict[str, Any],
    *,
    advice: str = "remove it to make it again",
    extra_keys: bool = False,
) -> Any:
    """Read a JSON file as a type, by default an object of any content.

    Args:
      path: the file.
      kind, advice, extra_keys: see `from_json`.

    Raises:
      InputError: the file is absent, cannot be read or does not match the type; in one line.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: not a valid name of a file
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{str(path)!r:.200} could not be read ({why})") from error
    return from_json(
        content, kind, source=f"{path} is damaged", advice=advice, extra_keys=extra_keys
    )


@functools.lru_cache(maxsize=64)
def _adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(kind)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is given twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a valid JSON number: expected a finite number")


def _check_plain(value: Any) -> None:
    """Refuse values that the parser accepts, but that writing or comparing would fail on."""
    level = [value]
    for _ in range(_MOST_LEVELS):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, float) and not math.isfinite(one):
                raise ValueError("a number is too large: expected a finite number")
            if isinstance(one, str):
                one.encode("utf-8")  # raises ValueError for half a surrogate pair
            elif isinstance(one, dict):
                inner += [*one, *one.values()]
            elif isinstance(one, list):
                inner += one
        if not inner:
            return
        level = inner
    raise ValueError(f"nested deeper than {_MOST_LEVELS} levels")


def _first_problem(error: pydantic.ValidationError) -> str:
    first, *others = error.errors(include_url=False)
    where = ".".join(str(part) for part in first["loc"])
    wrong = repr(first["input"])
    wrong = wrong if len(wrong) <= _LONGEST else wrong[: _LONGEST - 1] + "…"
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    problem = f"{where}: {message}" if where else message
    if first["type"] not in ("missing", "value_error", "unexpected_keyword_argument"):
        problem += f", got {wrong}"
    return problem + (f" (and {len(others)} more)" if others else "")


def _line(source: str, problem: str, advice: str) -> str:
    line = f"{source} ({problem})" if source.endswith("damaged") else f"{source}: {problem}"
    return " ".join((f"{line}: {advice}" if advice else line).split())
