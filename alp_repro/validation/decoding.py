"""JSON of files, notes and flags, read as a given type; whatever does not fit is one line.

Pydantic checks and builds the types, our frozen dataclasses among them. What it lets pass is
checked before: duplicate keys, numbers that are not finite, nesting that later code could not walk.
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
_LONGEST = 60  # characters of a wrong value that are shown


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
    """Reads JSON text as a type: no number in quotes, no 1 for true, no number that is not finite.

    Args:
      text: JSON; bytes are UTF-8.
      kind: what pydantic can check: a dataclass, `dict[str, Any]`, `tuple[int, ...]`, a Literal.
      source: what the text is, for the error: a path, or the name of a flag.
      advice: what to do about an error.
      extra_keys: keys that a dataclass does not have are left out; otherwise they are refused.

    Raises:
      InputError: one line with the source, the path of keys and what would be right there.
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
        problem = f"it is nested deeper than {_MOST_LEVELS} levels"
    except InputError as error:  # a dataclass of ours that refuses its values
        problem = str(error)
    except ValueError as error:  # no UTF-8, no JSON, or one of the checks above
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
    """Reads lists and dicts that came from JSON as a type; arguments and errors as `from_json`."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(_line(source, f"it is no plain data: {error}", advice)) from error
    return from_json(text, kind, source=source, advice=advice, extra_keys=extra_keys)


@overload
def read_json(path: Path, kind: type[T], *, advice: str = ..., extra_keys: bool = ...) -> T: ...
@overload
def read_json(path: Path, kind: Any = ..., *, advice: str = ..., extra_keys: bool = ...) -> Any: ...
def read_json(
    path: Path,
    kind: Any = dict[str, Any],
    *,
    advice: str = "remove it to have it made again",
    extra_keys: bool = False,
) -> Any:
    """Reads a JSON file as a type, by default an object of any content.

    Args:
      path: the file.
      kind, advice, extra_keys: see `from_json`.

    Raises:
      InputError: the file is absent, cannot be read or does not fit, in one line.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is not there") from None
    except (OSError, ValueError) as error:  # ValueError: what no file can be called
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{str(path)!r:.200} cannot be read ({why})") from error
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
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON: a finite one is right")


def _check_plain(value: Any) -> None:
    """Refuses what the parser lets pass and writing or comparing would stumble over."""
    level = [value]
    for _ in range(_MOST_LEVELS):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, float) and not math.isfinite(one):
                raise ValueError("a number is too large: a finite one is right")
            if isinstance(one, str):
                one.encode("utf-8")  # half a surrogate pair is no text
            elif isinstance(one, dict):
                inner += [*one, *one.values()]
            elif isinstance(one, list):
                inner += one
        if not inner:
            return
        level = inner
    raise ValueError(f"it is nested deeper than {_MOST_LEVELS} levels")


def _first_problem(error: pydantic.ValidationError) -> str:
    first, *others = error.errors(include_url=False)
    where = ".".join(str(part) for part in first["loc"])
    wrong = repr(first["input"])
    wrong = wrong if len(wrong) <= _LONGEST else wrong[: _LONGEST - 1] + "…"
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    problem = f"{where}: {message}" if where else message
    if first["type"] not in ("missing", "value_error", "unexpected_keyword_argument"):
        problem += f", not {wrong}"
    return problem + (f" (and {len(others)} more)" if others else "")


def _line(source: str, problem: str, advice: str) -> str:
    line = f"{source} ({problem})" if source.endswith("damaged") else f"{source}: {problem}"
    return " ".join((f"{line}: {advice}" if advice else line).split())
