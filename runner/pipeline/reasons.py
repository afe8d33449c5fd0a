"""What changed from one piece of work to another, in the words of a person."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from charrun.store.replay import mapping_of

SCALE = "scale: "
_LONGEST, _BEFORE = 48, 9
"""Characters of a value, and of those before the place where two long ones differ."""
_MAPPINGS = ("options", "models", "character", "templates")
_VALUES = ("seed", "code", "further", "cache_version", "fingerprint_version")


@dataclass(frozen=True)
class Now:
    """What words need beside two descriptions.

    Attributes:
        character: Id of the character whose cell it is; empty where the other work may be another's.
        file: Name of the stage's own file; empty where it has none.
        updated: What was updated where the stage's `cache_version` is another: `charrun` or a plugin's distribution.
    """

    character: str = ""
    file: str = ""
    updated: str = ""


def distance(before: Mapping[str, Any], now: Mapping[str, Any]) -> int:
    """In how many places two descriptions differ."""
    count = sum(bool(before.get(field) != now.get(field)) for field in _VALUES)
    for field in _MAPPINGS:
        old, new = mapping_of(before, field), mapping_of(now, field)
        if old != new:
            count += sum(bool(old.get(name) != new.get(name)) for name in {*old, *new})
    return count


def differences(before: Mapping[str, Any], now: Mapping[str, Any], about: Now) -> Iterator[str]:
    """What changed from one description to another; consumed rows only where both tell of them."""
    if before.get("fingerprint_version") != now.get("fingerprint_version"):
        yield "charrun was updated, and makes fingerprints in another way"
        return
    told = [
        *_values("option ", mapping_of(before, "options"), mapping_of(now, "options")),
        *_character(mapping_of(before, "character"), mapping_of(now, "character"), about.character),
        *_seed(before.get("seed"), now.get("seed")),
    ]
    yield from told
    for role, old, new in _changed(mapping_of(before, "models"), mapping_of(now, "models")):
        yield _model(role, old, new)
    for name, old, new in _changed(mapping_of(before, "templates"), mapping_of(now, "templates")):
        yield f"template {name} {_happened(old, new)}"
    if before.get("code") != now.get("code"):
        yield f"the code of {about.file or 'the stage'} changed"
    # What a stage reads mostly follows from its options, the character and the seed.
    if before.get("further") != now.get("further") and not told:
        yield "what else it reads changed, such as a file"
    if before.get("cache_version") != now.get("cache_version"):
        why = f" ({about.updated} was updated)" if about.updated else ""
        yield f"cache_version {before.get('cache_version')} -> {now.get('cache_version')}{why}"
    if "inputs" in before and "inputs" in now:
        yield from other_rows(mapping_of(before, "inputs"), mapping_of(now, "inputs"))


def other_rows(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Which kinds of consumed rows are others, from their digests by name."""
    kinds = dict.fromkeys(name.split(" ")[0] for name, *_ in _changed(before, now))
    if kinds:
        yield f"other {' and '.join(kinds)} than before"


def other_scale(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Which numbers of a scale are others."""
    told = [f"{name} {old} -> {new}" for name, old, new in _changed(before, now)]
    if told:
        yield f"{SCALE}{', '.join(told)}".replace("_", " ")


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys([*new, *old]):
        if old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)


def _values(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Options one by one, also within options."""
    for name in dict.fromkeys([*new, *old]):
        if name not in old:
            yield f"{what}{name} is new: {_short(new[name])}"
        elif name not in new:
            yield f"{what}{name} is gone"
        elif isinstance(old[name], dict) and isinstance(new[name], dict):
            yield from _values(f"{what}{name}.", old[name], new[name])
        elif old[name] != new[name]:
            yield f"{what}{name}: {_both(old[name], new[name])}"


def _character(old: Mapping[str, Any], new: Mapping[str, Any], id: str) -> Iterator[str]:
    changed = [name for name, *_ in _changed(old, new)]
    if "name" in changed:
        names = f": {_both(old.get('name'), new.get('name'))}"
        if not id and all(isinstance(each.get("name"), str) for each in (old, new)):
            yield f"another character{names}"
            return
        yield f"the character's name{names}"
    rest = [name for name in changed if name != "name"]
    if rest and not id:
        yield "another character"
    elif rest:
        yield f"{id}'s {' and '.join(rest)} changed"


def _seed(old: Any, new: Any) -> Iterator[str]:
    if old != new:
        yield f"seed {old} -> {new}"


def _model(role: str, old: Any, new: Any) -> str:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return f"the {role} {_happened(old, new)}"
    if old.get("model") == new.get("model"):
        return f"the {role}'s chat options: {_both(old.get('chat'), new.get('chat'))}"
    before, now = (str(each.get("model")).partition("@")[0] for each in (old, new))
    if before == now:
        return f"the files of the {role} {_bare(now)} changed"
    if before.partition(":")[0] == now.partition(":")[0]:  # at one engine
        before, now = _bare(before), _bare(now)
    return f"the {role} is another model: {before} -> {now}"


def _bare(model: str) -> str:
    """A model's name without its engine's."""
    return model.partition(":")[2] or model


def _happened(old: Any, new: Any) -> str:
    return "is new" if old is None else "is gone" if new is None else "changed"


def _both(old: Any, new: Any) -> str:
    """Two values; of long ones that begin alike, from shortly before they differ."""
    texts = [_text(old), _text(new)]
    differs = (at for at, pair in enumerate(zip(*texts, strict=False)) if len(set(pair)) > 1)
    alike = next(differs, min(map(len, texts))) - _BEFORE
    if alike > 0 and max(map(len, texts)) > _LONGEST:
        texts = [f"…{text[alike:]}" for text in texts]
    return " -> ".join(map(_short, texts))


def _short(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
