"""Values of a spec that look like keys: told as warnings, and never shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from charrun.secrets import learn, secrets_of
from charrun.spec.document import KeyPath

if TYPE_CHECKING:
    from charrun.spec.draft import Draft
    from charrun.spec.model import Spec

_HINT = "take it out of the file: keys come from TINKER_API_KEY or `tinker auth login`, addresses from TINKER_BASE_URL"


def warn_of_keys(draft: Draft) -> None:
    """Add a warning for each value of a spec that holds what looks like a secret; from now on it is hidden."""
    for path, name, text in _texts(draft.document.data, (), ""):
        if found := secrets_of(name, text):
            learn(*found)
            draft.warn("SPEC057", "this looks like a secret; it is hidden wherever it would be shown", path, _HINT)


def warn_of_keys_beside(draft: Draft, spec: Spec) -> None:
    """The same for what the spec names: characters and templates that are files of their own."""
    for index, character in enumerate(spec.characters):
        texts = [character.description, *(text for t in character.traits for text in (t.trait, *t.questions))]
        _warn(draft, texts, ("characters", index), f"the character '{character.id}'")
    for name, path in spec.templates.items():
        _warn(draft, [path.read_text(encoding="utf-8")], ("templates", name), f"the template '{name}'")


def _warn(draft: Draft, texts: list[str], path: KeyPath, what: str) -> None:
    found = [secret for text in texts for secret in secrets_of("", text)]
    if found and isinstance(draft.document.at(path), str):  # written in the spec itself it was told already
        learn(*found)
        draft.warn("SPEC057", f"{what} holds what looks like a secret", path, _HINT)


def _texts(value: Any, path: KeyPath, name: str) -> Iterator[tuple[KeyPath, str, str]]:
    """Every text with its path and the nearest key above it."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _texts(each, (*path, key), str(key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _texts(each, (*path, index), name)
    elif isinstance(value, str):
        yield path, name, value
