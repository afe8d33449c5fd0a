"""Models that live elsewhere: at an endpoint, for roles that are neither trained nor score."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from charrun.endpoint import Endpoint
from charrun.secrets import shown_address
from charrun.spec.document import KeyPath
from charrun.spec.draft import Draft
from charrun.spec.parts import StageInfo, StageItem
from charrun.spec.words import shown

_SCORER, _STUDENT, _TEACHER = "scorer", "student", "teacher"
_ROUTE = "/chat/completions"
_LENGTH = "max_tokens is an option of each stage that samples, and goes under the name that the model takes"
_OWN_FIELDS: Final = {
    "max_tokens": _LENGTH,
    "max_completion_tokens": _LENGTH,
    "messages": "a stage says what it asks",
    "model": "say it as `model` under endpoint",
    "n": "samples_per_request under endpoint says how many answers one request may ask for; at 1 it is not sent",
    "stream": "answers are read as a whole",
}
"""Fields of a request that `parameters` cannot set, since budgets and records rest on them, with what to do instead."""


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
        _check_address(draft, (*at, "base_url"))
        for field in draft.mapping(*at, "parameters"):
            if field in _OWN_FIELDS:
                message = f"the field {shown(field)} of requests is charrun's own"
                draft.add("SPEC074", message, (*at, "parameters", field), _OWN_FIELDS[field], on="key")
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


def _check_address(draft: Draft, path: KeyPath) -> None:
    """Routes are put after an address: it holds neither one nor a query."""
    address = str(draft.document.at(path)).rstrip("/")
    plain = shown_address(address).rstrip("/").removesuffix(_ROUTE)
    what = next((name for sign, name in {"?": "a query", "#": "a fragment"}.items() if sign in address), "")
    if what or address.endswith(_ROUTE):
        draft.add("SPEC075", f"base_url ends before the routes, and has {what or _ROUTE}", path, f"write {plain}")


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
