"""Unknown keys that are known elsewhere: an option beside `with`, a stage's name as a key."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from charrun.spec.document import KeyPath
from charrun.spec.draft import Draft
from charrun.spec.parts import StageInfo
from charrun.spec.schema import Finding
from charrun.spec.words import listed, plainly

_UNKNOWN, _MISSING = "SPEC013", "SPEC015"
_NEAR = "did you mean"


def explain_misplaced(draft: Draft, stages: Mapping[str, StageInfo], engines: Collection[str]) -> None:
    """Say of unknown keys where they belong, and take back what is missing only because of them."""
    options = {name: _names(info.options_schema) for name, info in stages.items()}
    of_engines = {name: _names(engines[name]) for name in engines} if isinstance(engines, Mapping) else {}
    hints: dict[KeyPath, str] = {}
    meant: set[KeyPath] = set()
    for finding in draft.findings:
        if finding.problem.code == _UNKNOWN and not finding.problem.hint.startswith(_NEAR):
            *front, key = finding.path
            owner = draft.mapping(*front)
            for hint, whole in _places(tuple(front), str(key), owner, options, of_engines):
                hints[finding.path] = hint
                if whole:
                    meant.add(tuple(front))
    draft.findings[:] = [
        _with_hint(finding, hints)
        for finding in draft.findings
        if finding.problem.code != _MISSING or finding.path not in meant
    ]


def _with_hint(finding: Finding, hints: Mapping[KeyPath, str]) -> Finding:
    if finding.problem.code != _UNKNOWN or finding.path not in hints:
        return finding
    return Finding(finding.path, replace(finding.problem, hint=hints[finding.path]))


def _names(schema: Mapping[str, Any]) -> list[str]:
    return list(schema.get("properties", {}))


def _places(
    at: KeyPath,
    key: str,
    owner: Mapping[str, Any],
    stages: Mapping[str, Collection[str]],
    engines: Mapping[str, Collection[str]],
) -> Iterator[tuple[str, bool]]:
    """Where a key of the mapping `owner` at `at` belongs, and whether that explains what else is missing there."""
    value = owner.get(key)
    match at:
        case ():
            if having := [name for name, names in stages.items() if key in names]:
                yield f"it is an option of {listed(having)}: {{uses: {having[0]}, with: {{{key}: ...}}}}", False
        case ("stages", int()) | ("engine",):
            known = engines if at == ("engine",) else stages
            uses = owner.get("uses")
            if "uses" not in owner and key in known:
                yield f"write {{uses: {key}, with: {{...}}}}", True
            elif "uses" not in owner and isinstance(value, str) and value in known:
                yield f"write uses: {value}", True
            elif isinstance(uses, str) and key in known.get(uses, ()):
                yield f"options stand under with: {{uses: {uses}, with: {{{key}: ...}}}}", False
        case ("models", int(), "chat"):
            yield "chat options belong to one of the models: {name: ..., chat: {...}}", True
        case ("models", int(), str()) if "name" in owner:
            yield f"chat options stand under chat: {{chat: {{{plainly(key)}: ...}}}}", False
        case ("characters" | "scales", int()) if key == "uses" and isinstance(value, str):
            yield f"write the name alone: {plainly(value)}", True
