"""A lock file beside what a run would be made with now: every difference, one line each."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from charrun.errors import Problem, SpecError
from charrun.pipeline.lockfile import LOCK_VERSION
from charrun.report.compare_spec import ABSENT, Change, changes
from charrun.spec.document import Mark, Source

MISSING, UNREADABLE, UNKNOWN, DRIFT = "LOCK001", "LOCK002", "LOCK003", "LOCK004"
_WHERE = ("engine", "stand_ins", "models")
_WHOLE = "spec.sha256"
_NOT_OF_SPECS = ("versions", "schemas", "price_book")
_HASH = re.compile(r"\b[0-9a-f]{64}\b")
_SHOWN = 8
_LONGEST = 100


def read_lock(name: str, remedy: str) -> dict[str, Any]:
    """What a lock file holds.

    Args:
        name: The file, as it is called in problems.
        remedy: The command that writes it.

    Raises:
        SpecError: It is not there, cannot be read, is not JSON, or is not a lock that this version knows.
    """
    try:
        data = Path(name).read_bytes()
    except FileNotFoundError:
        raise SpecError([Problem(MISSING, "there is no lock file", name, hint=f"write it: {remedy}")]) from None
    except OSError as error:
        problem = Problem(UNREADABLE, f"the lock cannot be read: {error.strerror or error}", name)
        raise SpecError([problem]) from error
    anew = f"write it anew: {remedy}"
    try:
        text = data.decode()
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_refused)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        raise _unreadable(name, before, len(before), "the lock is not UTF-8", anew) from error
    except json.JSONDecodeError as error:
        raise _unreadable(name, text, error.pos, f"the lock is not JSON: {error.msg}", anew) from error
    except (ValueError, RecursionError) as error:
        told = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise SpecError([Problem(UNREADABLE, f"the lock cannot be read: {told}", name, hint=anew)]) from error
    if not isinstance(value, dict) or "lock_version" not in value:
        raise SpecError([Problem(UNKNOWN, "this is no lock: it has no lock_version", name, hint=anew)])
    if value["lock_version"] != LOCK_VERSION:
        told = f"lock_version {json.dumps(value['lock_version'])} is not known, only {LOCK_VERSION}"
        raise SpecError([Problem(UNKNOWN, told, name, hint=f"update charrun, or {anew}")])
    return value


def drift(locked: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Every difference between a lock and what would be locked now.

    What follows from another difference is not told as well: the hash of the whole spec where a part has changed, and
    a model's identity where its name has. Of Python's version the first two numbers count.
    """
    found = [change for change in changes(_paired(locked, now), now) if not _is_patch(change)]
    parts = any(change.path != _WHOLE and _root(change) not in _NOT_OF_SPECS for change in found)
    renamed = {f"{change.path.removesuffix('.name')}.identity" for change in found if change.path.endswith(".name")}
    follows = renamed | ({_WHOLE} if parts else set())
    return [change for change in found if change.path not in follows]


def told(change: Change) -> str:
    """A difference in one line."""
    path, a, b = re.sub(r"[_.]sha256$", "", change.path), change.a, change.b
    if _is_hash(a) and _is_hash(b):
        return f"{path} changed (sha256 {a[:_SHOWN]}… -> {b[:_SHOWN]}…)"
    if a is ABSENT:
        return f"{path}: not locked, now {_value(b) if _is_plain(b) else 'there'}"
    if b is ABSENT:
        return f"{path}: locked {_value(a)}, now gone" if _is_plain(a) else f"{path}: locked, now gone"
    return f"{path}: locked {_value(a)}, now {_value(b)}"


def drift_error(name: str, found: Sequence[Change], remedy: str) -> SpecError:
    """All differences as problems of the lock file; the last one says what to do."""
    roots = {_root(change) for change in found}
    ways = [f"accept it: {remedy}"]
    if "versions" in roots:
        ways.append("install the locked versions")
    if "engine" in roots:
        ways.append("run where it was locked (engine: auto takes Tinker where it finds credentials)")
    problems = [Problem(DRIFT, told(change), name) for change in found]
    problems[-1] = Problem(DRIFT, told(found[-1]), name, hint="; or ".join(ways))
    return SpecError(problems)


def unasked(found: Sequence[Change]) -> list[Change]:
    """The differences, where other models are meant or the same ones elsewhere, so that the engine need not be asked.

    Returns:
        All but those that only say that nobody was asked; nothing where the same models are meant.
    """
    if not any(_root(change) in _WHERE for change in found):
        return []
    return [change for change in found if not (_is_fact(change) and change.b is ABSENT)]


def _paired(locked: Mapping[str, Any], now: Mapping[str, Any]) -> Mapping[str, Any]:
    """The lock with its entries of models under the ids that they have now: an entry may be named after its student."""
    old, new = locked.get("models"), now["models"]
    if not isinstance(old, dict):
        return locked
    gone, come = [id for id in old if id not in new], [id for id in new if id not in old]
    if len(gone) != len(come):
        return locked
    names = dict(zip(gone, come, strict=True))
    return {**locked, "models": {names.get(id, id): entry for id, entry in old.items()}}


def _is_patch(change: Change) -> bool:
    minor = [str(side).split(".")[:2] for side in (change.a, change.b)]
    return change.path == "versions.python" and minor[0] == minor[1]


def _is_fact(change: Change) -> bool:
    """Whether it is about what a model can do: models, entry, role, fact."""
    return _root(change) == "models" and change.path.count(".") == 3


def _root(change: Change) -> str:
    return re.split(r"[. ]", change.path, maxsplit=1)[0]


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and bool(_HASH.fullmatch(value))


def _is_plain(value: Any) -> bool:
    return not isinstance(value, dict | list) and not _is_hash(value)


def _value(value: Any) -> str:
    is_word = isinstance(value, str) and value.isprintable() and value != "" and " " not in value
    text = value if is_word else json.dumps(value, ensure_ascii=False)
    text = _HASH.sub(lambda match: f"{match[0][:_SHOWN]}…", text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _unreadable(name: str, text: str, position: int, message: str, hint: str) -> SpecError:
    line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
    source = Source(name, Path(name), tuple(text.split("\n")))
    return SpecError([source.problem(Mark(line, column), UNREADABLE, message, hint)])


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"the key {json.dumps(next(key for key in names if names.count(key) > 1))} is there twice")
    return found


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
