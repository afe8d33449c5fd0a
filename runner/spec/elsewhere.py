"""Models that live elsewhere: at an endpoint, for roles that are neither trained nor score."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from charrun.endpoint import Endpoint
from charrun.spec.document import KeyPath
from charrun.spec.draft import Draft
from charrun.spec.parts import StageInfo, StageItem
from charrun.spec.words import shown

_SCORER, _STUDENT, _TEACHER = "scorer", "student", "teacher"


def endpoint_of(written: Mapping[str, Any]) -> Endpoint | None:
    """The endpoint of a model's mapping in the spec; `None` for a model that the engine serves."""
    if "endpoint" not in written:
        return None
    return Endpoint(**{"model": written["name"], **written["endpoint"]})


def check_elsewhere(draft: Draft, items: Sequence[StageItem], known: Mapping[str, StageInfo]) -> None:
    """Check that the spec asks of endpoints only what they can do, and that a name means one model.

    Args:
        draft: The spec.
        items: Its stages, as far as they are sound.
        known: What stages do, by name.
    """
    trained = {_STUDENT: "trained", **{role: f"trained by {i.uses}" for i in items for role in known[i.uses].trains}}
    scoring = {role: item.uses for item in items for role in known[item.uses].scores}
    first: dict[str, str] = {}
    for path, role, written in _models(draft):
        roles = draft.mapping(*path[:-1])
        name = written if isinstance(written, str) else written["name"]
        identity = _identity(written)
        if first.setdefault(name, identity) != identity:
            message = f"{shown(name)} is also what another model is called, which is asked elsewhere or otherwise"
            hint = "give one of them a name of its own, and say as `model` under endpoint what it is called there"
            draft.add("SPEC072", message, path if isinstance(written, str) else (*path, "name"), hint)
        if not identity:
            continue
        at = (*path, "endpoint")
        served = f"name a model for {role} that the engine serves"
        if role in trained:
            message = f"the {role} is {trained[role]}, and a model at an endpoint can only be sampled from"
            draft.add("SPEC070", message, at, served, on="key")
        elif role in scoring:
            draft.add("SPEC071", f"{scoring[role]} scores with the {role}: {_NO_SCORES}", at, served, on="key")
        elif role == _TEACHER and _SCORER in scoring and _SCORER not in roles:
            message = f"{scoring[_SCORER]} scores with the teacher where no scorer is named: {_NO_SCORES}"
            hint = "add `scorer:` beside it, with a model that the engine serves, such as the student's"
            draft.add("SPEC071", message, at, hint, on="key")


_NO_SCORES = "an endpoint gives no log-probs of a prompt"


def _models(draft: Draft) -> Iterator[tuple[KeyPath, str, Any]]:
    """Each model that is soundly written: its place, its role, and what is written."""
    for i, entry in enumerate(draft.items("models")):
        for role, written in entry.items() if isinstance(entry, dict) else ():
            path = ("models", i, role)
            if role != "id" and draft.sound(path):
                yield path, role, written


def _identity(written: Any) -> str:
    """Where a model is asked, and how; empty where it is the engine."""
    endpoint = written.get("endpoint") if isinstance(written, dict) else None
    return json.dumps([endpoint, written.get("chat")], sort_keys=True) if endpoint else ""
