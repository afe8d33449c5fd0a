"""The YAML constitutions of Open Character Studio.

What the studio puts into a prompt as the character's manner becomes traits: the directives on personality and
behaviour, and constraints. Refusals, boundaries and sign-offs never do by themselves: a line about declining made a
model refuse most requests, and quoted phrases came back in every answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from charrun.spec.compose import Composer
from charrun.spec.document import Mark, Node, Source
from charrun.spec.foreign import Foreign, texts_of, within
from charrun.spec.words import nearest, shown
from charrun.spec.yaml import compose

KEYS: Final = ("meta", "persona", "directives", "safety", "examples", "signoffs")
_DIRECTIVES: Final = ("personality", "behavior", "behaviour", "constraints")
_META: Final = ("name", "description", "author", "source", "license", "version", "tags")
_LEFT_OUT: Final = {
    (
        "safety",
        "refusals",
    ): "one line about declining taught a model to refuse 59% of requests; if it is wanted, say as a "
    "trait what the character does instead",
    ("safety", "boundaries"): "limits are no manner of speaking; add what can be heard in an answer as a trait",
    ("persona", "identity"): "the format never trains it; add what can be heard in an answer as a trait",
    ("persona", "voice"): "describe it as traits, one sentence for each habit",
    ("examples",): "the format never trains on them; their prompts may serve as questions",
    ("signoffs",): "quoted phrases come back in every answer; describe the habit as a trait",
}


def read_studio(text: str, source: Source) -> Foreign:
    """Directives as traits; the rest is told, and kept as comments.

    Raises:
        SpecError: It is no YAML.
    """
    found = Foreign()
    composer = Composer(source)
    root = compose(composer, text)
    found.problems += composer.problems
    root = root or Node(None, Mark(1, 1), source)
    if not isinstance(root.value, dict):
        message = f"expected a mapping with {', '.join(KEYS)}, got {shown(root.value)}"
        found.problems.append(root.problem("IMPORT003", message, "--format reads it as another one"))
        return found
    _meta(found, root)
    _directives(found, root)
    for path, why in _LEFT_OUT.items():
        node = _at(root, *path)
        if node is not None and (texts := [text for text in texts_of(node) if text]):
            found.leave_out(node, ".".join(path), why, texts)
    for name, (key, value) in root.value.items():
        if name not in KEYS and not found.take_origin(name, texts_of(value)):
            _unknown(found, name, key, KEYS)
    return found


def _unknown(found: Foreign, name: str, key: Node, known: Sequence[str]) -> None:
    near = nearest(name, known)
    hint = f"it is left out: did you mean {near!r}?" if near else f"it is left out: known are {', '.join(known)}"
    if name == "<<":
        hint = "it is left out, with all that it would bring: write that here"
    found.problems.append(key.problem("IMPORT021", f"unknown key {shown(name)}", hint, "warning"))


def _at(node: Node, *path: str) -> Node | None:
    for step in path:
        if not isinstance(node.value, dict) or step not in node.value:
            return None
        node = within(node, node.value[step][1])
    return node


def _meta(found: Foreign, root: Node) -> None:
    def text(*path: str) -> str:
        node = _at(root, *path)
        return "" if node is None or isinstance(node.value, dict | list | None) else " ".join(str(node.value).split())

    found.id = text("meta", "name")
    found.description = text("meta", "description")
    meta = _at(root, "meta")
    for name, (key, value) in meta.value.items() if meta is not None and isinstance(meta.value, dict) else ():
        if not found.take_origin(name, texts_of(value)) and name not in _META:
            _unknown(found, name, key, _META)


def _directives(found: Foreign, root: Node) -> None:
    directives = _at(root, "directives")
    if directives is None or not isinstance(directives.value, dict):
        node = root if directives is None else directives
        hint = "write directives: {personality: [...], behavior: [...]}"
        found.problems.append(node.problem("IMPORT015", "no mapping 'directives', which holds the traits", hint))
        return
    for name, (key, _) in directives.value.items():
        if name not in _DIRECTIVES:
            _unknown(found, name, key, _DIRECTIVES)
    for name in _DIRECTIVES:
        listed = _at(directives, name)
        if listed is not None and listed.value is not None:
            _traits(found, name, listed)


def _traits(found: Foreign, name: str, node: Node) -> None:
    if not isinstance(node.value, list):
        message = f"expected a list for {name!r}, got {shown(node.value)}"
        found.problems.append(node.problem("IMPORT014", message, "write each on a line of its own, after '- '"))
        return
    for item in (within(node, item) for item in node.value):
        if isinstance(item.value, str):
            found.add_trait(item.value, item.mark, item.source)
        else:
            message = f"expected text, got {shown(item.value)}"
            is_mapping = isinstance(item.value, dict)
            hint = "put text that holds ': ' in quotes" if is_mapping else "write a sentence, in quotes if need be"
            found.problems.append(item.problem("IMPORT014", message, hint))
